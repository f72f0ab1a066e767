"""A judge for tests: a real HTTP server on loopback that speaks OpenAI's chat API, and can do so badly.

As a program it answers every question after a delay: python tests/evaluation/judge_server.py --delay_s 0.5
prints its address.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAIR = "8 9\nBoth are good."
RATING = "It is right.\nRating: 4"


@dataclass(frozen=True)
class Answer:
    """What the server does with a request.

    Attributes:
        text: The judge's words.
        status: Of HTTP.
        headers: Beside the usual ones.
        body: Instead of a chat completion.
        hang: Never answer; the connection stays open until the server ends.
        cut: Promise the body and close the connection after half of it.
        message: Replaces the completion's message.
        finish_reason: As it says.
    """

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    hang: bool = False
    cut: bool = False
    message: dict[str, Any] | None = None
    finish_reason: str = "stop"


def refusal(status: int, code: str | None = None, **more: Any) -> Answer:
    """A status with an error in OpenAI's form."""
    error = {"message": "no", "type": "test", "code": code}
    return Answer(status=status, body=json.dumps({"error": error}).encode(), **more)


@dataclass(frozen=True)
class Call:
    """A request that came in: its body, its key, and when it came (s)."""

    body: dict[str, Any]
    authorization: str | None
    at: float

    @property
    def prompt(self) -> str:
        return self.body["messages"][-1]["content"]


def good(call: Call, times: int) -> Answer:
    """A good judge: its numbers depend on the prompt alone."""
    seed = hashlib.sha256(call.prompt.encode()).digest()[0]
    if "LMM Response to Evaluate" in call.prompt:
        return Answer(f"It says what can be seen.\nRating: {seed % 7}")
    return Answer(f"{5 + seed % 5} {4 + seed % 6}\nBoth are good.")


class JudgeServer:
    """A judge on loopback.

    Args:
        behave: Gives what is done with a call, from the call and from how many had the same prompt, itself included.
        delay_s: Seconds before each answer.
        port: 0 takes a free one.
    """

    def __init__(self, behave: Callable[[Call, int], Answer] = good, *, delay_s: float = 0.0, port: int = 0) -> None:
        self.behave = behave
        self.delay_s = delay_s
        self.calls: list[Call] = []
        self.answered: list[str] = []
        self.most_open = 0
        self._open = 0
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.over = threading.Event()
        self._http = _Server(("127.0.0.1", port), _handler(self))

    @property
    def url(self) -> str:
        """What --judge_base_url takes."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def serve(self) -> None:
        """Answer until the server is closed."""
        self._http.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        """Let hanging calls go and close."""
        self.over.set()
        self._http.shutdown()
        self._http.server_close()

    def answer(self, call: Call) -> Answer:
        """Count a call, wait, and say what is done with it."""
        with self._lock:
            self.calls.append(call)
            self._seen[call.prompt] += 1
            times = self._seen[call.prompt]
            self._open += 1
            self.most_open = max(self.most_open, self._open)
        self.over.wait(self.delay_s)
        with self._lock:  # before the answer goes out, after which the client may well ask again
            self._open -= 1
        return self.behave(call, times)

    def done(self, call: Call, answer: Answer) -> None:
        """Count an answer that was sent."""
        if answer.status == 200 and not (answer.hang or answer.cut):
            self.answered.append(call.prompt)


@contextmanager
def judge_server(behave: Callable[[Call, int], Answer] = good, *, delay_s: float = 0.0) -> Iterator[JudgeServer]:
    """A judge that answers while the block runs."""
    server = JudgeServer(behave, delay_s=delay_s)
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


def _handler(server: JudgeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            call = Call(body, self.headers.get("authorization"), time.monotonic())
            answer = Answer(status=404) if self.path != "/v1/chat/completions" else server.answer(call)
            try:
                self._send(call, answer)
            finally:
                server.done(call, answer)

        def _send(self, call: Call, answer: Answer) -> None:
            if answer.hang:
                server.over.wait()
                self.close_connection = True
                return
            body = answer.body if answer.body is not None else json.dumps(_completion(call, answer)).encode()
            self.send_response(answer.status)
            for name, value in ({"Content-Type": "application/json"} | answer.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if answer.cut else body)
            self.wfile.flush()
            if answer.cut:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

    return Handler


def _completion(call: Call, answer: Answer) -> dict[str, Any]:
    prompt = sum(len(message["content"].split()) for message in call.body["messages"])
    return {
        "id": "chatcmpl-test",
        "object": "chat.completion",
        "created": 0,
        "model": call.body["model"],
        "choices": [
            {
                "index": 0,
                "message": answer.message or {"role": "assistant", "content": answer.text},
                "finish_reason": answer.finish_reason,
            }
        ],
        "usage": {"prompt_tokens": prompt, "completion_tokens": len(answer.text.split())},
    }


def main() -> None:
    """Serve a good judge until the program is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay_s", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    args = parser.parse_args()
    server = JudgeServer(delay_s=args.delay_s, port=args.port)
    print(server.url, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
