"""Stand-in rows in the columns of lmms-eval's tasks, and a task of one's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perpo.records.store import Run, read_run
from perpo_eval.arguments import EvalArguments
from perpo_eval.evaluate.run import evaluate, write_questions
from tests.support.evaluation import jpeg

PICTURES = 60
CATEGORIES = ("existence", "count", "color", "OCR", "code_reasoning")
TYPES = ("Regular Text Recognition", "Scene Text-centric VQA", "Doc-oriented VQA")

OWN_TASK = """
task: my_task
dataset_path: somebody/my_task
test_split: test
output_type: generate_until
doc_to_visual: !function my_functions.picture
doc_to_text: "{{question}} One word."
doc_to_target: answer
generation_kwargs: {max_new_tokens: 8, until: ["\\n"]}
process_results: !function my_functions.score
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
OWN_FUNCTIONS = """
def picture(doc):
    return [doc["image"].convert("RGB")]


def score(doc, results):
    return {"acc": float(doc["answer"] in results[0].lower())}
"""


def _rows() -> dict[str, list[dict]]:
    pictures = [{"bytes": jpeg(number, (40 + number % 7, 36)), "path": f"{number}.jpg"} for number in range(PICTURES)]
    asked = [
        {"image": image, "question": f"Is there a {thing} in the picture?", "answer": answer, "number": number}
        for number, image in enumerate(pictures)
        for thing, answer in (("red ring", "yes"), ("blue box", "no"))
    ]
    image = {number: each["image"] for number, each in enumerate(asked)}
    return {
        "mme": [
            {
                "question_id": f"{row['number']}.png",
                "image": row["image"],
                "question": f"{row['question']} Please answer yes or no.",
                "answer": row["answer"].title(),
                "category": CATEGORIES[row["number"] % len(CATEGORIES)],
            }
            for row in asked
        ],
        "pope": [
            {
                "id": str(n),
                "question_id": str(n),
                "question": row["question"],
                "answer": row["answer"],
                "image_source": f"COCO_{row['number']}",
                "image": row["image"],
                "category": "random",
            }
            for n, row in enumerate(asked)
        ],
        "ocrbench": [
            {
                "dataset": "IIIT5K",
                "question": row["question"],
                "question_type": TYPES[n % 3],
                "answer": [row["answer"]],
                "image": image[n],
            }
            for n, row in enumerate(asked)
        ],
        "my_task": [{name: row[name] for name in ("image", "question", "answer")} for row in asked],
    }


@pytest.fixture(scope="session")
def rows() -> dict[str, list[dict]]:
    """Rows by task: two questions about each of 60 pictures, the first one's answer yes."""
    return _rows()


@pytest.fixture(scope="session")
def data(rows, tmp_path_factory) -> Path:
    """A folder of them, which stands in for the hub."""
    folder = tmp_path_factory.mktemp("stand-in")
    for task, held in rows.items():
        pq.write_table(pa.Table.from_pylist(held), folder / f"{task}.parquet")
    return folder


@pytest.fixture(scope="session")
def own(tmp_path_factory) -> Path:
    """A folder with a task file of one's own."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_task.yaml").write_text(OWN_TASK)
    (folder / "my_functions.py").write_text(OWN_FUNCTIONS)
    return folder


@pytest.fixture(scope="session")
def said(data, own) -> Callable[..., Run]:
    """Stores a run of answers that a function of the row's place gives."""

    def store(tasks: list[str], answer: Callable[[str, int], str], output: Path, name: str, **more: object) -> Run:
        shared = {"tasks": tasks, "data": str(data), "include_path": str(own)} | more
        file = output / f"{name}-questions.jsonl"
        write_questions(EvalArguments(questions=file, **shared))
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        told = [
            {"sample_key": line["sample_key"], "response": answer(line["task"], int(line["source_id"]))}
            for line in lines
        ]
        answers = output / f"{name}.jsonl"
        answers.write_text("".join(f"{json.dumps(line)}\n" for line in told))
        return read_run(evaluate(EvalArguments(responses=answers, name=name, output=str(output / "results"), **shared)))

    return store


def good(task: str, place: int) -> str:
    """An answer that is right but for every seventh, and for one that is neither yes nor no."""
    right = "no" if place % 2 else "yes"
    wrong = {"yes": "no", "no": "yes"}[right]
    return "perhaps" if place == 9 else wrong if place % 7 == 3 else right


def bad(task: str, place: int) -> str:
    """An answer that is wrong more often."""
    return good(task, place) if place % 3 else "no"


@pytest.fixture(scope="session")
def pair(said, tmp_path_factory) -> list[Run]:
    """A better run and a worse one of all four tasks."""
    folder = tmp_path_factory.mktemp("pair")
    tasks = ["mme,pope", "ocrbench", "my_task"]
    return [said(tasks, answer, folder, name) for answer, name in ((good, "good"), (bad, "bad"))]
