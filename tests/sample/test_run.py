"""perpo-sample from questions to records: what it writes, refuses, survives and repeats."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import ExifTags, Image

from perpo.benchmarks.prompts import GROUNDING
from perpo.cli.sample import main
from perpo.cli.train import main as train_main
from perpo.common.arguments import parse_arguments
from perpo.data import read_preferences
from perpo.engines.base import Answer, EngineInfo
from perpo.engines.hf import HfEngine
from perpo.errors import PerpoError
from perpo.models.loaded import answers_token_ids, render_prompt
from perpo.models.loading import load_model
from perpo.models.logps import repeated_logps
from perpo.models.lora import add_lora
from perpo.records.training_record import read_record
from perpo.rewards.asked import QuestionSet
from perpo.sample.arguments import SampleArguments
from perpo.sample.run import _journal_key, _provenance, run_sampling
from perpo.tiny.model import LLAVA15_GEOMETRY, TINY, new_model, new_processor, save_random_model
from perpo.train.arguments import TrainArguments
from perpo.train.outputs.saving import save_checkpoint

TRUTH = "[0.10, 0.20, 0.50, 0.60]"
QUESTIONS = 7


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model without knowledge whose answers look a little like boxes and end soon."""
    directory = tmp_path_factory.mktemp("model")
    processor = new_processor(TINY, ["where is the small red circle? USER: ASSISTANT:"])
    model = new_model(TINY, processor)
    likely = {" [": 0.8, ", ": 0.9, "]": 0.7, "</s>": 0.75}
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        # The first number is about the same at every position, so it raises a token's logit everywhere.
        embedding[:, 0] = 0.5
        for token in range(len(processor.tokenizer)):
            text = processor.tokenizer.decode([token])
            embedding[token, 0] += likely.get(text, 0.45 if text[1:2] == "." else 0)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


@pytest.fixture
def folder(tmp_path):
    """Questions with photographs of several sizes, in an empty folder."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(QUESTIONS):
        size = (40 + 10 * index, 80, 3)
        Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(tmp_path / f"{index}.png")
        question = "<image>\nwhere is the " + "small " * (index % 3) + "red circle?"
        rows.append({"image_path": f"{index}.png", "question": question, "answer": TRUTH, "image_id": index})
    write_rows(tmp_path, rows)
    return tmp_path


def write_rows(folder, rows):
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_rows(folder):
    return [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]


def arguments(folder, checkpoint, **changes):
    values = {
        "model": str(checkpoint),
        "questions": str(folder / "questions.jsonl"),
        "output": str(folder / "out.jsonl"),
        "num_candidates": 6,
        "max_new_tokens": 12,
        "batch_size": 3,
        "reward": "edit",
        "device": "cpu",
    }
    return SampleArguments(**(values | changes))


def sample(args):
    return run_sampling(args).output


def words(args):
    """The same arguments as words of the command line."""
    return [word for name, value in vars(args).items() if value not in (None, []) for word in (f"--{name}", str(value))]


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def scripted(monkeypatch):
    """Let the model say what the test wants: a function from a question's index to its answers."""

    def script(say):
        monkeypatch.setattr(HfEngine, "answers", lambda self, queries, _: [say(query.draw) for query in queries])

    return script


# What it writes.


def test_records_hold_answers_rewards_log_probs_and_how_they_were_made(folder, checkpoint):
    args = arguments(folder, checkpoint, temperature=1.1, top_p=0.95, seed=3)
    path = sample(args)
    loaded = load_model(str(checkpoint), device="cpu")
    written = read_preferences(path)
    assert [record.image_path for record in written] == [f"{index}.png" for index in range(QUESTIONS)]
    for record in written:
        assert record.question.startswith("where is the")
        assert (record.answer, record.reward_name, record.box_frame) == (TRUTH, "edit", "padded")
        assert record.sampling == {
            "engine": "hf",
            "temperature": 1.1,
            "top_p": 0.95,
            "seed": 3,
            "max_new_tokens": 12,
            "model": str(checkpoint),
            "dtype": "float32",
            "weights_sha256": loaded.weights_sha256,
            "adapter_sha256": None,
        }
        lengths = (record.answers_gen, record.rewards, record.truncated, record.reference_logps)
        assert {len(column) for column in lengths} == {6}
    cut = [cut for record in written for cut in record.truncated]
    assert 0 < sum(cut) < len(cut)


def test_known_log_probs_are_those_of_training(folder, checkpoint):
    loaded = load_model(str(checkpoint), device="cpu")
    known = unknown = 0
    for record in read_preferences(sample(arguments(folder, checkpoint, num_candidates=20))):
        prompt = render_prompt(loaded, record.question)
        image = Image.open(folder / record.image_path).convert("RGB")
        inputs = loaded.encode([prompt], [image])
        columns = zip(record.answers_gen, record.truncated, record.reference_logps, strict=True)
        usable = [(text, cut, logp) for text, cut, logp in columns if logp is not None]
        unknown += 20 - len(usable)
        if not usable:
            continue
        known += len(usable)
        with torch.no_grad():
            expected = repeated_logps(
                loaded.model,
                [inputs["input_ids"][0].tolist()],
                [[answers_token_ids(loaded, prompt, [text], end=not cut)[0] for text, cut, _ in usable]],
                [{"pixel_values": inputs["pixel_values"]}],
                pad_id=3,
            )
        assert expected[0].tolist() == pytest.approx([logp for _, _, logp in usable], abs=1e-4)
    assert known > 3
    assert unknown > 3  # such as "0.12", which the model said without the separator's space before it


@pytest.fixture(scope="module")
def adapter(checkpoint, tmp_path_factory):
    """A LoRA adapter, with a projector of its own, that changes every answer."""
    directory = tmp_path_factory.mktemp("adapter")
    loaded = load_model(str(checkpoint), device="cpu")
    model = add_lora(loaded, r=4, alpha=8, dropout=0.0, train_projector=True)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1 if "lora" in name else 0.05, generator=generator)
    save_checkpoint(model, loaded.processor, directory)
    return directory


@pytest.mark.parametrize("with_adapter", [False, True])
def test_greedy_answers_are_those_of_generate(folder, checkpoint, adapter, with_adapter):
    name = str(adapter) if with_adapter else None
    path = sample(arguments(folder, checkpoint, temperature=0.0, num_candidates=1, adapter=name))
    loaded = load_model(str(checkpoint), name, device="cpu")
    for record in read_preferences(path):
        prompt = render_prompt(loaded, record.question)
        image = Image.open(folder / record.image_path).convert("RGB")
        inputs = loaded.encode([prompt], [image])
        ids = loaded.model.generate(**inputs, do_sample=False, max_new_tokens=12)[0]
        text = loaded.tokenizer.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert record.answers_gen == [text.strip()]
        assert record.sampling["adapter_sha256"] == loaded.adapter_sha256


def test_an_adapter_changes_the_answers_and_its_journal_is_its_own(folder, checkpoint, adapter, capsys):
    base = records(sample(arguments(folder, checkpoint)))
    assert "other settings, another model" in refused(capsys, arguments(folder, checkpoint, adapter=str(adapter)))
    output = str(folder / "adapted.jsonl")
    adapted = records(sample(arguments(folder, checkpoint, adapter=str(adapter), output=output)))
    assert all(a["answers_gen"] != b["answers_gen"] for a, b in zip(adapted, base, strict=True))
    digest = load_model(str(checkpoint), str(adapter), device="cpu").adapter_sha256
    assert {record["sampling"]["adapter_sha256"] for record in adapted} == {digest}


def test_unreadable_answers_get_0_and_are_counted(folder, checkpoint, scripted):
    texts = [TRUTH, "no box", "[0.10, 0.20, 0.50, 0.40]", "[0.1, 0.2"]
    scripted(lambda index: [Answer(text, truncated=text == texts[3], logp=None) for text in texts])
    run = run_sampling(arguments(folder, checkpoint, reward="iou", num_candidates=4))
    for record in read_preferences(run.output):
        assert record.rewards == pytest.approx([1.0, 0.0, 0.5, 0.0])
        assert record.truncated == [False, False, False, True]
        assert record.reference_logps == [None] * 4
    assert run.summary.unreadable == 2 * QUESTIONS
    assert run.summary.truncated == QUESTIONS
    assert run.summary.mean_reward == pytest.approx(1.5 / 4)
    assert run.summary.best_of_n == 1.0


def test_only_questions_with_the_margin_are_kept(folder, checkpoint, scripted):
    # Question k has rewards 1 and 1 - k/10 from the user's function; those of even k end with a cut answer of 0.
    def say(index):
        extra = [Answer("0.0", truncated=True, logp=-1.0)] if index % 2 == 0 else [Answer("1.0", False, -1.0)]
        return [Answer("1.0", False, -1.0), Answer(str(1 - index / 10), False, -1.0), *extra]

    (folder / "as_number.py").write_text("def reward(prediction, truth, sample):\n    return float(prediction)\n")
    rows = read_rows(folder)
    write_rows(folder, [row | {"answer": "1.0"} for row in rows])
    scripted(say)
    args = arguments(folder, checkpoint, reward="as_number:reward", num_candidates=3, min_margin=0.4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = run_sampling(args)
        kept = read_preferences(run.output)
        assert [record.image_id for record in kept] == [4, 5, 6]
        assert (run.summary.questions, run.summary.kept) == (7, 3)
        # Filters work on what the journal holds: another setting needs no sampling.
        scripted(lambda index: pytest.fail("sampled again"))
        args = replace(args, min_margin=0.0, duplicates="drop")
        everything = read_preferences(sample(args))
    assert [len(record.answers_gen) for record in everything] == [2, 2, 3, 2, 3, 2, 3]
    assert everything[0].truncated == [False, True]


def test_no_question_left_is_said_and_nothing_is_sampled_in_vain(folder, checkpoint, scripted, capsys):
    scripted(lambda index: [Answer(TRUTH, False, -1.0), Answer(TRUTH, False, -1.0)])
    args = arguments(folder, checkpoint, num_candidates=2, min_margin=0.5)
    assert main(words(args)) == 2
    assert "no question has a margin of 0.5" in capsys.readouterr().err
    scripted(lambda index: pytest.fail("sampled again"))
    args = replace(args, min_margin=0.0)
    assert main(words(args)) == 0


def test_the_program_prints_the_summary(folder, checkpoint, capfd):
    assert main(words(arguments(folder, checkpoint, limit=4))) == 0
    out, err = capfd.readouterr()
    assert "questions            4\n" in out
    assert "candidates           24," in out
    assert "rewards\n" in out
    assert "perpo-train --data" in err
    assert len(records(folder / "out.jsonl")) == 4


@pytest.mark.parametrize("with_adapter", [False, True])
def test_the_printed_next_step_runs_as_it_stands_and_trains_what_was_sampled_from(
    folder, checkpoint, adapter, with_adapter, capfd
):
    start = str(adapter) if with_adapter else None
    output = folder / f"of adapter {with_adapter}.jsonl"
    sampling = words(
        arguments(folder, checkpoint, limit=2, adapter=start, output=str(output), num_candidates=30, temperature=2.0)
    )
    assert main(sampling) == 0
    said, command = capfd.readouterr().err.splitlines()[-1].split("; to train on it: ")
    program, *flags = shlex.split(command)
    assert (said, Path(program).name) == (f"{output} written", "perpo-train")
    expected = folder / f"of adapter {with_adapter}-adapter"
    if with_adapter:  # a real training, of what was sampled from
        assert train_main(flags) == 0
        model = read_record(expected)["model"]
        assert {key: model[key] for key in ("weights_sha256", "adapter_sha256")} == {
            key: records(output)[0]["sampling"][key] for key in ("weights_sha256", "adapter_sha256")
        }
        assert main(sampling) == 0
        assert f"--output_dir '{expected}-2'" in capfd.readouterr().err
        flags[flags.index("--adapter") : flags.index("--adapter") + 2] = []
        flags[flags.index("--output_dir") + 1] = str(folder / "other")
        assert train_main(flags) == 2
        assert "2 of 2 records were sampled from the adapter of SHA-256" in capfd.readouterr().err
    else:
        args = parse_arguments(TrainArguments, flags, prog=program, description="")
        assert (args.model, args.output_dir, args.adapter) == (str(checkpoint), str(expected), None)


def test_with_nothing_to_rank_no_training_is_advised(folder, checkpoint, capfd):
    one = arguments(folder, checkpoint, limit=2, num_candidates=1, output=str(folder / "one.jsonl"))
    assert main(words(one)) == 0
    assert "one.jsonl written; in no question do two finished answers have different rewards" in capfd.readouterr().err


def test_a_function_of_the_users_gets_prediction_truth_and_sample(folder, checkpoint, monkeypatch):
    (folder / "my_reward.py").write_text(
        textwrap.dedent("""
        def reward(prediction, truth, sample):
            assert truth == "[0.10, 0.20, 0.50, 0.60]" and sample["answer"] == truth
            if prediction == truth:
                return 1.0
            return None if not prediction else sample["image_id"] / 10
        """)
    )
    monkeypatch.chdir(folder)
    for record in read_preferences(sample(arguments(folder, checkpoint, reward="my_reward:reward"))):
        assert record.reward_name == "my_reward:reward"
        assert record.rewards == [record.image_id / 10 if text else 0.0 for text in record.answers_gen]


def test_images_inside_the_data_are_unpacked_beside_the_output(folder, checkpoint):
    buffer = io.BytesIO()
    Image.new("RGB", (50, 40), "teal").save(buffer, format="JPEG")
    image = {"bytes": buffer.getvalue(), "path": None}
    rows = [{"image": image, "question": "where is it?", "answer": TRUTH}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "questions.parquet")
    run = run_sampling(arguments(folder, checkpoint, questions=str(folder / "questions.parquet")))
    [record] = read_preferences(run.output)
    assert (run.image_root / record.image_path).read_bytes() == buffer.getvalue()
    assert (run.image_root / record.image_path).parent == folder / "out-images"


def test_a_photograph_that_is_stored_lying_is_asked_about_upright(folder, checkpoint):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # upright after a quarter clockwise
    with Image.open(folder / "0.png") as upright:
        upright.transpose(Image.Transpose.ROTATE_90).save(folder / "lying.png", exif=exif)
    row = read_rows(folder)[0]
    found = []
    for name in ("0.png", "lying.png"):
        write_rows(folder, [row | {"image_path": name}])
        args = arguments(folder, checkpoint, output=str(folder / f"{name}.jsonl"), reward="iou", num_candidates=2)
        (record,) = records(sample(args))
        found.append({key: record[key] for key in ("answers_gen", "rewards", "reference_logps")})
    assert found[0] == found[1]


def test_answers_to_pictures_that_were_opened_in_another_way_are_not_continued(folder, checkpoint, monkeypatch, capsys):
    args = arguments(folder, checkpoint, limit=1)
    sample(args)
    monkeypatch.setattr("perpo.sample.run.PICTURES_VERSION", 1)
    assert "other settings" in refused(capsys, args)


def test_truths_in_another_frame_are_rewarded_and_written_in_the_models(folder, checkpoint, scripted):
    """The truth is the left half of the picture; question k's picture is 80 wide and 40 + 10 k high."""
    write_rows(folder, [row | {"answer": "[0, 0, 0.5, 1]"} for row in read_rows(folder)])
    said = ["[0, 0, 0.5, 1]", "[0.00, 0.25, 0.50, 0.75]"]
    scripted(lambda index: [Answer(text, False, -1.0) for text in said])
    args = arguments(folder, checkpoint, reward="iou", truth_frame="original", num_candidates=2, limit=7)
    written = read_preferences(sample(args))
    assert {record.box_frame for record in written} == {"padded"}
    # 80 x 40: the square's half is twice the picture's half; the second answer is the picture's half.
    assert written[0].rewards == pytest.approx([0.5, 1.0])
    assert written[0].answer == "[0.00, 0.25, 0.50, 0.75]"
    assert written[4].answer == "[0.00, 0.00, 0.50, 1.00]"  # 80 x 80: both frames are one
    assert written[4].rewards == pytest.approx([1.0, 0.5])
    # 80 x 100: the square is 100 wide with the picture from 10 to 90. The answer of 50 x 100 in the square covers
    # 40 of the truth's 40 x 100.
    assert written[6].answer == "[0.10, 0.00, 0.50, 1.00]"
    assert written[6].rewards[0] == pytest.approx(40 / 50)


def test_boxes_of_answers_and_truths_are_read_as_declared(folder, checkpoint, scripted):
    """Pixels of the picture, asked of a model whose family writes shares of the padded one; truths in per cent."""
    write_rows(folder, [row | {"answer": "[0, 0, 50, 100]"} for row in read_rows(folder)])
    small = Answer("[0, 0, 1, 1]", False, -1.0)
    scripted(lambda index: [Answer(f"[0, 0, 40, {40 + 10 * index}]", False, -1.0), small])
    flags = {"box_scale": "pixels", "box_order": "xywh", "box_frame": "original"}
    flags |= {"truth_scale": "percent", "truth_order": "xyxy"}
    run = run_sampling(arguments(folder, checkpoint, reward="iou", num_candidates=2, **flags))
    assert run.warning is None
    for index, record in enumerate(read_preferences(run.output)):
        assert record.rewards[0] == 1.0
        assert record.answer == f"[0, 0, 40, {40 + 10 * index}]"  # the left half of 80 pixels
        assert (record.box_scale, record.box_order, record.box_frame) == ("pixels", "xywh", "original")
    # The records say so themselves when they are asked again.
    again = arguments(folder, checkpoint, reward="iou", num_candidates=2, questions=str(run.output))
    again = replace(again, output=str(folder / "again.jsonl"))
    again = replace(again, **{flag: flags[flag] for flag in ("box_scale", "box_order", "box_frame")})
    assert [record.rewards[0] for record in read_preferences(sample(again))] == [1.0] * QUESTIONS
    again = replace(again, truth_scale="0-1", output=str(folder / "more.jsonl"))
    with pytest.raises(PerpoError, match="question 1 says that the scale of its box is pixels, but the flag says 0-1"):
        sample(again)


def test_truths_with_percent_signs_are_read_by_a_reward_of_answers_without(folder, checkpoint, scripted):
    write_rows(folder, [row | {"answer": "[10%, 20%, 50%, 60%]"} for row in read_rows(folder)])
    scripted(lambda index: [Answer(TRUTH, False, -1.0), Answer("[0, 0, 1, 1]", False, -1.0)])
    args = arguments(folder, checkpoint, reward="iou", num_candidates=2, truth_scale="percent", truth_frame="padded")
    for record in read_preferences(sample(args)):
        assert (record.answer, record.box_scale, record.rewards[0]) == (TRUTH, "0-1", 1.0)


def test_records_of_texts_do_not_say_how_boxes_are_written(folder, checkpoint, monkeypatch):
    """They would be refused as boxes when they are asked again."""
    (folder / "my_length.py").write_text("def reward(prediction, truth, sample):\n    return 0.5\n")
    monkeypatch.chdir(folder)
    boxes = sample(arguments(folder, checkpoint, reward="my_length:reward", limit=1))
    assert [record.box_scale for record in read_preferences(boxes)] == ["0-1"]
    write_rows(folder, [row | {"answer": "a cat"} for row in read_rows(folder)])
    args = arguments(folder, checkpoint, reward="my_length:reward", limit=1, output=str(folder / "texts.jsonl"))
    (record,) = read_preferences(sample(args))
    assert (record.answer, record.box_scale, record.box_frame) == ("a cat", None, "padded")
    args = replace(args, questions=args.output, output=str(folder / "again.jsonl"))
    assert [record.answer for record in read_preferences(sample(args))] == ["a cat"]


def test_answers_in_another_scale_are_warned_of(folder, checkpoint, scripted, capfd):
    scripted(lambda index: [Answer("[100, 200, 500, 600]", False, -1.0), Answer("[0, 0, 1, 1]", False, -1.0)])
    args = arguments(folder, checkpoint, reward="iou", num_candidates=2)
    assert main(words(args)) == 0
    said = capfd.readouterr().err
    assert "warning: 7 of 7 boxes lie outside the declared scale 0-1; 7 of 7 answers would have an IoU of" in said
    assert "more if they were read with --box_scale 0-1000, but only 0 have it as declared" in said
    assert {record.rewards[0] for record in read_preferences(folder / "out.jsonl")} == {0.0}


def test_truths_smaller_than_a_pixel_are_of_another_scale(folder, checkpoint):
    args = arguments(folder, checkpoint, reward="iou", box_scale="pixels", box_frame="original")
    with pytest.raises(
        PerpoError, match=r"question 1: its truth .* holds a box that is smaller than a pixel in the scale pixels"
    ):
        sample(args)


@pytest.mark.parametrize("part", ["scale", "order", "frame"])
@pytest.mark.parametrize("what", ["box", "truth"])
def test_a_reward_of_texts_has_no_use_for_boxes(folder, checkpoint, what, part):
    value = {"scale": "pixels", "order": "yxyx", "frame": "padded"}[part]
    with pytest.raises(PerpoError, match=f"--{what}_{part} has no effect with --reward edit"):
        sample(arguments(folder, checkpoint, **{f"{what}_{part}": value}))


def test_an_expression_is_asked_for_as_the_family_does(folder, checkpoint):
    rows = [{"image_path": row["image_path"], "answer": TRUTH, "expression": "the bench"} for row in read_rows(folder)]
    write_rows(folder, rows)
    (first, *_) = read_preferences(sample(arguments(folder, checkpoint, limit=1)))
    assert first.question == GROUNDING.format(expression="the bench")


def test_the_models_own_frame_leaves_the_truths_as_they_are(folder, checkpoint):
    args = arguments(folder, checkpoint, reward="iou", truth_frame="padded", limit=2)
    assert [record.answer for record in read_preferences(sample(args))] == [TRUTH] * 2


def test_a_model_of_llava_15_geometry_answers(folder, tmp_path_factory):
    checkpoint = save_random_model(tmp_path_factory.mktemp("geometry"), LLAVA15_GEOMETRY)
    args = arguments(folder, checkpoint, limit=2, num_candidates=20, max_new_tokens=4)
    assert [len(record.answers_gen) for record in read_preferences(sample(args))] == [20, 20]


# What it repeats.


def test_neither_batch_size_nor_limit_nor_order_of_work_changes_an_answer(folder, checkpoint):
    expected = records(sample(arguments(folder, checkpoint, output=str(folder / "a.jsonl"), batch_size=7)))
    first = arguments(folder, checkpoint, output=str(folder / "b.jsonl"), batch_size=1, limit=3)
    sample(first)
    first = replace(first, limit=None, batch_size=2)
    found = records(sample(first))
    for one, other in zip(found, expected, strict=True):
        for name, value in one.items():
            if name == "reference_logps":
                assert [v is None for v in value] == [v is None for v in other[name]]
                known = [v for v in value if v is not None]
                assert known == pytest.approx([v for v in other[name] if v is not None], abs=1e-4)
            else:
                assert value == other[name]


def test_in_half_precision_answers_of_other_batches_are_made_again(folder, checkpoint, monkeypatch):
    """However the work was cut, and with what batch size or limit: each record is as of one run without a stop."""
    whole = arguments(folder, checkpoint, output=str(folder / "whole.jsonl"), dtype="bfloat16", batch_size=2)
    expected = sample(whole).read_bytes()
    batches = {record["image_id"]: record["sampling"]["batch_size"] for record in records(folder / "whole.jsonl")}
    assert batches == {index: min(2, QUESTIONS - index // 2 * 2) for index in range(QUESTIONS)}
    asked, answers = [], HfEngine.answers
    monkeypatch.setattr(
        HfEngine,
        "answers",
        lambda self, queries, how: (asked.append([query.draw for query in queries]), answers(self, queries, how))[1],
    )
    cut = arguments(folder, checkpoint, output=str(folder / "cut.jsonl"), dtype="bfloat16", batch_size=3, limit=5)
    sample(cut)
    assert asked == [[0, 1, 2], [3, 4]]
    asked.clear()
    cut = replace(cut, batch_size=2, limit=None)
    assert sample(cut).read_bytes() == expected
    assert [k for batch in asked for k in batch] == list(range(QUESTIONS))
    asked.clear()
    assert sample(cut).read_bytes() == expected
    assert asked == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_batch_that_does_not_fit_the_memory_is_halved(folder, checkpoint, dtype, monkeypatch):
    plain = records(sample(arguments(folder, checkpoint, output=str(folder / "two.jsonl"), dtype=dtype, batch_size=2)))
    asked, answers = [], HfEngine.answers

    def small(self, queries, decoding):
        asked.append(len(queries))
        if len(queries) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answers(self, queries, decoding)

    monkeypatch.setattr(HfEngine, "answers", small)
    args = arguments(folder, checkpoint, output=str(folder / "four.jsonl"), dtype=dtype, batch_size=4)
    found = records(sample(args))
    assert asked == [4, 2, 2] + [2] * ((QUESTIONS - 4) // 2) + [1] * (QUESTIONS % 2)
    assert [record["answers_gen"] for record in found] == [record["answers_gen"] for record in plain]
    assert [record["sampling"].get("batch_size") for record in found] == [
        record["sampling"].get("batch_size") for record in plain
    ]
    if dtype == "float32":
        return
    journal = folder / "four.jsonl.journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:5]))  # killed behind the first batch
    asked.clear()
    assert records(sample(args)) == found
    assert max(asked) == 2  # as it went on before


def test_a_thought_that_the_prompt_opened_is_no_answer(folder, checkpoint, scripted):
    """As of a chat template that ends in <think>: what was cut within the thought holds a box, but no answer."""
    thinking, answering = f"perhaps {TRUTH}, or", f"[0.5, 0.6, 0.9, 0.9]?</think>{TRUTH}"
    scripted(lambda index: [Answer(thinking, True, None, "<think>"), Answer(answering, False, None, "<think>")])
    args = arguments(folder, checkpoint, reward="iou")
    for _ in range(2):  # the second time from the journal
        run = run_sampling(args)
        assert (run.summary.unreadable, run.warning) == (QUESTIONS, None)
        for record in records(run.output):
            assert record["answers_gen"] == [thinking, answering]
            assert record["rewards"] == [0.0, 1.0]


def test_the_sampler_knows_that_a_prompt_opened_a_thought(folder, checkpoint, monkeypatch):
    monkeypatch.setattr("perpo.engines.hf.render_prompt", lambda *words: f"{render_prompt(*words)} <think>\n")
    run = run_sampling(arguments(folder, checkpoint, num_candidates=2, limit=2))
    assert run.summary.unreadable == run.summary.candidates == 4  # for nothing that it says ends a thought
    assert not any("<think>" in text for record in records(run.output) for text in record["answers_gen"])


def test_another_seed_gives_other_answers_and_fewer_candidates_the_first_ones(folder, checkpoint):
    paths = {}
    for name, changes in {"a": {}, "other": {"seed": 1}, "fewer": {"num_candidates": 4}}.items():
        paths[name] = records(sample(arguments(folder, checkpoint, output=str(folder / f"{name}.jsonl"), **changes)))
    for a, other, fewer in zip(*paths.values(), strict=True):
        assert a["answers_gen"] != other["answers_gen"]
        assert a["answers_gen"][:4] == fewer["answers_gen"]


# The program, but that it waits where it would ask the question that its first word names.
STOPPING = """
import sys
from perpo.cli.sample import main
from perpo.errors import PerpoError
from perpo.engines.hf import HfEngine

stop_at, *words = sys.argv[1:]
answers = HfEngine.answers

def stopping(self, queries, decoding):
    if int(stop_at) in [query.draw for query in queries]:
        open("pipe").read()  # until the writer goes away
    return answers(self, queries, decoding)

HfEngine.answers = stopping
main(words)
"""


def program(folder, args, start=("-m", "perpo.cli.sample")):
    command = [sys.executable, *start, *words(args)]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def kill_at(question, folder, args):
    """Kill the program when it is about to ask this question."""
    with program(folder, args, ("-c", STOPPING, str(question))) as process:
        pipe = None
        while pipe is None:
            assert process.poll() is None, process.stderr.read()
            try:
                pipe = os.open(folder / "pipe", os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:  # which says that the program has not got there yet
                    raise
                time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=120)
        os.close(pipe)
    assert process.returncode == -signal.SIGKILL


def test_a_killed_run_continues_to_the_same_bytes(folder, checkpoint):
    os.mkfifo(folder / "pipe")
    cut = arguments(folder, checkpoint, output=str(folder / "cut.jsonl"), batch_size=2)
    whole = arguments(folder, checkpoint, output=str(folder / "whole.jsonl"), batch_size=2)
    journal = folder / "cut.jsonl.journal"
    with program(folder, whole) as uninterrupted:
        kill_at(5, folder, cut)
        assert not (folder / "cut.jsonl").exists()
        assert [row.get("id") for row in records(journal)] == [None, 0, 1, 2, 3]
        with journal.open("a") as file:
            file.write('{"id": 4, "answers": ["[0.1')  # as if killed while writing
        with program(folder, cut) as again:
            assert again.wait(timeout=120) == 0
        assert uninterrupted.wait(timeout=120) == 0
    assert (folder / "cut.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()


def test_ctrl_c_keeps_what_is_done(folder, checkpoint, monkeypatch, capsys):
    args = arguments(folder, checkpoint)
    expected = sample(args).read_bytes()
    args = replace(args, output=str(folder / "cut.jsonl"))
    answers = HfEngine.answers

    def interrupted(self, queries, decoding):
        if queries[0].draw == 3:
            signal.raise_signal(signal.SIGINT)
        return answers(self, queries, decoding)

    with monkeypatch.context() as patch:
        patch.setattr(HfEngine, "answers", interrupted)
        assert main(words(args)) == 130
    err = capsys.readouterr().err
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert not (folder / "cut.jsonl").exists()
    assert [row.get("id") for row in records(folder / "cut.jsonl.journal")] == [None, 0, 1, 2]
    assert main(words(args)) == 0
    assert (folder / "cut.jsonl").read_bytes() == expected


@pytest.mark.parametrize("full", ["journal", "output"])
def test_a_full_disk_keeps_what_is_done(folder, checkpoint, capsys, largest_file, full):
    whole = sample(arguments(folder, checkpoint, output=str(folder / "whole.jsonl")))
    head, *lines = (folder / "whole.jsonl.journal").read_bytes().splitlines(keepends=True)
    args = arguments(folder, checkpoint)
    journal, output = folder / "out.jsonl.journal", folder / "out.jsonl"
    if full == "journal":
        room = len(head) + sum(map(len, lines[:3])) + len(lines[3]) // 2  # a batch, and half of a row
    else:
        sample(args)
        output.write_text("old\n")
        room = whole.stat().st_size // 2
    with largest_file(room):
        assert main(words(args)) == 3
    out, err = capsys.readouterr()
    named = journal if full == "journal" else output
    assert f"error: {named} could not be written: File too large (" in err
    assert "; finished work is kept: run the same command again to continue\n" in err
    assert (out, "Traceback" in err) == ("", False)
    if full == "journal":
        assert journal.read_bytes() == head + b"".join(lines[:3])
        assert not output.exists()
    else:
        assert output.read_text() == "old\n"
    assert main(words(args)) == 0
    assert output.read_bytes() == whole.read_bytes()


def test_a_batch_that_is_partly_in_the_journal_is_done_again_whole(folder, checkpoint, monkeypatch):
    args = arguments(folder, checkpoint)
    expected = sample(args).read_bytes()
    journal = folder / "out.jsonl.journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:6]))  # the head, one whole batch and two thirds of the next
    batches = []
    answers = HfEngine.answers
    monkeypatch.setattr(
        HfEngine,
        "answers",
        lambda self, queries, how: batches.append([q.draw for q in queries]) or answers(self, queries, how),
    )
    assert sample(args).read_bytes() == expected
    assert batches == [[3, 4, 5], [6]]


# What it refuses.


@pytest.fixture
def no_model(monkeypatch):
    """Fail if the model's weights are read."""
    monkeypatch.setattr("perpo.engines.hf.load_hf", lambda *args, **kwargs: pytest.fail("the model was loaded"))


def refused(capsys, args):
    assert main(words(args)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    error, hint = err.removeprefix("error: ").rsplit("\nhint: ", 1)
    assert hint.strip()
    return error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_candidates": 0}, "--num_candidates must be at least 1, got 0"),
        ({"temperature": -0.5}, "--temperature must be at least 0, got -0.5"),
        ({"top_p": 0.0}, "--top_p must be above 0 and at most 1, got 0.0"),
        ({"seed": -1}, "--seed must be from 0 to 2^64 - 1, got -1"),
        ({"max_new_tokens": 0}, "--max_new_tokens must be at least 1, got 0"),
        ({"batch_size": 0}, "--batch_size must be at least 1, got 0"),
        ({"min_margin": 1.5}, "--min_margin must be from 0 to 1, got 1.5"),
        ({"limit": 0}, "--limit must be at least 1, got 0"),
        ({"temperature": 0.0}, "--temperature 0 gives the same answer every time"),
        ({"temperature": 0.0, "num_candidates": 1, "top_p": 0.5}, "--temperature 0 gives the same answer every time"),
        ({"reward": "iuo"}, "there is no reward 'iuo'"),
        ({"reward": "nowhere_to_be_found:reward"}, "cannot be imported"),
        ({"questions": "/nowhere/questions.jsonl"}, "/nowhere/questions.jsonl"),
        ({"output": "records.csv"}, "--output must end in .jsonl"),
        ({"adapter": "/nowhere"}, "/nowhere does not hold an adapter"),
        ({"model": "/nowhere"}, "there is no model folder /nowhere"),
        ({"truth_frame": "original"}, "--truth_frame has no effect with --reward edit"),
        ({"questions": "tiny", "image_root": "/tmp"}, "the tiny questions come with their images"),
        ({"questions": "tiny-pages", "image_root": "/tmp"}, "the tiny questions come with their images"),
    ],
)
def test_bad_arguments(folder, checkpoint, no_model, capsys, changes, message):
    assert message in refused(capsys, SimpleNamespace(**vars(arguments(folder, checkpoint)) | changes))


def test_a_line_that_is_not_json(folder, checkpoint, no_model, capsys):
    with (folder / "questions.jsonl").open("a") as file:
        file.write('{"image_path": \n')
    assert f"questions.jsonl, line {QUESTIONS + 1}" in refused(capsys, arguments(folder, checkpoint))


def test_missing_and_truncated_images_are_all_listed(folder, checkpoint, no_model, capsys):
    (folder / "1.png").unlink()
    (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:-200])
    error = refused(capsys, arguments(folder, checkpoint))
    assert f"2 of {QUESTIONS} images" in error
    assert "1.png" in error
    assert "4.png" in error


def test_a_truth_that_the_reward_cannot_read(folder, checkpoint, no_model, capsys):
    rows = read_rows(folder)
    rows[2]["answer"] = "on the left"
    write_rows(folder, rows)
    error = refused(capsys, arguments(folder, checkpoint, reward="iou"))
    assert "question 3: its truth 'on the left' holds no box" in error


def test_an_output_that_this_program_did_not_write_is_left_alone(folder, checkpoint, no_model, capsys):
    args = arguments(folder, checkpoint, output=str(folder / "questions.jsonl"))
    before = (folder / "questions.jsonl").read_bytes()
    assert "exists, but there is no journal beside it" in refused(capsys, args)
    assert (folder / "questions.jsonl").read_bytes() == before


@pytest.mark.parametrize("changes", [{"seed": 1}, {"num_candidates": 5}, {"top_p": 0.9}])
def test_the_journal_of_other_settings_is_not_continued(folder, checkpoint, capsys, changes):
    sample(arguments(folder, checkpoint, limit=1))
    before = (folder / "out.jsonl").read_bytes()
    error = refused(capsys, arguments(folder, checkpoint, limit=1, **changes))
    assert "other settings, another model or other data" in error
    assert (folder / "out.jsonl").read_bytes() == before


@dataclasses.dataclass(frozen=True)
class ToldToAnswer(SampleArguments):
    """As if a flag had been added, and nothing else done."""

    new: int = 0


# Changes of every argument that another argument's name, a digest or a row of the journal tells.
OTHER = {
    "stop_on_repetition": True,
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 1,
    "max_new_tokens": 5,
    "num_candidates": 2,
    "dtype": "bfloat16",
}
SERVED = {"engine": "server", "base_url": ["http://127.0.0.1:1/v1"], "dtype": None, "device": None}
OF_SERVERS = {
    "processes",
    "engine",
    "base_url",
    "served_model",
    "concurrency",
    "rps",
    "timeout_s",
    "vllm_args",
}  # see perpo.engines.served and perpo.engines.vllm_flags
OTHER |= {"stop_on_repetition": True}
NO_OTHER = {"estimate": "H100", "processes": 2, "device": None}
NO_OTHER |= {"image_root": ".", "limit": 1, "batch_size": 1, "reward": "iou", "min_margin": 0.5}
NO_OTHER |= {"duplicates": "drop", "output": "other.jsonl", "box_scale": "0-1", "box_order": "yxyx"}
NO_OTHER |= {"box_frame": "padded", "truth_scale": "0-1", "truth_order": "yxyx", "truth_frame": "padded"}
DIGESTS = {"model", "adapter", "questions"}  # other tests change what these lead to


def test_what_a_journal_is_known_by_holds_every_argument_that_is_not_named_as_no_part_of_it(checkpoint):
    def key(**changes):
        args = ToldToAnswer(**{"output": "o.jsonl", "model": str(checkpoint)} | changes)
        info = EngineInfo(name="hf", model=args.model, by_batch=False, dtype=args.dtype)
        asked = QuestionSet(asked=[], image_root=Path(), reward=len, reward_name=args.reward, of_file=[])
        return _journal_key(args, asked, _provenance(args.decoding, info))

    assert {
        field.name for field in dataclasses.fields(ToldToAnswer)
    } == OTHER.keys() | NO_OTHER | DIGESTS | OF_SERVERS | {"new"}
    for name, value in (OTHER | {"new": 1}).items():
        assert key(**{name: value}) != key(), f"{name} reaches no key: an old answer would be taken for a new one"
    for name, value in NO_OTHER.items():
        assert key(**{"reward": "iou"} | {name: value}) == key(), name
    args = ToldToAnswer(**{"output": "o.jsonl", "model": str(checkpoint)} | SERVED)
    asked = QuestionSet(asked=[], image_root=Path(), reward=len, reward_name=args.reward, of_file=[])
    infos = [
        EngineInfo(name="server", model=args.model, by_batch=False, served={"model": name, "version": version})
        for name, version in (("a", "1"), ("a", "2"), ("b", "1"))
    ]
    keys = {_journal_key(args, asked, _provenance(args.decoding, info)) for info in infos}
    assert len(keys | {key()}) == 4
    other = replace(args, base_url=["http://127.0.0.1:2/v1"], concurrency=1, rps=3.0, timeout_s=1.0)
    assert _journal_key(other, asked, _provenance(other.decoding, infos[0])) in keys


def other_template(folder, adapter):
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("USER: ", "HUMAN: "))


def another_strength(folder, adapter):
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"lora_alpha": 3 * config["lora_alpha"]}))


@pytest.mark.parametrize("change", [other_template, another_strength])
def test_what_the_same_weights_are_told_otherwise_is_not_continued(
    folder, checkpoint, adapter, tmp_path, capsys, change
):
    model, adapted = (shutil.copytree(each, tmp_path / each.name) for each in (checkpoint, adapter))
    args = arguments(folder, model, adapter=str(adapted), limit=1)
    before = sample(args).read_bytes()
    assert sample(args).read_bytes() == before
    change(model, adapted)
    assert "other settings, another model or other data" in refused(capsys, args)


def test_another_reward_works_on_the_same_answers(folder, checkpoint, scripted):
    first = records(sample(arguments(folder, checkpoint)))
    scripted(lambda index: pytest.fail("sampled again"))
    second = records(sample(arguments(folder, checkpoint, reward="iou")))
    assert [record["answers_gen"] for record in second] == [record["answers_gen"] for record in first]
    assert {record["reward_name"] for record in second} == {"iou"}
    assert [record["rewards"] for record in second] != [record["rewards"] for record in first]
    # Nor do the truths matter to the answers.
    write_rows(folder, [row | {"answer": "[0, 0, 1, 1]"} for row in read_rows(folder)])
    assert {record["answer"] for record in records(sample(arguments(folder, checkpoint)))} == {"[0, 0, 1, 1]"}


def test_the_questions_of_an_image_that_has_changed_are_asked_again(folder, checkpoint, monkeypatch):
    args = arguments(folder, checkpoint, batch_size=1)
    before = records(sample(args))
    noise = np.random.default_rng(9).integers(0, 255, (80, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "2.png")
    asked = []
    answers = HfEngine.answers
    monkeypatch.setattr(
        HfEngine,
        "answers",
        lambda self, queries, how: asked.extend(q.draw for q in queries) or answers(self, queries, how),
    )
    after = records(sample(args))
    assert asked == [2]
    args = replace(args, output=str(folder / "anew.jsonl"))
    assert records(sample(args)) == after
    assert [k for k in range(QUESTIONS) if before[k] != after[k]] == [2]


def test_the_models_name_is_not_its_identity(folder, checkpoint, scripted):
    sample(arguments(folder, checkpoint))
    shutil.copytree(checkpoint, folder / "copy")
    scripted(lambda index: pytest.fail("sampled again"))
    again = records(sample(arguments(folder, folder / "copy")))
    assert again[0]["sampling"]["model"] == str(folder / "copy")


def test_a_hub_model_is_not_downloaded_before_all_else_is_checked(folder, checkpoint, capsys, monkeypatch):
    """The hub's cache holds config.json alone, and there is no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = folder / "hub" / "models--owner--llava"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copy(checkpoint / "config.json", snapshot)
    for changes, message in (
        ({"questions": str(folder / "none.jsonl")}, "none.jsonl"),
        ({"reward": "iuo"}, "there is no reward 'iuo'"),
        ({"image_root": str(folder / "hub")}, f"{QUESTIONS} of {QUESTIONS} images"),
        ({}, "holds no weights"),
    ):
        assert message in refused(capsys, arguments(folder, "owner/llava", **changes))


def test_a_prompt_that_leaves_no_room_for_an_answer(folder, checkpoint, capsys, scripted):
    rows = read_rows(folder)
    rows[5]["question"] = "where is the " + "small red circle " * 150
    write_rows(folder, rows)
    scripted(lambda index: pytest.fail("sampled before the lengths were checked"))
    error = refused(capsys, arguments(folder, checkpoint))
    assert "exceed the model's context of 512 tokens. The question: 'where is the small red circle small" in error


def test_a_reward_out_of_range(folder, checkpoint, capsys, monkeypatch):
    (folder / "too_high.py").write_text(
        "def reward(prediction, truth, sample):\n    return 2 - (prediction == truth)\n"
    )
    monkeypatch.chdir(folder)
    error = refused(capsys, arguments(folder, checkpoint, reward="too_high:reward"))
    assert "too_high:reward" in error
    assert "2" in error


# What the tiny world adds.


def test_the_tiny_questions_come_with_their_images(tmp_path, checkpoint):
    args = arguments(tmp_path, checkpoint, questions="tiny", reward="iou", limit=3, num_candidates=2)
    run = run_sampling(args)
    for record in read_preferences(run.output):
        assert (run.image_root / record.image_path).is_file()
        assert record.question.startswith("Please provide the bounding box")
    assert run.summary.questions == 3
