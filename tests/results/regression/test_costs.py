"""perpo.results.regression.costs: means, paired intervals and money, derived from the samples by hand."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
from statsmodels.stats.weightstats import DescrStatsW

from perpo.cli.report import main
from perpo.errors import PerpoError
from perpo.records.store import write_run
from perpo.results.regression.costs import Price, cost_table, costs_of, read_price

SIZE = 200


def timed(make_run, folder, name: str, right: int, tokens: list, millis: list):
    """A run of one image a sample, with what its answers took."""
    run = make_run(name, {"a": [(f"image{place}", float(place < right)) for place in range(SIZE)]})
    table = run.samples()
    places = [int(question.split()[-1][:-1]) for question in table["question"].to_pylist()]
    table = table.append_column("tokens_out", pa.array([tokens[place] for place in places], pa.int64()))
    table = table.append_column("latency_ms", pa.array([millis[place] for place in places], pa.float64()))
    return write_run(folder / "timed", dataclasses.replace(run.record, samples=None), table)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(4)
    return [rng.integers(5, 40, SIZE).tolist() for _ in range(2)], [rng.uniform(50, 900, SIZE).tolist() for _ in "ab"]


def test_costs_are_those_of_the_samples(make_run, tmp_path, drawn) -> None:
    tokens, millis = drawn
    base = timed(make_run, tmp_path, "base", 150, tokens[0], millis[0])
    new = timed(make_run, tmp_path, "new", 120, tokens[1], millis[1])
    (cost,) = costs_of([base], [new], Price("USD", 2.5))
    assert (cost.task, cost.samples) == ("a", SIZE)
    assert cost.tokens == pytest.approx((np.mean(tokens[0]), np.mean(tokens[1])))
    by_hand = DescrStatsW(np.subtract(tokens[1], tokens[0]))
    assert cost.difference == pytest.approx(by_hand.mean)
    assert cost.interval == pytest.approx(by_hand.tconfint_mean())
    assert cost.seconds == pytest.approx((np.mean(millis[0]) / 1000, np.mean(millis[1]) / 1000))
    money = [sum(each) / 1000 / 3600 * 2.5 / right for each, right in zip(millis, (150, 120), strict=True)]
    assert cost.per_right == pytest.approx(money)
    (free,) = costs_of([base], [new])
    assert dataclasses.replace(cost, per_right=(None, None)) == free


def test_what_is_not_known_stays_unknown(make_run, tmp_path, drawn) -> None:
    tokens, millis = drawn
    base = timed(make_run, tmp_path, "base", 150, [None, *tokens[0][1:]], [None, *millis[0][1:]])
    new = timed(make_run, tmp_path, "new", 0, [*tokens[1][:-1], None], millis[1])
    (cost,) = costs_of([base], [new], Price("USD", 2.5))
    assert cost.samples == SIZE - 2
    assert cost.tokens == pytest.approx((np.mean(tokens[0][1:-1]), np.mean(tokens[1][1:-1])))
    assert cost.seconds == pytest.approx((np.mean(millis[0][1:]) / 1000, np.mean(millis[1][1:]) / 1000))
    assert cost.per_right == (None, None)  # one time is missing; nothing is right
    none = timed(make_run, tmp_path, "none", 9, [None] * SIZE, [None] * SIZE)
    (cost,) = costs_of([base], [none], Price("USD", 2.5))
    assert (cost.tokens, cost.difference, cost.interval, cost.seconds) == ((None, None), None, None, (None, None))
    row = cost_table([cost], Price("USD", 2.5), same_machine=True).rows[0]
    assert row == ["a", "", "", "", ""]
    plain = make_run("plain", {"a": [("x", 1.0), ("y", 0.0)]})  # of other programs: without these columns
    assert costs_of([plain], [plain]) == []


def test_runs_of_one_configuration_count_with_their_mean(make_run, tmp_path, drawn) -> None:
    tokens, millis = drawn
    runs = [timed(make_run, tmp_path, name, 100, tokens[k], millis[k]) for k, name in enumerate("xy")]
    (cost,) = costs_of([runs[0]], runs)
    assert cost.tokens[1] == pytest.approx(np.mean(tokens))
    assert cost.seconds[1] == pytest.approx(np.mean(millis) / 1000)


def test_the_report_tells_costs_and_gates_on_none(make_run, tmp_path, drawn, capsys) -> None:
    tokens, millis = drawn
    base = timed(make_run, tmp_path, "base", 150, tokens[0], millis[0])
    new = timed(make_run, tmp_path, "new", 150, [10 * count for count in tokens[0]], [90 * each for each in millis[0]])
    words = ["--baseline", str(base.path), "--candidate", str(new.path), "--price_per_hour", "USD 2.50"]
    flags = [f"--{kind}={tmp_path / kind}" for kind in ("markdown", "html", "json")]
    assert main([*words, *flags]) == 0
    mean = np.mean(tokens[0])
    for text in ((tmp_path / "markdown").read_text(), (tmp_path / "html").read_text(), capsys.readouterr().out):
        assert f"{mean:.1f} → {10 * mean:.1f}" in text
        assert "USD 2.5 an hour of the machine" in text
    told = json.loads((tmp_path / "json").read_text())
    assert told["price"] == {"currency": "USD", "per_hour": 2.5}
    assert told["costs"][0]["tokens"] == pytest.approx([mean, 10 * mean])


@pytest.mark.parametrize("text", ["", "2.50", "USD", "USD -1", "USD 0", "USD 1e3", "USD nan", "USD 1 2"])
def test_a_price_is_a_currency_and_an_amount(text, capsys) -> None:
    with pytest.raises(PerpoError, match="is not a currency and an amount"):
        read_price(text)
    assert read_price(" EUR 0.60 ") == Price("EUR", 0.6)


def test_no_table_of_costs_that_nobody_knows(make_run, tmp_path, drawn, capsys) -> None:
    nothing, some = [None] * SIZE, drawn[0][0]
    runs = [timed(make_run, tmp_path, name, 150, nothing, nothing) for name in ("base", "new")]
    words = [
        word for run, flag in zip(runs, ("--baseline", "--candidate"), strict=True) for word in (flag, str(run.path))
    ]
    main(words)
    assert "Cost, " not in capsys.readouterr().out
    main([*words, "--price_per_hour", "USD 2.50"])
    said = capsys.readouterr().out
    assert "Cost, " not in said
    assert "What answers cost is not told" in said
    both = [timed(make_run, tmp_path, name, 150, some, nothing) for name in ("third", "fourth")]
    main(["--baseline", str(both[0].path), "--candidate", str(both[1].path)])
    assert "Cost" in capsys.readouterr().out
