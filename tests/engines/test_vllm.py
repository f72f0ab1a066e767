"""A real vLLM, as a server and in one process with perpo, held against our own engine. `make test-engines`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare

from perpo.cli.sample import main as sample_main
from perpo.cli.train import main as train_main
from perpo.data import read_preferences
from perpo.data.images import open_image
from perpo.engines.base import Decoding, Query
from perpo.engines.hf import load_hf
from perpo.engines.served import ServersWanted
from perpo.engines.server import load_server
from perpo.models.checkpoints import checkpoint_dir
from perpo.models.loaded import render_prompt
from perpo.records.store import Run, read_run
from perpo.tiny.world import write_questions
from perpo_eval.cli.eval import main as eval_main

PYTHON = os.environ.get("PERPO_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="PERPO_VLLM_PYTHON names no Python with vLLM; make test-engines makes one"),
]
ROOT = Path(__file__).parents[2]
UP_S, MOST_S = 600, 1800
ENDS_S = 20
"""For a program to end after Ctrl-C or with vLLM, which takes some 5 seconds to end."""
DRAWS = 1500
NEARLY_EQUAL = 1e-3
"""Logits: where the two most probable tokens are nearer, engines may choose either."""


def _environment(**more: str) -> dict[str, str]:
    known = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    return {name: value for name, value in known.items() if name != "PYTHONPATH"} | more


def _start_of(module: str, words: Sequence[str], **more: str) -> dict[str, Any]:
    """What starts one of perpo's programs in the environment of vLLM."""
    here = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "eval")))} | more
    given = ["--engine", "vllm", "--dtype", "float32", "--vllm_args", "enforce_eager=true"]
    return {"args": [PYTHON, "-m", module, *words, *given], "env": _environment(**here), "text": True}


def beside_vllm(module: str, words: Sequence[str], **more: str) -> subprocess.CompletedProcess[str]:
    """One of perpo's programs in the environment of vLLM."""
    done = subprocess.run(**_start_of(module, words, **more), capture_output=True, timeout=MOST_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    records = tmp_path_factory.mktemp("records") / "pairs.jsonl"
    assert sample_main(["--output", str(records), "--limit", "8", "--num_candidates", "4"]) == 0
    return records


def trained(records: Path, adapter: Path, *words: str) -> Path:
    """A short training's adapter."""
    images = records.with_name("pairs-questions")
    given = ["--data", str(records), "--image_root", str(images), "--output_dir", str(adapter), "--max_steps", "2"]
    assert train_main([*given, *words]) == 0
    return adapter


@pytest.fixture(scope="module")
def merged(records, tmp_path_factory) -> Path:
    """What `perpo-train merge` writes of a short training."""
    folder = tmp_path_factory.mktemp("merged")
    adapter, output = trained(records, folder / "adapter"), folder / "model"
    assert train_main(["merge", "--adapter", str(adapter), "--model", "tiny", "--output", str(output)]) == 0
    return output


@pytest.fixture(scope="module", params=["shipped", "merged"])
def served(request, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """The address of a server, and the checkpoint that it has."""
    folder = checkpoint_dir() if request.param == "shipped" else request.getfixturevalue("merged")
    with serving(folder, tmp_path_factory.mktemp("log") / "log.txt") as url:
        yield url, folder


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[str]:
    """A vLLM that serves a checkpoint; gives its address."""
    port = free_port()
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--dtype", "float32", "--enforce-eager", "--generation-config", "vllm"]
    # A seeded request of which the server has read half a prompt ends this build for CPUs.
    command += ["--limit-mm-per-prompt", '{"image": 1}', "--no-enable-chunked-prefill"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=_environment())
    try:
        _wait(process, port, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + UP_S
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


def stored(output: Path) -> Run:
    (path,) = (file.parent for file in output.rglob("run.json"))
    return read_run(path)


def test_the_grounding_suite_has_our_numbers(served, tmp_path) -> None:
    url, folder = served
    theirs, ours = _same_answers(url, str(folder), "grounding", 40, tmp_path)
    assert theirs.record.model.served["software"] == "vllm"
    for mine, other in zip(theirs.record.tasks, ours.record.tasks, strict=True):
        assert mine.metrics[0].ci_low <= other.metrics[0].value <= mine.metrics[0].ci_high


def test_dense_pages_are_read_as_by_our_engine(tmp_path) -> None:
    with serving(checkpoint_dir("tiny-ocr"), tmp_path / "log.txt") as url:
        _same_answers(url, "tiny-ocr", "ocr", 10, tmp_path)


def _same_answers(url: str, model: str, suite: str, limit: int, tmp_path: Path) -> tuple[Run, Run]:
    words = ["--suite", suite, "--model", model, "--limit", str(limit), "--output"]
    assert eval_main([*words, str(tmp_path / "vllm"), "--engine", "server", "--base_url", url]) == 0
    assert eval_main([*words, str(tmp_path / "hf"), "--dtype", "float32"]) == 0
    return _compared(model, None, tmp_path)


def _compared(model: str, adapter: str | None, tmp_path: Path) -> tuple[Run, Run]:
    """Greedy answers are ours but where two tokens are nearly equal: those are listed with the gap."""
    theirs, ours = stored(tmp_path / "vllm"), stored(tmp_path / "hf")
    columns = ["sample_key", "response", "prompt", "question", "image"]
    pairs = list(zip(*(run.samples(columns).to_pylist() for run in (theirs, ours)), strict=True))
    differing = [(one, other) for one, other in pairs if one["response"] != other["response"]]
    print(f"{len(differing)} of {len(pairs)} greedy answers differ")
    engine = load_hf(model, adapter, dtype="float32", device="cpu")
    for one, other in differing:
        gap = _gap(engine, one, other)
        print(f"{one['response']} against {other['response']}: a logit gap of {gap:.2g}")
        assert gap < NEARLY_EQUAL
    return theirs, ours


def _gap(engine, one: dict, other: dict) -> float:
    """By how much our own model prefers one of two answers' first differing tokens."""
    ids = [engine.loaded.tokenizer(f" {row['response']}", add_special_tokens=False).input_ids for row in (one, other)]
    same = next(place for place, pair in enumerate(zip(*ids, strict=False)) if pair[0] != pair[1])
    logits = _logits(engine, open_image(Path(other["image"]["path"])), other["question"], ids[1][:same])
    return abs(float(logits[ids[0][same]] - logits[ids[1][same]]))


def _logits(engine, image, question: str, ids: list[int]) -> torch.Tensor:
    loaded = engine.loaded
    inputs = loaded.encode([render_prompt(loaded, question)], [image])
    more = torch.tensor([ids], dtype=torch.long)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], more], dim=1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(more)], dim=1)
    with torch.inference_mode():
        return loaded.model(**inputs).logits[0, -1].double()


def test_candidates_follow_the_models_own_distribution(served, tmp_path) -> None:
    """The first coordinate of many boxes at temperature 1 against the probabilities that our own model gives."""
    url, folder = served
    questions = write_questions(tmp_path / "questions", images=3)
    row = json.loads(questions.read_text().splitlines()[0])
    image = open_image(questions.parent / row["image_path"])
    wanted = ServersWanted(base_url=[url], served_model=None, concurrency=8, rps=None, timeout_s=600.0)
    decoding = Decoding(max_new_tokens=3, num_candidates=DRAWS, temperature=1.0, logps=False)
    (answers,) = load_server(str(folder), wanted).answers([Query(row["question"], image)], decoding)
    _held_against_our_probabilities(str(folder), image, row["question"], [answer.whole for answer in answers])


def _held_against_our_probabilities(model: str, image: Image.Image, question: str, texts: Sequence[str]) -> None:
    engine = load_hf(model, None, dtype="float32", device="cpu")
    tokenizer = engine.loaded.tokenizer
    start = tokenizer(" [", add_special_tokens=False).input_ids
    shares = torch.softmax(_logits(engine, image, question, start), dim=-1).numpy()
    names = [tokenizer.decode([token]) for token in range(len(shares))]
    drawn = [text.strip()[1:] for text in texts if text.strip().startswith("[")]
    assert len(drawn) > 0.9 * DRAWS
    often = [token for token in np.argsort(-shares)[:40] if shares[token] * len(drawn) >= 5]
    counts = [sum(each.startswith(names[token]) for each in drawn) for token in often]
    counts.append(len(drawn) - sum(counts))
    expected = np.array([*shares[often], 1 - shares[often].sum()]) * len(drawn)
    told = chisquare(counts, expected)
    print(f"chi-square {told.statistic:.1f} of {len(counts)} kinds, p = {told.pvalue:.3f}")
    assert told.pvalue > 1e-3


def test_records_are_trained_on(served, tmp_path) -> None:
    url, folder = served
    output = tmp_path / "pairs.jsonl"
    words = ["--engine", "server", "--base_url", url, "--model", str(folder), "--output", str(output)]
    assert sample_main([*words, "--limit", "6", "--num_candidates", "4"]) == 0
    assert read_preferences(output)[0].sampling["served"]["software"] == "vllm"
    images = ["--image_root", str(tmp_path / "pairs-questions")]
    more = ["--data", str(output), *images, "--model", str(folder), "--output_dir", str(tmp_path / "a")]
    assert train_main([*more, "--max_steps", "1"]) == 0


def test_in_one_process_the_grounding_suite_has_our_answers(tmp_path) -> None:
    words = ["--suite", "grounding", "--model", "tiny", "--limit", "40", "--output"]
    said = beside_vllm("perpo_eval.cli", [*words, str(tmp_path / "vllm"), "--json"])
    assert eval_main([*words, str(tmp_path / "hf"), "--dtype", "float32"]) == 0
    theirs, _ = _compared("tiny", None, tmp_path)
    assert json.loads(said.stdout)["model"]["engine"] == theirs.record.model.engine == "vllm"  # and nothing else
    assert theirs.record.model.served["software"] == "vllm"
    assert theirs.record.hardware["device"] == "cpu"


def test_in_one_process_candidates_follow_the_models_own_distribution(tmp_path) -> None:
    output = tmp_path / "pairs.jsonl"
    words = ["--output", str(output), "--limit", "1", "--num_candidates", str(DRAWS), "--max_new_tokens", "3"]
    beside_vllm("perpo.cli.sample", words)
    (record,) = read_preferences(output)
    assert record.sampling["engine"] == "vllm"
    assert set(record.reference_logps) == {None}
    image = open_image(tmp_path / "pairs-questions" / record.image_path)
    _held_against_our_probabilities("tiny", image, record.question, record.answers_gen)


@pytest.mark.parametrize("projector", ["0", "1e-3"])
def test_in_one_process_an_adapter_answers_as_with_our_engine(records, projector, tmp_path) -> None:
    """Of the language model alone it is vLLM's LoRA; with a projector it is merged once into its base."""
    words = ["--mm_projector_lr", projector, "--learning_rate", "3e-3"]
    adapter = str(trained(records, tmp_path / "adapter", *words))
    asked = ["--tasks", "refshapes_val", "--model", "tiny", "--limit", "10", "--output"]
    beside_vllm(
        "perpo_eval.cli", [*asked, str(tmp_path / "vllm"), "--adapter", adapter], XDG_CACHE_HOME=str(tmp_path / "cache")
    )
    for name, more in (("hf", ["--adapter", adapter]), ("base", [])):
        assert eval_main([*asked, str(tmp_path / name), "--dtype", "float32", *more]) == 0
    theirs, ours = _compared("tiny", adapter, tmp_path)
    assert theirs.record.model.served["adapter"] == ("lora" if projector == "0" else "merged")
    assert theirs.record.model.adapter_sha256 == ours.record.model.adapter_sha256
    assert len(list(tmp_path.glob("cache/perpo/merged/*"))) == (projector != "0")
    plain = stored(tmp_path / "base").samples(["response"]).to_pylist()
    assert plain != ours.samples(["response"]).to_pylist()  # else nothing was shown


def test_in_several_processes_the_file_is_that_of_one(tmp_path) -> None:
    for name, more in (("one", []), ("two", ["--processes", "2"])):
        words = ["--output", str(tmp_path / f"{name}.jsonl"), "--limit", "6", "--num_candidates", "3"]
        beside_vllm("perpo.cli.sample", [*words, "--batch_size", "3", *more])
    one, two = (read_preferences(tmp_path / f"{name}.jsonl") for name in ("one", "two"))
    same = [mine.answers_gen == other.answers_gen for mine, other in zip(one, two, strict=True)]
    print(f"{sum(same)} of {len(same)} questions have equal candidates from one process and from two")
    assert [record.question for record in one] == [record.question for record in two]
    assert len(list(tmp_path.glob("two.jsonl.journal*"))) == 2


def _until(there: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    until = time.monotonic() + UP_S
    while not (value := there()):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    return value


def _cores(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """vLLM's own processes below one of ours; none before the first has begun."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [each for each in below if any(name in " ".join(each.cmdline()) for name in ("EngineCore", "spawn_main"))]


def _session(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """All that lives of what a program has started, also where its parent has ended."""
    time.sleep(1)  # Python's own helper sees some moments later that it is alone
    living = []
    for each in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(each.pid) == process.pid and each.status() != psutil.STATUS_ZOMBIE:
                living.append(each)
    return living


@contextmanager
def sampled(output: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A perpo-sample of small batches, which has to end within the block and leaves no process behind."""
    words = ["--output", str(output), "--limit", "100", "--num_candidates", "3", "--batch_size", "4", *more]
    process = subprocess.Popen(**_start_of("perpo.cli.sample", words), stderr=subprocess.PIPE, start_new_session=True)
    try:
        yield process
        assert _session(process) == []
    finally:
        for each in _session(process):
            each.kill()
        process.communicate()


def _ended(process: subprocess.Popen[str], most_s: float = ENDS_S) -> tuple[int, str]:
    begun = time.monotonic()
    _, said = process.communicate(timeout=most_s)
    print(f"ended with {process.returncode} after {time.monotonic() - begun:.1f} s: {said[-500:]}")
    return process.returncode, said


def _finished(output: Path) -> bytes:
    """What the journal has of whole rows, after its first batch; until then nothing."""
    journal = output.with_name(f"{output.name}.journal")
    kept = journal.read_bytes() if journal.exists() else b""
    return kept[: kept.rfind(b"\n") + 1] if kept.count(b"\n") > 4 else b""


@pytest.mark.parametrize(
    ("sent", "processes", "code", "says"),
    [
        ("SIGKILL to vLLM", [], 3, "EngineCore ended with SIGKILL"),
        ("Ctrl-C", [], 130, "interrupted; finished work is kept"),
        ("SIGTERM", [], 143, "terminated; finished work is kept"),
        ("SIGKILL to vLLM", ["--processes", "2"], 3, "EngineCore ended with SIGKILL"),
        ("SIGINT", ["--processes", "2"], 130, "interrupted; finished work is kept"),
    ],
)
def test_whatever_ends_it_what_is_finished_is_kept_and_the_same_command_goes_on(
    sent, processes, code, says, tmp_path
) -> None:
    output = tmp_path / "pairs.jsonl"
    with sampled(output, *processes) as process:
        _until(lambda: _finished(output), process)
        if sent == "SIGKILL to vLLM":
            core = _cores(process)[0]
            core.suspend()  # so that an answer is waited for
            time.sleep(1)
            core.kill()
        elif sent == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.Signals[sent])
        ended, said = _ended(process)
    assert ended == code
    assert says in said
    assert "Traceback" not in said
    assert not output.exists()
    kept = _finished(output)
    with sampled(output, *processes) as process:
        assert _ended(process, MOST_S)[0] == 0
    assert _finished(output).startswith(kept)
    assert len(read_preferences(output)) == 100


def test_a_vllm_that_is_killed_while_it_starts_leaves_nothing_behind(tmp_path) -> None:
    with sampled(tmp_path / "pairs.jsonl") as process:
        (core,) = _until(lambda: _cores(process), process)
        time.sleep(1)
        core.kill()
        code, said = _ended(process)
    assert code == 2
    assert "vLLM cannot load tiny" in said
