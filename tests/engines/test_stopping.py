"""Answers that loop are stopped on demand; up to there, and in all other answers, every token stays what it was."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from perpo.engines import shared_image
from perpo.engines.base import Decoding, EngineInfo, Query
from perpo.engines.hf import HfEngine
from perpo.engines.stopping import CHECKED_EVERY, StopLoops
from perpo.errors import PerpoError
from perpo.models.loading import load_model
from perpo.texts import repetition
from perpo.texts.repetition import ends_in_loop
from perpo.tiny.model import TINY, new_model, new_processor

LONGEST = 110
GREEDY = {"temperature": 0.0}
DRAWN = {"temperature": 0.05, "num_candidates": 3}


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> HfEngine:
    """A model without knowledge, which says some things over and over when it is asked greedily."""
    folder = tmp_path_factory.mktemp("model")
    processor = new_processor(TINY, ["where is the small red circle? USER: ASSISTANT:"])
    new_model(TINY, processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return HfEngine(loaded=load_model(str(folder)), dtype="float32")


@pytest.fixture(autouse=True)
def short_loops(monkeypatch) -> None:
    """Loops are noticed in answers of 110 tokens."""
    monkeypatch.setattr(repetition, "LEAST_CHARACTERS", 60)
    monkeypatch.setattr(repetition, "_SEEN_BEFORE", 45)


def asked(engine: HfEngine, *, logps: bool, stop: bool, longest: int = LONGEST, **how):
    image = Image.new("RGB", (96, 96))
    words = ("where is it?", "a", "the red one", "on the left", "the small red circle?")
    queries = [Query(text, image, place) for place, text in enumerate(words)]
    decoding = Decoding(max_new_tokens=longest, logps=logps, stop_on_repetition=stop, **how)
    return [answer for answers in engine.answers(queries, decoding) for answer in answers]


@pytest.mark.parametrize(("logps", "how"), [(False, GREEDY), (True, GREEDY), (True, DRAWN), (False, DRAWN)], ids=str)
def test_tokens_are_the_same_up_to_the_stop(engine, logps, how) -> None:
    running, stopping = (asked(engine, logps=logps, stop=stop, **how) for stop in (False, True))
    assert {answer.finish_reason for answer in running} == {"length"}
    assert any(answer.stopped for answer in stopping)
    for free, held in zip(running, stopping, strict=True):
        assert free.whole is not None
        assert held.whole is not None
        if not held.stopped:
            assert held == free
            continue
        assert (held.finish_reason, held.truncated, held.looped) == ("repetition", True, True)
        assert held.tokens is not None
        assert held.tokens % CHECKED_EVERY == 0
        assert held.tokens < LONGEST
        assert free.whole.startswith(held.whole)
        assert ends_in_loop(held.whole)


def test_both_ways_of_greedy_answers_stop_at_the_same_token(engine, monkeypatch) -> None:
    shared = asked(engine, logps=False, stop=True, **GREEDY)
    ends = [(answer.whole, answer.tokens, answer.finish_reason) for answer in shared]
    branched = asked(engine, logps=True, stop=True, **GREEDY)
    assert [(answer.whole, answer.tokens, answer.finish_reason) for answer in branched] == ends
    monkeypatch.setattr(shared_image, "_heads_are_alike", lambda loaded: False)
    assert asked(engine, logps=False, stop=True, **GREEDY) == shared


def test_the_first_look_at_which_it_loops_is_the_stop(engine) -> None:
    stops = [answer.tokens if answer.stopped else None for answer in asked(engine, logps=False, stop=True, **GREEDY)]
    wanted: list[int | None] = [None] * len(stops)
    for size in range(CHECKED_EVERY, LONGEST, CHECKED_EVERY):
        cut = asked(engine, logps=False, stop=False, longest=size, **GREEDY)  # of which no answer is stopped
        wanted = [before or (size if answer.looped else None) for before, answer in zip(wanted, cut, strict=True)]
    assert stops == wanted


def test_rows_of_generate_that_have_ended_are_left_alone() -> None:
    stop = StopLoops(lambda ids: len(set(ids)) == 1, start=2, ends={9})
    prompt = torch.zeros(4, 2, dtype=torch.long)
    rows = torch.tensor([[5] * 32, [5] * 31 + [6], [9] + [5] * 31, [7] * 32])
    assert not stop(torch.cat([prompt, rows[:, :31]], 1), None).any()
    assert stop(torch.cat([prompt, rows], 1), None).tolist() == [True, False, False, True]
    assert stop.lengths == {0: 32, 3: 32}


def test_an_engine_that_cannot_is_refused() -> None:
    info = EngineInfo(name="server", model="m", by_batch=False)
    info.check_stopping(wanted=False)
    with pytest.raises(PerpoError, match="the engine server cannot stop an answer that loops") as caught:
        info.check_stopping(wanted=True)
    assert "leave --stop_on_repetition out" in caught.value.hint
