"""Answers from elsewhere, scoring again without a model, too little memory, and drawn answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from perpo.boxes import BoxFormat, format_box
from perpo.common.arguments import default_of
from perpo.engines import hf
from perpo.engines.base import Answer
from perpo.errors import PerpoError
from perpo.models.families import FAMILIES
from perpo.records.run_record import sample_key
from perpo.records.store import Run, read_run
from perpo.results.run_tables import run_texts
from perpo_eval.arguments import EvalArguments
from perpo_eval.benchmarks import pope
from perpo_eval.cli.eval import main
from perpo_eval.evaluate import run as runner
from perpo_eval.evaluate.run import evaluate
from perpo_eval.rows.loading import load_task
from perpo_eval.rows.suites import spec_of

QUESTIONS = 35


@pytest.fixture(scope="module")
def folder(refcoco_folder, tmp_path_factory) -> Path:
    """Two tasks of boxes, one of yes/no questions, one of pages."""
    folder = tmp_path_factory.mktemp("data")
    for file in refcoco_folder.iterdir():
        shutil.copy(file, folder)
    rows = pq.read_table(folder / "refcoco_val.parquet").to_pylist()
    asked, pages = [], []
    for k, row in enumerate(rows):
        name, image = row["file_name"], row["image"]
        for thing, answer in (("dog", "yes"), ("cat", "no")):
            question = {"question_id": f"{k}{thing}", "question": f"Is there a {thing}?", "answer": answer}
            asked.append(question | {"image_source": name, "image": image})
        text = f"Page {k} of a book with a few words"
        pages.append({"question_id": name, "image": image, "question": "", "answer": text, "file_name": name})
    pq.write_table(pa.Table.from_pylist(asked), folder / "yesno_own.parquet")
    pq.write_table(pa.Table.from_pylist(pages), folder / "pages_own.parquet")
    return folder


@pytest.fixture
def run(folder, checkpoint, tmp_path) -> Callable[..., Run]:
    """Evaluate the checkpoint on the folder."""

    def begin(**settings: object) -> Run:
        arguments = {"suite": "paper", "model": str(checkpoint), "data": str(folder), "output": str(tmp_path / "out")}
        arguments |= {"device": "cpu", "max_new_tokens": 8}
        path = evaluate(EvalArguments(**arguments | settings))  # type: ignore[arg-type]
        assert path is not None
        return read_run(path)

    return begin


def responses_of(run: Run) -> list[str]:
    return run.samples(["response"])["response"].to_pylist()


# ---- answers that were made elsewhere ----


@pytest.fixture
def score(folder, tmp_path) -> Callable[..., Run]:
    """Score rows of (sample_key, response)."""

    def begin(rows: list, **settings: object) -> Run:
        file = tmp_path / "answers.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        arguments = {"suite": "paper", "data": str(folder), "output": str(tmp_path / "elsewhere"), "family": "llava"}
        path = evaluate(EvalArguments(**arguments | {"responses": file} | settings))  # type: ignore[arg-type]
        assert path is not None
        return read_run(path)

    return begin


@pytest.fixture
def questions(folder, checkpoint, tmp_path, capsys) -> list[dict]:
    """What --questions writes."""
    file = tmp_path / "questions.jsonl"
    words = ["--suite", "paper", "--model", str(checkpoint), "--data", str(folder), "--questions", str(file)]
    assert main(words) == 0
    note, said = capsys.readouterr().err.splitlines()
    assert note.startswith("note: ")
    assert said == f"{file}: {QUESTIONS} questions"
    return [json.loads(line) for line in file.read_text().splitlines()]


def perfect(folder: Path) -> dict[tuple[str, str], str]:
    """The right answer to each question, by its task and its source."""
    answers = {}
    for task in ("refcoco_val", "refcocog_val"):
        for row in pq.read_table(folder / f"{task}.parquet").to_pylist():
            x, y, width, height = row["bbox"]
            # The pictures lie: 160 + 10k wide and 120 high, so half of the difference is padding above.
            side = 160 + 10 * (int(row["question_id"]) - 100)
            top = (side - 120) // 2
            box = [x / side, (y + top) / side, (x + width) / side, (y + height + top) / side]
            for place in range(len(row["answer"])):
                answers[task, f"{row['question_id']}/{place}"] = str(box)
    for task in ("yesno_own", "pages_own"):
        for row in pq.read_table(folder / f"{task}.parquet").to_pylist():
            answers[task, row["question_id"]] = row["answer"]
    return answers


def test_every_question_is_written_as_it_would_be_asked(questions, run) -> None:
    rows = run().samples().to_pylist()
    assert [q["sample_key"] for q in questions] == [row["sample_key"] for row in rows]
    assert [q["question"] for q in questions] == [row["question"] for row in rows]
    assert [q["task"] for q in questions] == [row["task"] for row in rows]
    assert all(Path(q["image"]).is_file() for q in questions)


def test_perfect_answers_are_perfect(questions, score, folder) -> None:
    right = perfect(folder)
    rows = [{"sample_key": q["sample_key"], "response": right[q["task"], q["source_id"]]} for q in questions]
    record = score(rows[::-1], name="the truth").record  # in any order
    assert (record.model.id, record.model.engine, record.model.weights_sha256) == ("the truth", "elsewhere", None)
    for group, best in {
        "grounding": {"acc@0.5": 1.0, "acc@0.9": 1.0, "iou": 1.0, "center_acc": 1.0, "parse_fail": 0.0},
        "yesno_own": {"accuracy": 1.0, "f1": 1.0, "yes_ratio": 0.5, "f1:strict": 1.0, "parse_fail": 0.0},
        "pages_own": {"edit_distance": 0.0, "f1": 1.0, "precision": 1.0, "recall": 1.0, "bleu": 1.0},
    }.items():
        found = {metric.name: metric.value for metric in record.group(group).metrics}
        assert {name: found[name] for name in best} == pytest.approx(best)


def test_tables_of_pages_of_ones_own_show_the_edit_distance_of_normal_forms(questions, score, folder) -> None:
    right = perfect(folder)
    rows = [{"sample_key": q["sample_key"], "response": right[q["task"], q["source_id"]]} for q in questions]
    record = score(rows).record
    fox = replace(record, groups=[replace(group, name=f"fox of {group.name}") for group in record.groups])
    for each, shown in ((record, True), (fox, False)):
        headers = [text.header for text in run_texts(each) if "pages_own" in text.title]
        assert [("edit distance, normalised" in header) for header in headers] == [shown]


def test_our_own_answers_score_as_they_did(run, score) -> None:
    ours = run()
    table = ours.samples(["sample_key", "response"])
    theirs = score(table.to_pylist())
    assert theirs.record.groups[:2] == ours.record.groups[:2]
    for mine, other in zip(ours.samples().to_pylist(), theirs.samples().to_pylist(), strict=True):
        # Whether a page was cut off is not known of answers from elsewhere.
        assert mine["scores"] | {"truncated": None} == other["scores"] | {"truncated": None}
        assert (other["prompt"], other["tokens_out"], other["latency_ms"]) == (None, None, None)
    assert {row["truncated"] for row in theirs.samples(["scores"])["scores"].to_pylist()} == {None}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.pop(3), "1 of 35 questions have no response, such as refcoco_val 101/1"),
        (lambda rows: rows.append(rows[0]), "row 36: a second response to sample"),
        (lambda rows: rows.append({"sample_key": "0" * 64, "response": "x"}), "1 responses have a sample_key that"),
        (lambda rows: rows[4].update(response=None), "row 5: expected sample_key and response, both texts"),
        (lambda rows: rows[4].update(response=["a"]), "row 5: expected sample_key and response, both texts"),
        (lambda rows: rows[4].pop("sample_key"), "row 5: expected sample_key and response, both texts"),
        (lambda rows: rows.insert(4, "yes"), "row 5: expected sample_key and response, both texts"),
        (lambda rows: rows.clear(), "35 of 35 questions have no response"),
    ],
)
def test_answers_that_do_not_fit_are_refused(change, said, questions, score, tmp_path) -> None:
    rows = [{"sample_key": q["sample_key"], "response": "yes"} for q in questions]
    change(rows)
    with pytest.raises(PerpoError) as caught:
        score(rows)
    assert said in caught.value.message
    assert caught.value.exit_code == 2
    assert not (tmp_path / "elsewhere").exists()


def test_a_limit_asks_and_expects_the_same(questions, score) -> None:
    first = [q for q in questions if q["task"] == "yesno_own"][:4]
    rows = [{"sample_key": q["sample_key"], "response": "yes"} for q in first]
    settings = {"tasks": ["yesno_own"], "limit": 4}
    assert score(rows, **settings).record.samples.rows == 4
    with pytest.raises(PerpoError, match="1 responses have a sample_key"):
        score(rows, **settings | {"limit": 3})


WRITTEN = {
    "thousandths": (BoxFormat("0-1000"), {"box_scale": "0-1000"}),
    "pixels": (BoxFormat("pixels"), {"box_scale": "pixels", "box_frame": "original"}),
    "percent": (BoxFormat("percent"), {"box_scale": "percent", "box_frame": "original"}),
    "y first": (BoxFormat("0-1000", "yxyx"), {"box_scale": "0-1000", "box_order": "yxyx"}),
    "width and height": (BoxFormat("pixels", "xywh"), {"box_scale": "pixels", "box_order": "xywh"}),
}


@pytest.fixture
def boxes(folder, score) -> Callable[..., Run]:
    """Score the true boxes of a task's ten expressions as another format writes them."""
    data = load_task(spec_of("refcoco_val"), str(folder))

    def begin(form: BoxFormat, **settings: object) -> Run:
        rows = [
            {
                "sample_key": sample_key(data.dataset, None, "val", doc["source_id"], doc["query"]),
                "response": format_box(json.loads(doc["target"]), form, (doc["width"], doc["height"])),
            }
            for doc in data.docs
        ]
        return score(rows, **{"suite": "grounding", "tasks": ["refcoco_val"]} | settings)

    return begin


@pytest.mark.parametrize("name", WRITTEN)
def test_boxes_are_read_as_declared_by_a_family_or_without_one(name, boxes, capsys) -> None:
    form, flags = WRITTEN[name]
    for family in ("llava_next", None):
        record = boxes(form, family=family, **flags).record
        assert {metric.name: metric.value for metric in record.groups[0].metrics}["acc@0.9"] == 1.0
        assert (record.tasks[0].box_scale, record.tasks[0].box_order) == (form.scale, form.order)
        assert record.warnings is None
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("name", WRITTEN)
def test_boxes_that_are_written_otherwise_are_warned_of_and_scored_as_declared(name, boxes, capsys, tmp_path) -> None:
    form, flags = WRITTEN[name]
    run = boxes(form, family="llava_next")
    assert {metric.name: metric.value for metric in run.record.groups[0].metrics}["acc@0.5"] == 0.0
    (warning,) = run.record.warnings
    named = " ".join(f"--{flag} {value}" for flag, value in flags.items() if flag != "box_frame")
    assert (
        f"10 of 10 answers would have an IoU of 0.5 or more if they were read with {named}, but only 0 have" in warning
    )
    assert f"warning: {warning}\n" in capsys.readouterr().err
    # Declared when they are scored again, they are right; what was declared then is kept by another rescoring.
    first = evaluate(EvalArguments(rescore=run.path, output=str(tmp_path / "1"), **flags))  # type: ignore[arg-type]
    again = evaluate(EvalArguments(rescore=first, output=str(tmp_path / "2")))
    for path in (first, again):
        record = read_run(path).record  # type: ignore[arg-type]
        assert {metric.name: metric.value for metric in record.groups[0].metrics}["acc@0.9"] == 1.0
        assert record.warnings is None


def test_boxes_need_a_family_or_a_scale(boxes) -> None:
    for flags in ({}, {"box_frame": "original"}, {"box_order": "yxyx"}):
        with pytest.raises(PerpoError) as caught:
            boxes(BoxFormat("pixels"), family=None, **flags)
        assert "--box_scale" in f"{caught.value.message} {caught.value.hint}"


def test_what_was_asked_elsewhere_is_kept(questions, score, capsys) -> None:
    rows = [
        {"sample_key": q["sample_key"], "response": "[0, 0, 1, 1]"} for q in questions if q["task"] == "refcoco_val"
    ]
    settings = {"suite": "grounding", "tasks": ["refcoco_val"]}
    run = score([row | {"question": f"Wo ist {k}?"} for k, row in enumerate(rows)], **settings)
    assert run.samples(["question"])["question"].to_pylist() == [f"Wo ist {k}?" for k in range(10)]
    assert run.record.tasks[0].prompt is None  # nobody knows with what template
    assert "what was asked" not in capsys.readouterr().err
    run = score(rows, **settings)
    assert run.samples(["question"])["question"].to_pylist() == [q["question"] for q in questions[:10]]
    assert run.record.tasks[0].prompt == FAMILIES["llava"].grounding_prompt.replace("{expression}", "{query}")
    assert "note: some responses do not say what was asked" in capsys.readouterr().err
    with pytest.raises(PerpoError, match="row 1: expected the question that was asked as `question`, found ''"):
        score([rows[0] | {"question": ""}], **settings)


# ---- scoring again ----


@pytest.fixture
def stored(run) -> Run:
    return run(limit=4)


def test_rescoring_gives_the_same_without_model_and_data(stored, tmp_path, monkeypatch, checkpoint) -> None:
    for module, name in ((runner, "load_task"), (hf, "load_hf")):
        monkeypatch.setattr(module, name, lambda *words, **settings: pytest.fail("something was loaded"))
    moved = Path(shutil.copytree(stored.path, tmp_path / "carried"))
    shutil.rmtree(stored.path)
    again = read_run(evaluate(EvalArguments(rescore=moved, output=str(tmp_path / "again"))))  # type: ignore[arg-type]
    assert again.record.tasks == stored.record.tasks
    assert again.record.groups == stored.record.groups
    assert again.record.rescored_from == stored.record.run_id != again.record.run_id
    assert again.record.model == stored.record.model
    assert again.record.generation == stored.record.generation
    assert "--rescore" in again.record.command
    assert again.samples().equals(read_run(moved).samples())


def test_rescoring_scores_by_todays_rules(stored, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pope, "parse_answer", lambda text: "no")
    real = pope.score_answer
    monkeypatch.setattr(pope, "score_answer", lambda text, label: real("no", label))
    again = read_run(evaluate(EvalArguments(rescore=stored.path, output=str(tmp_path / "again"))))  # type: ignore[arg-type]
    assert {m.name: m.value for m in again.record.group("yesno_own").metrics}["yes_ratio"] == 0.0
    assert again.record.group("yesno_own") != stored.record.group("yesno_own")
    assert again.record.group("grounding") == stored.record.group("grounding")
    rows = [row for row in again.samples().to_pylist() if row["task"] == "yesno_own"]
    assert {row["prediction"] for row in rows} == {'"no"'}
    assert responses_of(again) == responses_of(stored)


def test_a_rescored_run_is_rescored_again(stored, tmp_path) -> None:
    second = evaluate(EvalArguments(rescore=stored.path, output=str(tmp_path / "2"), name="again"))
    third = read_run(evaluate(EvalArguments(rescore=second, output=str(tmp_path / "3"))))  # type: ignore[arg-type]
    assert third.record.name == "again"
    assert third.record.rescored_from == read_run(second).record.run_id  # type: ignore[arg-type]
    assert third.record.groups == stored.record.groups


def test_damaged_samples_are_refused(stored, tmp_path) -> None:
    file = stored.path / "samples.parquet"
    content = file.read_bytes()
    arguments = EvalArguments(rescore=stored.path, output=str(tmp_path / "again"))
    for damaged in (content[:-100], content[:200] + b"\0" + content[201:], b""):
        file.write_bytes(damaged)
        with pytest.raises(PerpoError, match="is not the file that"):
            evaluate(arguments)
    file.unlink()
    with pytest.raises(PerpoError, match="is missing"):
        evaluate(arguments)
    with pytest.raises(PerpoError, match="there is no run at"):
        evaluate(EvalArguments(rescore=tmp_path / "no such run"))
    assert not (tmp_path / "again").exists()


JUDGE = {"judge": "none", "judge_model": "x", "judge_base_url": "http://x", "judge_votes": 3, "judge_swap": True}
JUDGE |= {"judge_rps": 3.0, "judge_concurrency": 3}
BOXES = {"family", "box_scale", "box_order", "box_frame"}
ANSWERS = {"suite", "data", "tasks", "include_path", "limit", "prompt_style", "name", "output", "json"} | BOXES
ANSWERS |= {"reviewed_labels"}
USED = {
    "responses": ANSWERS | set(JUDGE),
    "rescore": {"name", "output", "json", "reviewed_labels"} | BOXES,
}
OTHER = {"suite": "pope", "model": "x", "adapter": "x", "data": "x", "tasks": ["x"], "limit": 3, "batch_size": 3}
OTHER |= {"include_path": "x", "stop_on_repetition": True, "estimate": "H100", "base_url": ["http://x/v1"]}
OTHER |= {"served_model": "x", "concurrency": 3, "rps": 3.0, "timeout_s": 3.0, "vllm_args": ["max_model_len=5"]}
OTHER |= {"max_new_tokens": 3, "temperature": 0.5, "top_p": 0.5, "seed": 1, "prompt_style": "lmms_eval"}
OTHER |= {"max_error_share": 0.5, "engine": "lmms:x", "model_args": "x=y", "dtype": "bfloat16", "device": "cpu"} | JUDGE


@pytest.mark.parametrize(
    ("mode", "name"), [(mode, name) for mode in USED for name in OTHER if name not in USED[mode] | {"top_p", "seed"}]
)
def test_arguments_that_would_be_ignored_are_refused(mode, name, stored, tmp_path) -> None:
    assert EvalArguments.__dataclass_fields__[name].default != OTHER[name]
    file = tmp_path / "answers.jsonl"
    file.write_text("")
    given = {mode: stored.path if mode == "rescore" else file, "output": str(tmp_path / "x"), name: OTHER[name]}
    with pytest.raises(PerpoError, match=f"--{name} has no effect with --{mode}"):
        evaluate(EvalArguments(**given))


def test_the_settings_above_are_all_there_are() -> None:
    fields = EvalArguments.__dataclass_fields__
    assert set(OTHER) | USED["responses"] | {"responses", "rescore", "questions"} == set(fields)
    assert all(default_of(fields[name]) != value for name, value in OTHER.items())


# ---- too little memory ----


@pytest.fixture
def small_memory(monkeypatch) -> Callable[..., list[int]]:
    """Let memory hold so many questions at once; returns the sizes of the batches that are tried."""

    def begin(most: int, error: Exception) -> list[int]:
        tried: list[int] = []
        real = hf.answer

        def answer(loaded, prompts, *rest) -> list[list[int]]:
            tried.append(len(prompts))
            if len(prompts) > most:
                raise error
            return real(loaded, prompts, *rest)

        monkeypatch.setattr(hf, "answer", answer)
        return tried

    return begin


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_batch_that_does_not_fit_is_halved_for_good(error, run, small_memory, tmp_path) -> None:
    expected = run(batch_size=16, suite="grounding", output=str(tmp_path / "a"))
    tried = small_memory(3, error)
    found = run(batch_size=16, suite="grounding", output=str(tmp_path / "b"))
    assert responses_of(found) == responses_of(expected)
    assert found.record.tasks == expected.record.tasks
    # Ten questions, and their halves, which are halved again.
    assert tried == [10, 5, 2, 3, 5, 2, 3]
    tried.clear()
    run(batch_size=4, output=str(tmp_path / "c"))
    # The first batch finds out how many fit; no other one tries more.
    assert tried == [4, 2, 2] + [2] * 10 + [1]


def test_too_little_memory_for_one_question_is_one_sentence(folder, checkpoint, tmp_path, small_memory, capsys) -> None:
    tried = small_memory(0, OUT_OF_MEMORY[0])
    words = ["--suite", "pope", "--model", str(checkpoint), "--data", str(folder), "--output", str(tmp_path / "out")]
    assert main([*words, "--batch_size", "4", "--device", "cpu"]) == 3
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error == "error: there is not enough memory even for one question"
    assert "--dtype" in hint
    assert tried == [4, 2, 1]


def test_another_error_is_not_taken_for_memory(run, small_memory) -> None:
    tried = small_memory(0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        run(batch_size=8)
    assert tried == [8]


# ---- drawn answers ----

DRAWN = {"temperature": 1.0, "suite": "grounding", "tasks": ["refcoco_val"]}


def test_what_is_drawn_depends_on_seed_question_and_image_alone(run, tmp_path, monkeypatch) -> None:
    def drawn(place: str, **settings: object) -> list[str]:
        return responses_of(run(**DRAWN | {"output": str(tmp_path / place)} | settings))

    first = drawn("a", batch_size=1)
    assert len(set(first)) > 5
    assert drawn("b", batch_size=7) == first
    assert drawn("c", batch_size=7, limit=3) == first[:3]
    assert drawn("d", seed=1) != first
    assert drawn("e", temperature=0.0) != first

    real, left = hf.HfEngine.answers, [6]

    def answers(engine, queries, decoding) -> list[list[Answer]]:
        left[0] -= len(queries)
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(engine, queries, decoding)

    with monkeypatch.context() as patch:
        patch.setattr(hf.HfEngine, "answers", answers)
        with pytest.raises(KeyboardInterrupt):
            drawn("f", batch_size=3)
    assert drawn("f", batch_size=7) == first
