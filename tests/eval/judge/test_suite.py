"""--suite judged: from published files and a judge on loopback to records, tables, reports, and what is missing."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from perpo.benchmarks.metrics import JUDGED
from perpo.benchmarks.mmhal import MMHAL_TYPES
from perpo.common.arguments import parse_arguments
from perpo.errors import PerpoError
from perpo.records.run_record import Metric, metric_of
from perpo.records.store import Run, read_run
from perpo.results.leaderboard import board as leaderboard
from perpo.results.leaderboard import files as leaderboard_files
from perpo.results.model_index import update_card
from perpo.results.regression.junit import junit
from perpo.results.regression.page import page
from perpo.results.regression.report import compare_runs
from perpo.results.regression.report_json import as_json
from perpo.results.regression.text import markdown
from perpo.results.run_tables import run_texts
from perpo.results.samples import read_scores
from perpo.results.text import judge_note
from perpo.results.trend import history
from perpo.results.trend import text as trend_text
from perpo_eval.arguments import EvalArguments, JudgeArguments
from perpo_eval.cli.eval import main
from perpo_eval.evaluate import run as runner
from perpo_eval.evaluate.rescoring import judge_run
from perpo_eval.evaluate.run import evaluate, write_questions
from perpo_eval.judge.messages import llava_messages, mmhal_messages, prompts_sha256
from perpo_eval.rows.suites import TASKS_FOLDER
from tests.support import published_files
from tests.support.judge_server import Answer, Call, JudgeServer, good, judge_server

KEY = "sk-a-secret-of-the-tests-0123456789"
pytestmark = pytest.mark.usefixtures("quick_judge")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """12 questions of LLaVA-Bench about 4 pictures, and 16 of MMHal-Bench about 16."""
    return published_files.both(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def answers(folder: Path, tmp_path_factory) -> Path:
    """An answer to each question."""
    file = tmp_path_factory.mktemp("answers") / "q.jsonl"
    write_questions(EvalArguments(suite="judged", data=str(folder), questions=file))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    said = [{"sample_key": r["sample_key"], "response": f" It is thing {n}.\n"} for n, r in enumerate(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in said))
    return file


@pytest.fixture
def judged(folder: Path, answers: Path, tmp_path: Path) -> Any:
    """Judge the answers, of which no model is asked."""

    def run(server: JudgeServer | None, **settings: Any) -> Run:
        asked = {"judge": "none"} if server is None else {"judge_model": "gpt", "judge_base_url": server.url}
        given = {"suite": "judged", "data": str(folder), "responses": answers, "output": str(tmp_path / "out")}
        return read_run(evaluate(EvalArguments(**given | asked | settings)))

    return run


def metric(run: Run, task: str, name: str) -> Metric:
    found = metric_of(run.record.task(task).metrics, name)
    assert found is not None, name
    return found


def task_rows(run: Run, task: str) -> list[dict[str, Any]]:
    return [row for row in run.samples().to_pylist() if row["task"] == task]


def prompt(row: dict[str, Any]) -> str:
    """What a judge is to be asked about a sample, by the published templates."""
    target, said = json.loads(row["target"]), row["response"].strip()
    if row["task"] == "mmhal_bench":
        return mmhal_messages(row["question"], target["image_content"], target["reference"], said)[-1]["content"]
    about = (target["category"], target["caption"], target["reference"])
    return llava_messages(row["question"], *about, said)[-1]["content"]


def said(row: dict[str, Any]) -> str:
    """What the good judge answers about a sample."""
    return good(Call({"messages": [{"content": prompt(row)}]}, None, 0), 1).text


def test_the_numbers_are_those_of_the_judges_words(judged) -> None:
    with judge_server() as server:
        run = judged(server)
        first = len(server.calls)
        again = judged(server)
    assert (first, len(server.calls)) == (28, 28)
    record = run.record
    assert (record.status, record.source, [task.n_error for task in record.tasks]) == ("complete", "measured", [0, 0])
    assert again.record.tasks == record.tasks
    assert record.judge == {
        "id": "gpt",
        "served_as": ["gpt"],
        "prompt_sha256": {name: prompts_sha256(name) for name in JUDGED},
        "settings": record.judge["settings"],
        "deviations": ["the judge is gpt, not gpt-4-0314"],
    }
    settings = record.judge["settings"]
    assert (settings["votes"], settings["swap"], settings["llava_bench"]["temperature"]) == (1, False, 0.2)

    rows = task_rows(run, "llava_bench_wild")
    pairs = np.array([[float(word) for word in said(row).split("\n")[0].split()] for row in rows])
    kinds = np.array([json.loads(row["target"])["category"] for row in rows])
    assert len(rows) == 12
    for kind in ("", "conv", "detail", "complex"):
        held = (kinds == kind) | (kind == "")
        found = metric(run, "llava_bench_wild", f"relative_score{kind and ':' + kind}")
        assert found.value == pytest.approx(pairs[held, 1].sum() / pairs[held, 0].sum())
        assert (found.n, found.n_clusters, found.unit) == (held.sum(), 4, "fraction")
    assert metric(run, "llava_bench_wild", "model").value == pytest.approx(pairs[:, 1].mean())
    row = compare_runs(run, again).rows[0]
    unseen = (1 - 0.025 ** (1 / 4)) * 9 / pairs[:, 0].mean()  # of 4 pictures; a rating can change by 9
    assert (row.verdict, row.difference.interval) == ("identical", pytest.approx((-unseen, unseen)))

    rows = task_rows(run, "mmhal_bench")
    ratings = np.array([int(said(row)[-1]) for row in rows])
    score, rate = (metric(run, "mmhal_bench", name) for name in ("score", "hallucination_rate"))
    assert (score.value, score.unit) == (pytest.approx(ratings.mean()), "points of 6")
    assert (rate.value, rate.unit, rate.higher_is_better) == (pytest.approx((ratings < 3).mean()), "fraction", False)
    assert (score.ci_method, score.n_clusters) == ("cluster-wilson", 16)
    for number, kind in enumerate(MMHAL_TYPES):
        found = metric(run, "mmhal_bench", f"score:{kind}")  # of two pictures
        assert found.value == pytest.approx(ratings[number::8].mean())
        assert found.ci_low is None or 0 <= found.ci_low <= found.ci_high <= 6


def test_without_a_judge_the_answers_are_kept_and_judged_later(judged, folder, answers, tmp_path, capsys) -> None:
    output = str(tmp_path / "out")
    words = ["--suite", "judged", "--data", str(folder), "--responses", str(answers), "--output", output]
    assert main([*words, "--judge", "none", "--name", "mine"]) == 0
    shown = capsys.readouterr()
    assert "awaiting judge" in shown.out
    (path,) = Path(output).glob("mine/*")
    assert f"no scores yet; perpo-eval judge --judge_model NAME --run {path} --output {output} gives them" in shown.err
    waiting = read_run(path)
    assert (waiting.record.status, waiting.record.judge) == ("awaiting judge", None)
    values = {m.value for task in waiting.record.tasks for m in task.metrics}
    rows = waiting.samples().to_pylist()
    assert values | {score for row in rows for score in row["scores"].values()} == {None}
    assert {row["judge"] for row in rows} | {row["error"] for row in rows} == {None}
    assert main(["list", "--results", output]) == 0
    assert "awaiting judge" in capsys.readouterr().out
    with pytest.raises(PerpoError, match="is awaiting judge") as error:
        compare_runs(waiting, waiting)
    assert (error.value.exit_code, error.value.hint) == (3, "score it with perpo-eval judge RUN")

    with judge_server() as server:
        at_once = judged(server)
        calls = len(server.calls)
        flags = ["--judge_model", "gpt", "--judge_base_url", server.url, "--output", output]
        assert main(["judge", str(path), *flags]) == 0
        assert main(["judge", "--run", "mine", *flags, "--name", "other"]) == 0
    assert len(server.calls) == calls  # the same answers
    later = [read_run(each) for each in Path(output).glob("mine/*") if each != path]
    assert {run.record.rescored_from for run in later} >= {waiting.record.run_id}
    assert {run.record.name for run in later} >= {"mine", "other"}
    for run in later:
        assert (run.record.status, run.record.judge) == ("complete", at_once.record.judge)
        assert run.record.tasks == at_once.record.tasks
        assert run.samples(["scores", "judge"]) == at_once.samples(["scores", "judge"])
    assert "perpo-eval judge --" in later[0].record.command


def test_what_is_stored_can_be_scored_again(judged, tmp_path) -> None:
    with judge_server() as server:
        run = judged(server)
    again = read_run(evaluate(EvalArguments(rescore=run.path, output=str(tmp_path))))
    assert again.record.tasks == run.record.tasks
    assert (again.record.judge, again.record.status) == (run.record.judge, "complete")
    assert again.samples(["scores", "judge"]) == run.samples(["scores", "judge"])
    waiting = judged(None)
    again = read_run(evaluate(EvalArguments(rescore=waiting.path, output=str(tmp_path))))
    assert (again.record.status, again.record.tasks) == ("awaiting judge", waiting.record.tasks)


def unreadable(*things: int) -> Any:
    """A judge that gives no rating for the answers about these things, whatever it is asked."""

    def behave(call: Call, times: int) -> Answer:
        if any(f"It is thing {thing}." in call.prompt for thing in things):
            return Answer("I would rather not say.")
        return good(call, times)

    return behave


def test_what_cannot_be_read_is_missing_and_no_score(judged, capsys) -> None:
    """Of 28 samples one may be missing, two are more than a twentieth. Thing 0 is LLaVA-Bench's first question."""
    with judge_server(unreadable(0)) as server:
        run = judged(server)
    assert len(server.calls) == 29  # asked for once more
    rows = task_rows(run, "llava_bench_wild")
    lost, *others = rows
    assert {value for name, value in lost["scores"].items() if name != "missing"} == {None}
    assert (lost["scores"]["missing"], lost["error"]) == (1.0, "judge: no rating can be read")
    (vote,) = json.loads(lost["judge"])
    assert (vote["attempts"], vote["rating"], vote["official"]) == (2, None, [-1.0, -1.0])
    pairs = np.array([[float(word) for word in said(row).split("\n")[0].split()] for row in others])
    assert (run.record.status, run.record.task("llava_bench_wild").n_error) == ("complete", 1)
    texts = run_texts(run.record)
    assert [text.title.rpartition("; ")[2] for text in texts] == ["judge gpt)"] * 4  # in every table
    assert any("the judge is gpt, not gpt-4-0314" in note for note in texts[0].notes)
    found = metric(run, "llava_bench_wild", "relative_score")
    assert (found.value, found.n) == (pytest.approx(pairs[:, 1].sum() / pairs[:, 0].sum()), 11)
    assert metric(run, "llava_bench_wild", "missing").value == pytest.approx(1 / 12)
    official = (pairs[:, 1].sum() - 1) / (pairs[:, 0].sum() - 1)
    assert metric(run, "llava_bench_wild", "relative_score:official").value == pytest.approx(official)
    assert metric_of(run.record.task("mmhal_bench").metrics, "score:official") is None  # nothing differs there


def test_too_many_missing_make_the_run_partial(folder, answers, tmp_path, capsys) -> None:
    words = ["--suite", "judged", "--data", str(folder), "--responses", str(answers), "--output", str(tmp_path)]
    with judge_server(unreadable(3, 13)) as server:
        asked = ["--judge_model", "gpt", "--judge_base_url", server.url]
        assert main([*words, *asked]) == 3
    shown = capsys.readouterr()
    assert "error: partial: 2 of 28 judgements are missing" in shown.err
    (line,) = (line for line in shown.err.splitlines() if line.startswith("hint: samples.parquet"))
    program, command, *again = shlex.split(line.split("; ")[1].removesuffix(" asks again where a call failed"))
    args = parse_arguments(JudgeArguments, again, prog=program, description="")
    assert (Path(program).name, command) == ("perpo-eval", "judge")
    assert (args.judge_model, args.judge_base_url, args.output) == ("gpt", server.url, str(tmp_path))
    assert read_run(Path(args.run)).record.status == "partial"
    shown_lines = " ".join(shown.out.split())
    assert "as the official script counts what the judge wrote" in shown_lines
    assert "The run is partial: more than 5% of its judgements are missing." in shown_lines
    (path,) = tmp_path.glob("*/*/run.json")
    run = read_run(path)
    assert run.record.status == "partial"
    with pytest.raises(PerpoError, match="is partial") as error:
        compare_runs(run, run)
    assert error.value.exit_code == 3
    with pytest.raises(PerpoError, match="is not a complete measured run"):
        update_card(tmp_path / "README.md", run)


def test_a_judge_that_says_nothing_gives_no_hundred_percent(judged) -> None:
    """The official script counts (-1, -1) each time, and prints 100 for a judge that never gave a score."""
    with judge_server(lambda call, times: Answer("No.")) as server:
        run = judged(server)
    assert run.record.status == "partial"
    assert metric(run, "llava_bench_wild", "relative_score").value is None
    assert metric(run, "llava_bench_wild", "relative_score:official").value == 1.0
    assert metric(run, "mmhal_bench", "score").value is None
    assert metric(run, "mmhal_bench", "hallucination_rate:official").value == 1.0
    assert metric(run, "mmhal_bench", "missing").value == 1.0


def test_votes_tell_the_judges_own_error(judged) -> None:
    """Each question gets two votes d apart: the mean's variance is the sum of (d^2 / 2) / 2 over n^2."""

    def wavering(call: Call, times: int) -> Answer:
        text = good(call, 1).text
        if "Rating" in text:
            return Answer(f"Rating: {2 * times}")
        return Answer(f"8 {4 + times}")

    with judge_server(wavering) as server:
        run = judged(server, judge_votes=2)
        assert len(server.calls) == 56
    score, rate = (metric(run, "mmhal_bench", name) for name in ("score", "hallucination_rate"))
    assert (score.value, rate.value) == (3.0, 0.5)  # 2 and 4 each
    assert metric(run, "mmhal_bench", "score:judge_stderr").value == pytest.approx((16 * (2**2 / 2) / 2) ** 0.5 / 16)
    assert metric(run, "llava_bench_wild", "relative_score").value == pytest.approx(5.5 / 8)
    error = metric(run, "llava_bench_wild", "relative_score:judge_stderr")
    assert (error.value, error.unit) == (pytest.approx((12 * (1**2 / 2) / 2) ** 0.5 / (12 * 8)), "fraction")
    assert "scores are means of 2 votes" in run.record.judge["deviations"]


def test_both_orders_tell_the_judges_bias(judged) -> None:
    """The reference deserves 7, the model 5, and what stands first gets 1 more."""

    def biased(call: Call, times: int) -> Answer:
        if "Rating" in good(call, 1).text:
            return good(call, times)
        model_first = call.prompt.index("It is thing") < call.prompt.index("The number")
        return Answer("6 7" if model_first else "8 5")

    with judge_server(biased) as server:
        run = judged(server, judge_swap=True)
        once = judged(server)
    assert len(server.calls) == 12 * 2 + 16
    assert metric(run, "llava_bench_wild", "model").value == 5.5
    assert metric(run, "llava_bench_wild", "relative_score").value == pytest.approx(5.5 / 7.5)
    assert metric(run, "llava_bench_wild", "rating:first_advantage").value == 1.0
    assert metric_of(run.record.task("llava_bench_wild").metrics, "relative_score:official") is None
    assert metric(once, "llava_bench_wild", "relative_score").value == pytest.approx(5 / 8)
    with pytest.raises(PerpoError, match="judge gpt: swap True against False"):
        compare_runs(once, run)


def shifted(less: int, *lost: int) -> Any:
    """A judge that gives the model's answers so many points less than another (of 6 twice that), and loses things."""

    def behave(call: Call, times: int) -> Answer:
        if (known := unreadable(*lost)(call, times)).text.startswith("I would"):
            return known
        seed = sum(call.prompt.encode())
        if "LMM Response to Evaluate" in call.prompt:
            return Answer(f"Rating: {5 + seed % 2 - 2 * less}")
        return Answer(f"9 {6 + seed % 3 - less}")

    return behave


def test_runs_of_one_judge_are_compared_on_what_both_have(judged, tmp_path) -> None:
    """Other judgements of the same words; one sample is missing in each run."""
    with judge_server(shifted(0, 14)) as server:
        base = judged(server, name="base")
    with judge_server(shifted(2, 20)) as server:  # another address: nothing is taken from the cache
        worse = judged(server, name="worse")
    report = compare_runs(base, worse)
    assert report.verdict == "regressed"
    wild, mmhal = report.rows
    assert (mmhal.metric.name, mmhal.verdict, mmhal.difference.n) == ("score", "regressed", 14)
    assert (mmhal.gain, mmhal.threshold) == (pytest.approx(-4.0), pytest.approx(0.005 * 6))
    assert wild.gain == pytest.approx(-2 / 9)
    both = [row["scores"]["score"] for row in task_rows(base, "mmhal_bench")]
    held = [score for number, score in enumerate(both) if number not in (14 - 12, 20 - 12)]
    assert mmhal.baseline == pytest.approx(fmean(held))
    assert "mmhal_bench: 2 samples are left out, whose judgement is missing in one of the runs." in report.notes
    assert {flip.task for flip in report.flips} == {"llava_bench_wild", "mmhal_bench"}
    assert report.flips[0].loss == pytest.approx(4 / 6)  # it comes before 2 of 10
    text = markdown(report)
    assert "-4.00" in text
    assert "score (points of 6)" in text
    assert "Thing" in page(report)
    assert "0.03" in junit(report)
    followed = trend_text(history([base, worse], "mmhal_bench"), "t")
    assert followed.header[2] == "value (points of 6)"
    assert [row[1] for row in followed.rows] == ["base, judge gpt", "worse, judge gpt"]
    assert as_json(report)["judge"]["id"] == "gpt"
    assert update_card(tmp_path / "README.md", base) == 7  # four metrics of LLaVA-Bench, three of MMHal-Bench
    assert "score, judged by gpt" in (tmp_path / "README.md").read_text()


def test_scores_of_different_judges_are_never_put_together(judged) -> None:
    with judge_server() as server:
        one, other = judged(server), judged(server, judge_model="claude", name="other")
        votes = judged(server, judge_votes=2, name="votes")
    with pytest.raises(PerpoError, match="judge claude against gpt"):
        compare_runs(one, other)
    with pytest.raises(PerpoError, match="judge gpt: votes 2 against 1"):
        compare_runs(one, votes, common=True)
    (board,) = leaderboard.boards([one, other, votes, judged(None, name="none")])
    titles = [column.title for column in board.columns if column.metric == "relative_score"]
    assert len(titles) == len(set(titles)) == 3
    assert sum(title == "LLaVA^W, judge claude" for title in titles) == 1
    assert sum(title.startswith("LLaVA^W, judge gpt ") for title in titles) == 2  # with a digest of what differs
    for column in board.columns:
        assert sum(column in row.metrics for row in board.rows) == 1
    notes = leaderboard_files.text(board).notes
    assert any("Judge: claude. Not as published: the judge is claude, not gpt-4-0314." in note for note in notes)
    moved = dataclasses.replace(one.record, judge=one.record.judge | {"served_as": ["gpt", "gpt-0613"]})
    assert judge_note([moved])[0].startswith("Judge: gpt (served as gpt-0613). Not as published")
    for title in titles:  # what differs is said of each by the name that stands in its column
        assert sum(note.startswith(f"Judge: {title.removeprefix('LLaVA^W, judge ')}. ") for note in notes) == 1
    assert any(note.endswith("is awaiting judge.") for note in notes)


def test_the_key_is_in_no_file_and_no_line(judged, folder, answers, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("PERPO_JUDGE_API_KEY", KEY)
    words = ["--suite", "judged", "--data", str(folder), "--responses", str(answers), "--output", str(tmp_path)]
    with judge_server() as server:
        assert main([*words, "--judge_model", "gpt", "--judge_base_url", server.url, "--json"]) == 0
        assert {call.authorization for call in server.calls} == {f"Bearer {KEY}"}
    with judge_server(lambda call, times: Answer(status=401, text=KEY)) as server:
        assert main([*words, "--judge_model", "gpt", "--judge_base_url", server.url]) == 2
    shown = capfd.readouterr()
    assert "set PERPO_JUDGE_API_KEY" in shown.err
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(".judge" in file.parts for file in files)
    assert all(KEY.encode() not in file.read_bytes() for file in files)
    assert KEY not in shown.out + shown.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "judged"], "or --judge none to keep the answers"),
        (["judge", "somewhere"], "give --judge_model (and --judge_base_url)\n"),
        (
            ["--suite", "judged", "--judge", "none", "--judge_votes", "2"],
            "--judge_votes has no effect with --judge none",
        ),
        (["--suite", "pope", "--judge_model", "gpt"], "--judge_model is for --suite judged"),
        (["--suite", "pope", "--judge", "none"], "--judge is for --suite judged"),
        (["--suite", "judged", "--judge_model", "gpt", "--judge_base_url", "ftp://x"], "as the address of the judge"),
        (["--suite", "judged", "--judge_model", "g", "--judge_base_url", "http://u:p@x/v1"], "must not hold a user"),
        (
            ["--suite", "judged", "--judge_model", "gpt", "--judge_votes", "0"],
            "--judge_votes must be at least 1",
        ),
        (
            ["--suite", "judged", "--judge_model", "gpt", "--judge_swap", "--tasks", "tinymmhal_test"],
            "--judge_swap has no effect without LLaVA-Bench",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(words, said, monkeypatch, capsys) -> None:
    monkeypatch.setattr(runner, "load_engine", lambda *given: pytest.fail("a model was loaded"))
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_only_runs_with_judged_tasks_are_judged(refcoco_folder, tmp_path) -> None:
    questions = tmp_path / "q.jsonl"
    write_questions(EvalArguments(data=str(refcoco_folder), questions=questions))
    lines = [json.loads(line) | {"response": "[0, 0, 1, 1]"} for line in questions.read_text().splitlines()]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = EvalArguments(data=str(refcoco_folder), responses=questions, family="llava", output=str(tmp_path))
    path = evaluate(given)
    with pytest.raises(PerpoError, match="holds no task that needs a judge"):
        judge_run(JudgeArguments(run=str(path), judge_model="gpt", output=str(tmp_path)))


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "perpo_eval.cli", *words]


@pytest.mark.parametrize("asked", ["nobody", pytest.param("a model", marks=pytest.mark.slow)])
def test_killed_in_the_middle_it_goes_on_where_it_was(asked, folder, answers, checkpoint, tmp_path) -> None:
    """kill -9 after 10 of 28 judgements: the second time the model is not asked again, and no answer is paid twice."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    by_model = ["--model", str(checkpoint), "--max_new_tokens", "8", "--device", "cpu"]
    source = by_model if asked == "a model" else ["--responses", str(answers)]
    with judge_server(delay_s=0.3) as server:
        words = ["--suite", "judged", "--data", str(folder), *source, "--output", str(tmp_path)]
        words += ["--judge_model", "gpt", "--judge_base_url", server.url, "--judge_concurrency", "2"]
        line = command(*words)
        program = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(server.answered) < 10 and program.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        program.send_signal(signal.SIGKILL)
        assert program.wait() == -signal.SIGKILL
        assert not list(tmp_path.glob("*/*/run.json"))
        before = Counter(server.answered)
        server.delay_s = 0.0
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert asked == "nobody" or "continuing: 28 of 28 questions were answered before" in done.stderr
    # Of those that were answered when it was killed, only what was on its way (two at once) is asked again.
    twice = [asked for asked, times in Counter(server.answered).items() if times > 1]
    assert len(twice) <= 2
    assert before.total() - len(twice) >= 8
    (path,) = tmp_path.glob("*/*/run.json")
    assert read_run(path).record.status == "complete"
    assert not (tmp_path / ".responses").exists()


@pytest.mark.slow
def test_lmms_evals_own_command_line_gives_the_same_numbers(tmp_path) -> None:
    """The embedded model's answers to the tiny world, judged there and here."""
    names = ["tinywild_test", "tinymmhal_test"]
    with judge_server() as server:
        asked = {"judge_model": "gpt", "judge_base_url": server.url, "output": str(tmp_path / "ours")}
        ours = read_run(
            evaluate(EvalArguments(suite="judged", model="tiny", data="tiny", device="cpu", **asked))
        ).record
        calls = len(server.calls)
        line = [sys.executable, "-m", "lmms_eval", "--include_path", str(TASKS_FOLDER), "--model", "perpo"]
        line += ["--model_args", "pretrained=tiny,device=cpu", "--tasks", ",".join(names), "--batch_size", "8"]
        environment = {"PERPO_JUDGE_MODEL": "gpt", "PERPO_JUDGE_BASE_URL": server.url, "HF_HUB_OFFLINE": "1"}
        environment |= os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            [*line, "--output_path", str(tmp_path / "theirs")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert len(server.calls) == 2 * calls  # another cache; once for all metrics of a task
    (file,) = tmp_path.glob("theirs/**/*_results.json")
    results = json.loads(file.read_text())["results"]
    for name in names:
        shared = [m for m in ours.task(name).metrics if f"{m.name},none" in results[name]]
        assert len(shared) >= 3
        for each in shared:
            assert results[name][f"{each.name},none"] == pytest.approx(each.value), each.name


def test_the_tiny_world_is_judged_offline(checkpoint, tmp_path) -> None:
    with judge_server() as server:
        given = {"suite": "judged", "model": str(checkpoint), "data": "tiny", "device": "cpu", "max_new_tokens": 4}
        asked = {"judge_model": "gpt", "judge_base_url": server.url, "output": str(tmp_path)}
        run = read_run(evaluate(EvalArguments(**given | asked)))
    assert [(task.task, task.n_scored) for task in run.record.tasks] == [("tinywild_test", 18), ("tinymmhal_test", 16)]
    assert [group.name for group in run.record.groups] == ["llava_bench", "mmhal"]
    assert len(read_scores(run).keys) == 34
