"""Batches that do not fit are halved for good, in order, down to one."""

from __future__ import annotations

import pytest
import torch

from perpo.engines.batches import BatchLimit
from perpo.errors import PerpoError


def working(most: int, tried: list[int], error: Exception):
    """Doubles numbers; so many at once fit."""

    def work(part):
        tried.append(len(part))
        if len(part) > most:
            raise error
        return [2 * each for each in part]

    return work


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("x"), RuntimeError("can't allocate memory"), MemoryError()])
def test_a_batch_is_halved_and_the_next_ones_are_made_no_larger(error, capsys):
    tried: list[int] = []
    limit, work = BatchLimit(16), working(3, tried, error)
    parts = list(limit.run(range(10), work))
    assert [list(part) for part, _ in parts] == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]
    assert [each for _, found in parts for each in found] == [2 * each for each in range(10)]
    assert limit.size == 3
    tried.clear()
    list(limit.run(range(7), work))
    assert tried == [3, 3, 1]
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "note: memory ran out; from now on at most 3 questions are answered at once"
    )


def test_one_that_does_not_fit_and_other_errors_end_it():
    with pytest.raises(PerpoError, match="not enough memory even for one question") as caught:
        list(BatchLimit(4).run(range(4), working(0, [], MemoryError())))
    assert caught.value.exit_code == 3
    tried: list[int] = []
    with pytest.raises(RuntimeError, match="shapes"):
        list(BatchLimit(4).run(range(4), working(0, tried, RuntimeError("shapes do not match"))))
    assert tried == [4]
