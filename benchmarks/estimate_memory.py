"""Estimated memory (--estimate) against measured memory of a sampling, a training and an evaluation, on the CPU.

Random LLaVA models of two sizes, with LLaVA-1.5's 24 x 24 image tokens and 32,000 words, in float32. Each piece of work
is a call of the program's own `main`, in a process of its own. It is run once with a small model, so that libraries
and what they keep are there; then what is resident is the ground, and the kernel's high-water mark is reset. Measured
is that mark above the ground: once the weights are loaded it is reset again, so that loading does not hide the work.
Blocks over 64 KiB go back to the system as soon as they are freed (MALLOC_MMAP_THRESHOLD_), as a GPU's allocator does
not; so this is what tensors need, not what an allocator keeps.

Run: OMP_NUM_THREADS=1 python benchmarks/estimate_memory.py [--sizes small large] [--work sample train ...]
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from perpo.common.program import quiet_libraries

quiet_libraries()  # before torch is imported: its threads' way of waiting is set then

from measure import resident_mib
from PIL import Image

from perpo.tiny.model import LLAVA15_GEOMETRY, ModelShape, new_model, new_processor, save_checkpoint

GPU = "H100"  # that hours are told for; memory does not depend on it
WORDS = 32_000
QUESTION = "Please provide the bounding box coordinate of the region this sentence describes: the small red circle"
SIZES = {
    "smallest": ModelShape(336, 14, 192, 4, -2, 256, 4, 4096, LLAVA15_GEOMETRY.system),
    "small": ModelShape(336, 14, 384, 6, -2, 512, 8, 4096, LLAVA15_GEOMETRY.system),
    "large": ModelShape(336, 14, 768, 8, -2, 1152, 12, 4096, LLAVA15_GEOMETRY.system),
}
LORA = ["--lora_r", "16", "--lora_alpha", "32", "--learning_rate", "1e-5", "--mm_projector_lr", "1e-5"]
QUIET = ["--report_to", "none", "--save_steps", "0", "--probe_lists", "0", "--max_steps", "2"]


class Work(NamedTuple):
    """A piece of work: its program, flags, number of questions, candidates, and tokens of an answer."""

    program: str
    words: list[str]
    questions: int
    candidates: int
    answer: int


def _sample(batch: int, candidates: int, answer: int) -> Work:
    words = ["--batch_size", str(batch), "--num_candidates", str(candidates), "--max_new_tokens", str(answer)]
    return Work("sample", [*words, "--reward", "edit", "--dtype", "float32"], batch, candidates, answer)


def _train(batch: int, candidates: int, answer: int, *more: str) -> Work:
    words = ["--per_device_train_batch_size", str(batch), "--bf16", "False", *LORA, *QUIET, *more]
    return Work("train", words, 2 * batch, candidates, answer)


def _evaluate(batch: int, answer: int) -> Work:
    words = ["--suite", "pope", "--tasks", "tinypope_random", "--limit", str(batch), "--batch_size", str(batch)]
    return Work("evaluate", [*words, "--dtype", "float32", "--max_new_tokens", str(answer)], batch, 1, answer)


WORK = {
    "sample": _sample(4, 8, 12),
    "sample, top-p": _sample(2, 20, 8)._replace(words=[*_sample(2, 20, 8).words, "--top_p", "0.9"]),
    "train": _train(1, 6, 20),
    "train, checkpointing": _train(1, 6, 20, "--gradient_checkpointing", "True"),
    "train, 2 lists": _train(2, 3, 20),
    "evaluate": _evaluate(1, 4),  # pictures that questions share are read once, which no estimate knows
}


def main() -> None:
    """Print a row for each size and piece of work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "large"])
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(_measured(*args.one)))
        return
    print("MB (10^6 bytes), float32, CPU\n")
    print("| model | work | predicted | measured | ratio | weights alone |\n|---|---|---:|---:|---:|---:|")
    for size in args.sizes:
        for name in args.work:
            row = in_process(size, name)
            ratio = row["predicted"] / row["measured"]
            told = f"{row['predicted']:,.0f} | {row['measured']:,.0f} | {ratio:.2f} | {row['weights']:,.0f}"
            print(f"| {row['parameters'] / 1e6:,.0f} M | {name} | {told} |", flush=True)


def in_process(size: str, work: str) -> dict[str, float]:
    """Return what a process of its own measures, in MB: `predicted`, `measured`, `weights`; and `parameters`."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16), "MALLOC_TRIM_THRESHOLD_": str(2**16)}
    command = [sys.executable, __file__, "--one", size, work]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _measured(size: str, name: str) -> dict[str, float]:
    work = WORK[name]
    with tempfile.TemporaryDirectory() as folder:
        first = _model(Path(folder, "first"), ModelShape(336, 14, 32, 1, -2, 32, 1, 4096, LLAVA15_GEOMETRY.system))
        model = _model(Path(folder, "model"), SIZES[size])
        _run(work, _words(work, first, Path(folder, "warm")))
        words = _words(work, model, Path(folder, "work"))
        cost, parameters = _predicted(work, words), (model / "model.safetensors").stat().st_size // 4
        ground = _reset()
        with _reset_when_loaded():
            _run(work, words)
        peak = resident_mib("VmHWM") - ground
    scale = 2**20 / 1e6
    return {
        "predicted": cost / 1e6,
        "measured": peak * scale,
        "weights": 4 * parameters / 1e6,
        "parameters": parameters,
    }


def _reset() -> float:
    """Give back what is free, begin a new high-water mark, and return what is resident, in MiB."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident_mib("VmRSS")


@contextlib.contextmanager
def _reset_when_loaded() -> Iterator[None]:
    """Within it the high-water mark begins anew where a model has been loaded."""
    from perpo.engines import hf
    from perpo.train import policy

    load = hf.load_model

    def loading(*args: Any, **kwargs: Any) -> Any:
        loaded = load(*args, **kwargs)
        for weight in loaded.model.parameters():
            weight.sum()  # transformers maps the file, of which only what was read is resident
        _reset()
        return loaded

    hf.load_model = policy.load_model = loading  # type: ignore[assignment]
    try:
        yield
    finally:
        hf.load_model = policy.load_model = load  # type: ignore[assignment]


def _model(folder: Path, shape: ModelShape) -> Path:
    processor = new_processor(shape, [QUESTION, shape.system, "USER: ASSISTANT:"])
    model = new_model(shape, processor)
    model.resize_token_embeddings(WORDS)
    model.generation_config.eos_token_id = 1  # so that nearly no random answer ends before it has all its tokens
    return save_checkpoint(folder, model, processor)


def _words(work: Work, model: Path, folder: Path) -> list[str]:
    """The flags of a call with data of its own, whose answers have the same number of tokens each."""
    folder.mkdir()
    rows = []
    for number in range(work.questions):
        Image.new("RGB", (336, 336), (number, 80, 80)).save(folder / f"{number}.png")
        rows.append({"image_path": f"{number}.png", "question": QUESTION, "answer": "small red circle " * 8})
    data = folder / "data.jsonl"
    if work.program == "train":
        said = [("0.1, " * work.answer)[: -5 * 3] + f"0.{place}" for place in range(work.candidates)]
        rewards = [place / work.candidates for place in range(work.candidates)]
        rows = [row | {"answers_gen": said, "rewards": rewards, "reward_name": "given"} for row in rows]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {
        "sample": ["--questions", str(data), "--output", str(folder / "out.jsonl")],
        "train": ["--data", str(data), "--output_dir", str(folder / "out")],
        "evaluate": ["--output", str(folder / "out")],
    }[work.program]
    return ["--model", str(model), *own, *work.words]


def _main(program: str, words: list[str]) -> str:
    """Call a program's main and return what it printed; what it says besides is left out."""
    from perpo.cli.sample import main as sample
    from perpo.cli.train import main as train
    from perpo_eval.cli.eval import main as evaluate

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = {"sample": sample, "train": train, "evaluate": evaluate}[program](words)
    if code:
        raise SystemExit(err.getvalue() or out.getvalue())
    return out.getvalue()


def _run(work: Work, words: list[str]) -> None:
    _main(work.program, words)


def _predicted(work: Work, words: list[str]) -> float:
    """Bytes that --estimate tells for the same flags."""
    row = {"evaluate": "tinypope_random"}.get(work.program, work.program)
    (line,) = [line for line in _main(work.program, [*words, "--estimate", GPU]).splitlines() if line.startswith(row)]
    return float(line.split()[-2].replace(",", "")) * 1e9


if __name__ == "__main__":
    main()
