"""A server for tests on loopback: OpenAI's chat API in front of a model that is really asked; it can do so badly."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from perpo.engines.base import Decoding, Query
from perpo.engines.hf import HfEngine


@dataclass(frozen=True)
class Outcome:
    """What is sent in place of a completion, or done to it.

    Attributes:
        status: Of HTTP.
        body: Instead of the completion; None for that.
        headers: Beside the usual ones.
        change: Changes the completion.
        hang: Never answer.
        cut: Close the connection after half of the body.
    """

    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    change: Callable[[dict[str, Any]], Any] = lambda completion: None
    hang: bool = False
    cut: bool = False


def error(status: int, code: str | None = None, message: str = "no", **headers: str) -> Outcome:
    """A status with an error in OpenAI's form."""
    body = json.dumps({"error": {"message": message, "type": "test", "code": code}}).encode()
    return Outcome(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


GOOD = Outcome()

Behave = Callable[[dict[str, Any], int], Outcome]
"""From a call's body, and how many calls came before it."""


class ModelServer:
    """A model behind a real HTTP server.

    Args:
        engine: What answers.
        behave: What is done with a call.
        models: What /v1/models lists.
        seeded: Whether candidates of one call have seeds of their own, as in vLLM; in SGLang all have the same.
    """

    def __init__(
        self,
        engine: HfEngine,
        behave: Behave = lambda body, before: GOOD,
        *,
        models: list[dict[str, Any]] | Outcome | None = None,
        seeded: bool = True,
    ) -> None:
        self.engine, self.behave, self.seeded = engine, behave, seeded
        usual = {"id": "tiny", "owned_by": "test", "root": "/models/tiny", "max_model_len": 512}
        self.models = [usual] if models is None else models
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.over = threading.Event()
        self._http = _Server(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        """What --base_url takes."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def serve(self) -> None:
        """Answer until the server is closed."""
        self._http.serve_forever(poll_interval=0.02)

    def close(self) -> None:
        """Let hanging calls go and close."""
        self.over.set()
        self._http.shutdown()
        self._http.server_close()

    def outcome(self, body: dict[str, Any], key: str | None) -> Outcome:
        """Count a call, and say what is done with it."""
        with self.lock:
            before = len(self.bodies)
            self.bodies.append(body)
            self.keys.append(key)
        return self.behave(body, before)

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        """Ask the model."""
        picture, text = body["messages"][0]["content"]
        data = base64.b64decode(picture["image_url"]["url"].partition("base64,")[2])
        image = Image.open(io.BytesIO(data))
        loaded = self.engine.loaded
        prompt = self.engine.prompt(text["text"])
        with self.lock:  # one model, many threads
            choices = []
            for place in range(body["n"]):
                seed = body["seed"] + place * self.seeded
                decoding = Decoding(
                    max_new_tokens=body["max_tokens"], temperature=body["temperature"], top_p=body["top_p"], seed=seed
                )
                ((answer,),) = self.engine.answers([Query(text["text"], image)], decoding)
                ids = loaded.tokenizer(answer.whole or answer.text, add_special_tokens=False).input_ids
                choices.append(
                    {"index": place, "finish_reason": answer.finish_reason}
                    | {"message": {"role": "assistant", "content": answer.whole or answer.text}}
                    | ({"token_ids": ids} if body.get("return_token_ids") else {})
                )
            ids = loaded.encode([prompt], [image])["input_ids"][0].tolist()
        self.asked[text["text"]] += body["n"]
        read = {"prompt_token_ids": ids} if body.get("return_token_ids") else {}
        return {"model": body["model"], "choices": choices, "usage": {"prompt_tokens": len(ids)}} | read


@contextmanager
def model_server(engine: HfEngine, behave: Behave = lambda body, before: GOOD, **more: Any) -> Iterator[ModelServer]:
    """A server that answers while the block runs."""
    server = ModelServer(engine, behave, **more)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of the server's business."""


def _handler(server: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path == "/version":
                self._send(Outcome(body=b'{"version": "0.1"}'))
            elif self.path == "/v1/models":
                listed = server.models
                self._send(
                    listed if isinstance(listed, Outcome) else Outcome(body=json.dumps({"data": listed}).encode())
                )
            else:
                self._send(Outcome(404, b"{}"))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            outcome = server.outcome(body, self.headers.get("authorization"))
            if outcome.hang:
                server.over.wait()
                self.close_connection = True
                return
            if outcome.body is None:
                completion = server.completion(body)
                outcome.change(completion)
                outcome = Outcome(outcome.status, json.dumps(completion).encode(), outcome.headers, cut=outcome.cut)
            self._send(outcome)

        def _send(self, outcome: Outcome) -> None:
            body = outcome.body or b""
            self.send_response(outcome.status)
            for name, value in ({"Content-Type": "application/json"} | outcome.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if outcome.cut else body)
            self.wfile.flush()
            if outcome.cut:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

    return Handler
