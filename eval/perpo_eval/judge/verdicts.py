"""The judged benchmarks: samples become a judge's questions, and its verdicts their scores. No torch.

The scores of a sample come of what stands in its `judge` column alone, so that they can be computed again without a
judge. That column holds JSON, a list of votes: {vote, swapped (the model's answer was shown first), text (what the
judge wrote at last), first_text (at first: what official scripts, which ask once, see), rating (as we read the text;
of LLaVA-Bench's pair in the order shown), official (as the official script reads first_text), flags, error, attempts,
model (as the server calls the judge)}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from perpo.answers import after_prompt, answer_of
from perpo.benchmarks.table import INFO
from perpo_eval.judge.asking import JudgeQuestion, Verdict, ask_judge
from perpo_eval.judge.base import Vote
from perpo_eval.judge.messages import official_settings, prompts_sha256
from perpo_eval.judge.settings import JudgeSettings, judge_key
from perpo_eval.judge.table import JUDGINGS

MOST_MISSING = 0.05
"""The share of a run's samples whose judgement may be missing; with more the run is partial."""

CACHE_FOLDER = ".judge"
"""In the results folder: what judges answered."""

_SWAPPED = ":swapped"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Judge:
    """Who judges, and how.

    Attributes:
        settings: The judge, and how it is asked.
        swap: Whether LLaVA-Bench's questions are asked in both orders of the answers.
        cache: The folder of what judges answered.
    """

    settings: JudgeSettings
    swap: bool
    cache: Path

    def judge(self, parts: Sequence[tuple[str, Sequence[Row]]]) -> tuple[list[list[dict[str, Any]]], dict[str, Any]]:
        """Judge samples.

        Args:
            parts: Benchmark and samples of each task.

        Returns:
            The samples with their scores, and what the record says of the judge.

        Raises:
            PerpoError: As `perpo_eval.judge.asking.ask_judge`.
        """
        # A question that got no answer has nothing to be judged.
        answered = [(benchmark, row) for benchmark, rows in parts for row in rows if row["response"] is not None]
        questions = [asked for benchmark, row in answered for asked in self._questions(benchmark, row)]
        verdicts = ask_judge(self.settings, questions, self.cache, key=judge_key())
        judged = [
            [
                dict(row) if row["response"] is None else {**row, **scored(benchmark, row, _votes(row, verdicts))}
                for row in rows
            ]
            for benchmark, rows in parts
        ]
        served = {verdict.judge_model for votes in verdicts.values() for verdict in votes}
        return judged, self._record(name for name in served if name is not None)

    def _questions(self, benchmark: str, row: Row) -> list[JudgeQuestion]:
        target, key, answer = json.loads(row["target"]), row["sample_key"], _answer(row)
        judging = JUDGINGS[benchmark]
        orders = {key: False} | ({key + _SWAPPED: True} if self.swap and judging.pairs else {})
        return [
            JudgeQuestion(name, judging.messages(row["question"], target, answer, swap), benchmark)
            for name, swap in orders.items()
        ]

    def _record(self, served: Iterable[str]) -> dict[str, Any]:
        identity, official = self.settings.identity(), official_settings()["official_model"]
        changes = {
            f"the judge is {self.settings.model}, not {official}": self.settings.model != official,
            f"scores are means of {self.settings.votes} votes": self.settings.votes > 1,
            "LLaVA-Bench's answers are shown in both orders": self.swap,
        }
        return {
            "id": identity["id"],
            "served_as": sorted(served),
            "prompt_sha256": {benchmark: prompts_sha256(benchmark) for benchmark in JUDGINGS},
            "settings": identity["settings"] | {"swap": self.swap},
            "deviations": [change for change, made in changes.items() if made],
        }


def scored(benchmark: str, row: Row, votes: Sequence[Vote] | None) -> dict[str, Any]:
    """Return what votes make of a sample: its `scores`, `judge` and `error`.

    Args:
        benchmark: A key of `perpo_eval.judge.table.JUDGINGS`.
        row: The sample.
        votes: What the judge wrote; None if it was not asked, so that all scores are null.
    """
    scores: dict[str, float | None] = dict.fromkeys(INFO[benchmark].score_names())
    if votes is None:
        return {"scores": scores, "judge": None, "error": None}
    read = [vote | _read(benchmark, vote) for vote in votes]
    ratings = JUDGINGS[benchmark].scores(read)
    scores["missing"] = float(not ratings)
    if ratings:
        means = {name: fmean(rating[name] for rating in ratings) for name in ratings[0]}
        category = json.loads(row["target"])["category"]
        by_category = {f"{name}:{category}": value for name, value in means.items()}
        scores |= means | {name: value for name, value in by_category.items() if name in scores}
    error = None if ratings else "judge: " + next((v["error"] for v in read if v["error"]), "no rating can be read")
    return {"scores": scores, "judge": json.dumps(read, ensure_ascii=False), "error": error}


def votes_in(row: Row) -> list[Vote] | None:
    """Return the votes of a stored sample, or None where no judge was asked."""
    return None if row["judge"] is None else json.loads(row["judge"])


def _read(benchmark: str, vote: Vote) -> dict[str, Any]:
    text, first = vote["text"], vote["first_text"]
    return {
        "rating": None if text is None else JUDGINGS[benchmark].parse(text),
        "official": None if first is None else JUDGINGS[benchmark].official(first),
    }


def _answer(row: Row) -> str:
    """What the judge is shown of a response: no thoughts, and nothing where a thought never ends."""
    return (answer_of(after_prompt(row.get("prompt"), row["response"]), "text") or "").strip()


def _votes(row: Row, verdicts: Mapping[str, Sequence[Verdict]]) -> list[Vote]:
    key = row["sample_key"]
    return [_vote(verdict) for name in (key, key + _SWAPPED) for verdict in verdicts.get(name, ())]


def _vote(verdict: Verdict) -> Vote:
    return {
        "vote": verdict.vote,
        "swapped": verdict.id.endswith(_SWAPPED),
        "text": verdict.text,
        "first_text": verdict.first_text,
        "flags": verdict.flags,
        "error": verdict.error,
        "attempts": verdict.attempts,
        "model": verdict.judge_model,
    }
