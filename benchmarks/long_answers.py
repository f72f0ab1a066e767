"""Time and peak memory of one step on a list of long answers, at several N under one budget of tokens.

    ours      PreferenceTrainer's step with --max_tokens_per_pass
    whole     the same step in one pass, without a budget
    pairs     the usual way of preference pairs: chosen and rejected, each behind its own image and prompt, a second
              model as the reference; timed on one pair and multiplied to all N (N - 1) / 2

Each way and N runs in a process of its own, one after the other, so that no memory of one is hidden in that of
another. The peak is what the first step needs above the loaded models; the shortest time of --repeats steps counts.
All ways have the model, the tokens and the threads of train_step.py: true token counts of LLaVA-1.5, a small width,
random weights, fp32.

glibc keeps blocks that were freed, the more of them the more passes there are, so that a resident peak would say
more of it than of the step. Each process is therefore told to give blocks of 64 KiB and more back at once; with
--default_malloc it is not.

Run: python benchmarks/long_answers.py [--answer 1500] [--candidates 5 20] [--budget 4096]
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import train_step  # before torch, which it prepares
from train_step import ListSize

WAYS = ("ours", "whole", "pairs")


def main() -> None:
    """Print a line for each way and number of candidates, and the ratios to ours."""
    args = _arguments()
    if args.way is not None:
        print(json.dumps(_measured(args.way, args.candidates[0], args)))
        return
    shape = _shape(args.candidates[0], args)
    print(f"width {train_step.SIZES['small'].width}, fp32, {shape.prefix} + N x {args.answer} tokens", end=", ")
    print(f"at most {args.budget} tokens a pass; seconds and MiB of a step on one list")
    costs = {(way, count): _in_process(way, count, args) for count in args.candidates for way in args.ways}
    for (way, count), (seconds, cpu, peak) in costs.items():
        ours = costs.get(("ours", count), (seconds, cpu, peak))
        times = f"{seconds:9.1f} s {seconds / ours[0]:6.1f} x {cpu:9.1f} s of CPU {cpu / ours[1]:6.1f} x"
        print(f"N = {count:<4}{way:<8}{times} {peak:8.0f} MiB {peak / ours[2]:5.2f} x", flush=True)
    peaks = [costs["ours", count][2] for count in args.candidates if "ours" in args.ways]
    if len(peaks) > 1:
        print(f"ours: the largest peak is {max(peaks) / min(peaks):.3f} times the smallest")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--answer", type=int, default=1500, help="tokens of an answer")
    parser.add_argument("--budget", type=int, default=4096, help="--max_tokens_per_pass")
    parser.add_argument("--repeats", type=int, default=2, help="steps that each way is timed on; the best counts")
    parser.add_argument("--default_malloc", action="store_true", help="leave glibc its own way to keep freed blocks")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--way", choices=WAYS, help="measure one way at one N in this process, and print JSON")
    return parser.parse_args()


def _shape(count: int, args: argparse.Namespace) -> ListSize:
    return ListSize(tiles=1, prompt=60, candidates=count, answer=args.answer, pairs=1)


def _in_process(way: str, count: int, args: argparse.Namespace) -> tuple[float, float, float]:
    numbers = ["--candidates", str(count), "--answer", str(args.answer), "--budget", str(args.budget)]
    command = [sys.executable, str(Path(__file__)), "--way", way, "--repeats", str(args.repeats), *numbers]
    malloc = {} if args.default_malloc else {"MALLOC_MMAP_THRESHOLD_": str(64 * 1024)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | malloc)
    seconds, cpu, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, cpu, peak


def _measured(way: str, count: int, args: argparse.Namespace) -> tuple[float, float, float]:
    """Seconds, seconds of CPU and MiB of a step on one list."""
    shape = _shape(count, args)
    step = _step(way, shape, args.budget)
    costs = [train_step._run(step) for _ in range(args.repeats)]
    times = count * (count - 1) // 2 if way == "pairs" else 1
    seconds, cpu = min(each.seconds for each in costs), min(each.cpu_seconds for each in costs)
    return seconds * times, cpu * times, costs[0].peak_mib


def _step(way: str, shape: ListSize, budget: int) -> Callable[[], float]:
    loaded = train_step._load(train_step.SIZES["small"])
    tokens = train_step._tokens(loaded, shape)
    if way == "pairs":
        pair = tokens._replace(answers=[tokens.answers[-1], tokens.answers[0]], rewards=tokens.rewards[:, [-1, 0]])
        reference = copy.deepcopy(loaded.model)
        return partial(train_step._repeated_step, train_step._trainer(loaded), reference, pair)
    trainer = train_step._trainer(loaded, max_tokens_per_pass=budget if way == "ours" else None)
    return partial(train_step._step, trainer, train_step._batch(tokens, "cpu"))


if __name__ == "__main__":
    main()
