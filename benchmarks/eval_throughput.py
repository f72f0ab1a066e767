"""Answers a second of our model class, beside lmms-eval's own `llava_hf`, on the same checkpoint and rows.

Both are handed the same requests of lmms-eval, about the first rows of the tiny world's refshapes_val, in one
process, by turns. `llava_hf` takes batches of one question alone. It imports decord, which reads films and is
no dependency of lmms-eval: an empty module stands in for it here. Its own template is Vicuna's; it is given
the checkpoint's, so that both read the same prompts. Every answer is compared: batches are padded, so that
in float32 a tie of two tokens may fall otherwise now and then. Beside wall time stands the process's CPU time,
which a busy machine changes less. Run: python benchmarks/eval_throughput.py
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import statistics
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from perpo.common.program import quiet_libraries

quiet_libraries()  # before torch is imported: its threads' way of waiting is set then

import torch
from lmms_eval.api.instance import Instance, unwrap_generation_output

from perpo.models.checkpoints import checkpoint_dir
from perpo_eval.arguments import EvalArguments
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.engines.base import EvalEngine
from perpo_eval.engines.choice import load_engine
from perpo_eval.evaluate.answering import make_requests
from perpo_eval.rows.loading import TaskData, load_task
from perpo_eval.rows.media import recent_image
from perpo_eval.rows.suites import TASKS

TASK = "refshapes_val"
TEMPLATE = "{% for message in messages %}USER: {{ message['content'] }}{% endfor %} ASSISTANT:"
"""What the checkpoint's template makes of a question, for contents that are one text, image placeholder and all."""


def main() -> None:
    """Print one line for each model class, the ratio of their medians, and how many answers agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400, help="questions, from the first on")
    parser.add_argument("--batch_size", type=int, default=32, help="of our model class")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, by turns")
    args = parser.parse_args()

    data = load_task(TASKS[TASK], "tiny")
    engines = _engines(args.batch_size)
    requests = {name: _requests(engine, data, args.rows) for name, engine in engines.items()}
    questions = len(requests["perpo"])
    said: dict[str, list[str]] = {}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    for name, engine in engines.items():  # warm-up: the first call also loads kernels
        _answers(engine, requests[name][: args.batch_size])
    for _ in range(args.repeats):
        for name, engine in engines.items():
            recent_image.cache_clear()  # lest one reads what the other has decoded
            said[name], seconds = _timed(engine, requests[name])
            spent[name].append(seconds)

    print(
        f"{questions:,} questions of {TASK}, embedded checkpoint, float32 on the CPU, "
        f"{torch.get_num_threads()} threads, median of {args.repeats}"
    )
    print(f"{'':<12} {'batch':>5} {'seconds':>8} {'CPU s':>8} {'samples/s':>10}")
    sizes = {"perpo": args.batch_size, "llava_hf": 1}
    medians = {name: [statistics.median(part) for part in zip(*times, strict=True)] for name, times in spent.items()}
    for name, (wall, cpu) in medians.items():
        print(f"{name:<12} {sizes[name]:>5} {wall:>8.2f} {cpu:>8.2f} {questions / wall:>10.1f}")
    wall, cpu = (theirs / ours for theirs, ours in zip(medians["llava_hf"], medians["perpo"], strict=True))
    print(f"{'ratio':<12} {'':>5} {wall:>6.1f} x {cpu:>6.1f} x")
    _compare(said["perpo"], said["llava_hf"])


def _engines(batch_size: int) -> dict[str, EvalEngine]:
    decord: Any = ModuleType("decord")
    decord.VideoReader, decord.cpu = None, None
    sys.modules["decord"] = decord
    folder = str(checkpoint_dir())
    given = f"device=cpu,device_map=cpu,dtype=float32,chat_template={TEMPLATE}"
    ours = EvalArguments(model=folder, batch_size=batch_size, device="cpu")
    theirs = EvalArguments(model=folder, engine="lmms:llava_hf", model_args=given, batch_size=1)
    wanted = {"perpo": ours, "llava_hf": theirs}
    return {name: load_engine(args.engine_wanted, args.reading) for name, args in wanted.items()}


def _requests(engine: EvalEngine, data: TaskData, rows: int) -> list[Instance]:
    """What `perpo-eval` would ask."""
    assert engine.family is not None
    template = BENCHMARKS[data.spec.benchmark].prompt(engine.family, "paper")
    settings = {"max_new_tokens": data.spec.max_new_tokens, "do_sample": False, "until": []}
    return make_requests(engine, [data], {TASK: template}, {TASK: settings}, rows)


def _timed(engine: EvalEngine, requests: Sequence[Instance]) -> tuple[list[str], tuple[float, float]]:
    """The answers, and seconds of wall and of CPU time."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    said = _answers(engine, requests)
    return said, (time.perf_counter() - wall, time.process_time() - cpu)


def _answers(engine: EvalEngine, requests: Sequence[Instance]) -> list[str]:
    # A copy, for llava_hf changes the settings of the requests that it is handed.
    asked = copy.deepcopy(list(requests))
    with contextlib.redirect_stdout(sys.stderr):
        said = engine.model.generate_until(asked)
    return [str(unwrap_generation_output(answer)[0]) for answer in said]


def _compare(ours: Sequence[str], theirs: Sequence[str]) -> None:
    different = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
    print(f"answers that agree: {len(ours) - len(different):,} of {len(ours):,}")
    for mine, other in different[:3]:
        print(f"  perpo {mine!r}, llava_hf {other!r}")


if __name__ == "__main__":
    main()
