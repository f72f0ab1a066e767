"""Measure how well the open calls to a judge are used: 60 + 96 questions beside the time that they must take.

A judge on loopback, a process of its own, answers each call after a fixed time. Ideal is the number of rounds of
`--concurrency` calls times that time. Every answer is on the disk when it counts. The same questions are then
asked again, which makes no call. Run: python benchmarks/judge_throughput.py
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from perpo.engines.chat import ChatServer
from perpo_eval.judge.asking import JudgeQuestion, ask_judge
from perpo_eval.judge.messages import llava_messages, mmhal_messages
from perpo_eval.judge.settings import JudgeSettings

SERVER = Path(__file__).parents[1] / "tests/support/judge_server.py"
WORDS = "The picture shows a small harbour with three boats, a red one among them, under a cloudy sky. "


def main() -> None:
    """Print the ideal time, the time taken, their ratio, and the time of the second run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=60, help="questions of LLaVA-Bench")
    parser.add_argument("--ratings", type=int, default=96, help="questions of MMHal-Bench")
    parser.add_argument("--delay_s", type=float, default=0.5, help="seconds that the judge takes for an answer")
    parser.add_argument("--concurrency", type=int, default=16, help="calls that are open at once")
    args = parser.parse_args()
    questions = _questions(args.pairs, args.ratings)
    ideal_s = math.ceil(len(questions) / args.concurrency) * args.delay_s

    command = [sys.executable, str(SERVER), "--delay_s", str(args.delay_s)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        assert server.stdout is not None
        settings = JudgeSettings("judge", ChatServer(server.stdout.readline().strip(), concurrency=args.concurrency))
        try:
            taken_s = _seconds(settings, questions, Path(folder))
        finally:
            server.terminate()
        server.wait()
        again_s = _seconds(settings, questions, Path(folder))  # nobody is there to answer
    print(f"{len(questions)} questions, {args.delay_s:g} s a call, {args.concurrency} at once")
    print(f"{'ideal':<12}{ideal_s:8.2f} s")
    print(f"{'taken':<12}{taken_s:8.2f} s  {taken_s / ideal_s:.3f} of the ideal")
    print(f"{'run again':<12}{again_s:8.2f} s  without a call")


def _questions(pairs: int, ratings: int) -> list[JudgeQuestion]:
    llava = [
        JudgeQuestion(f"pair {n}", llava_messages(f"What is {n}?", "conv", WORDS, WORDS * 4, WORDS * 5), "llava_bench")
        for n in range(pairs)
    ]
    mmhal = [
        JudgeQuestion(f"rating {n}", mmhal_messages(f"What is {n}?", ["Boat", "Sky"], WORDS, WORDS * 2), "mmhal")
        for n in range(ratings)
    ]
    return llava + mmhal


def _seconds(settings: JudgeSettings, questions: list[JudgeQuestion], cache: Path) -> float:
    start = time.perf_counter()
    answers = ask_judge(settings, questions, cache, key=None)
    seconds = time.perf_counter() - start
    if any(verdict.rating is None for verdicts in answers.values() for verdict in verdicts):
        raise SystemExit("error: the judge left a question without a rating")
    return seconds


if __name__ == "__main__":
    main()
