"""The arguments of perpo-data's commands."""

from __future__ import annotations

import dataclasses
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from perpo.boxes import Order, Scale
from perpo.common.arguments import arg
from perpo.errors import PerpoError
from perpo.prepare.published_counts import FoxLanguage, ReferSet

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_OVERWRITE = "replace files that exist"
_LANGUAGE = "language of the text; by default it isn't said"
Language = Literal["en", "zh", ""]


@dataclass(kw_only=True)
class CommandArguments:
    """The arguments that all commands have in common."""

    name_of_command: ClassVar[str]

    def command(self) -> str:
        """Return the command line, without paths and what is as by default: it goes into what is written."""
        words = ["perpo-data", self.name_of_command]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            values = value if isinstance(value, list) else [value]
            is_path = any(isinstance(one, Path) for one in values)
            if is_path or value in ([], None, False, field.default) or field.name == "overwrite":
                continue
            words += [f"--{field.name}"] if value is True else [f"--{field.name}", *map(str, values)]
        return shlex.join(words)


@dataclass(kw_only=True)
class WritingArguments(CommandArguments):
    """Of the commands that write rows."""

    output: Path = arg(help="folder for the Parquet files")
    overwrite: bool = arg(False, _OVERWRITE)


@dataclass(kw_only=True)
class CountingArguments(WritingArguments):
    """Of the commands that know how many rows there should be."""

    allow_other_counts: bool = arg(False, "accept other counts of rows than the published ones")


@dataclass(kw_only=True)
class ReferArguments(CountingArguments):
    """Arguments of perpo-data refer."""

    name_of_command: ClassVar[str] = "refer"

    root: Path = arg(help="folder with refcoco, refcoco+ and refcocog, each with its refs(...).p and instances.json")
    images: Path = arg(help="folder of COCO's train2014 images")
    datasets: list[ReferSet] = arg([], "refcoco, refcoco+ and refcocog, or some of them; all by default")
    splits: list[str] = arg([], "train, val, testA, testB and test, or some of them; all by default")
    keep_out_google: bool = arg(
        False,
        "keep the val and test images of Google's partition out of training files too: the hub's val splits hold them, "
        "but they are about 43% of RefCOCO's 19,994 images, and about half of the training refs go with them",
    )
    link_images: bool = arg(False, "store the images' absolute paths instead of the images (training files are large)")


@dataclass(kw_only=True)
class QuestionsArguments(CommandArguments):
    """Arguments of perpo-data questions."""

    name_of_command: ClassVar[str] = "questions"

    rows: list[Path] = arg(help="training files that perpo-data refer wrote, such as refcoco_train.parquet")
    images: Path = arg(help="folder of their images")
    family: str | None = arg(
        None, "model_type of the model that is asked, such as llava: its prompt and way to write boxes"
    )
    model: str | None = arg(
        None,
        "the model itself instead, a directory or hub id: where boxes count pixels of resized pictures, they "
        "depend on its own bounds of resizing",
    )
    output: Path = arg(help="questions to write (.jsonl)")
    overwrite: bool = arg(False, _OVERWRITE)


@dataclass(kw_only=True)
class PopeArguments(CountingArguments):
    """Arguments of perpo-data pope."""

    name_of_command: ClassVar[str] = "pope"

    questions: list[Path] = arg(help="coco_pope_random.json, ..._popular.json, ..._adversarial.json, or their folder")
    images: Path = arg(help="folder of COCO's val2014 images")


@dataclass(kw_only=True)
class FoxArguments(CountingArguments):
    """Arguments of perpo-data fox."""

    name_of_command: ClassVar[str] = "fox"

    root: Path = arg(help="the folder focus_benchmark_test of Fox")
    languages: list[FoxLanguage] = arg([], "en, cn or both; both by default")


@dataclass(kw_only=True)
class PagesArguments(WritingArguments):
    """Arguments of perpo-data pages."""

    name_of_command: ClassVar[str] = "pages"

    folder: Path = arg(help="folder of page images, each with its text in a .txt file of the same name")
    name: str = arg(help="what the pages are called: pages_NAME.parquet is written")
    language: Language = arg("", _LANGUAGE)

    def check(self) -> None:
        """Refuse a name that can't be one.

        Raises:
            PerpoError: It holds other characters than letters, digits, dot, plus and hyphen.
        """
        check_name(self.name)


@dataclass(kw_only=True)
class JsonlArguments(WritingArguments):
    """Arguments of perpo-data jsonl."""

    name_of_command: ClassVar[str] = "jsonl"

    file: Path = arg(help="JSON, CSV or Parquet with image, question (or expression) and answer")
    kind: Literal["pages", "yesno", "grounding"] = arg(
        help="pages: the answer is a page's text; yesno: it is yes or no; grounding: it is the box (four numbers) of "
        "what the question asks for, or the expression names"
    )
    name: str = arg(help="what the rows are called: pages_NAME, yesno_NAME or boxes_NAME.parquet is written")
    image_root: Path | None = arg(None, "folder that image paths start from; by default that of the file")
    image_field: str = arg("image", "name of the field with the image's path")
    question_field: str = arg("question", "name of the field with the question, asked as it is; pages need none")
    expression_field: str = arg(
        "expression", "grounding: name of the field with what is looked for, which the family's prompt asks for"
    )
    answer_field: str = arg("answer", "name of the field with the truth")
    language: Language = arg("", _LANGUAGE)
    box_scale: Scale | None = arg(None, "grounding: what boxes' numbers count (default: pixels of the image)")
    box_order: Order | None = arg(None, "grounding: which number is which, w and h a width and height (default: xyxy)")

    def check(self) -> None:
        """Refuse a name that can't be one, and flags that the kind has no use for.

        Raises:
            PerpoError: As said.
        """
        check_name(self.name)
        given: dict[str, str | None] = {"language": self.language} if self.kind != "pages" else {}
        if self.kind != "grounding":
            given |= {"box_scale": self.box_scale, "box_order": self.box_order}
            given |= {"expression_field": self.expression_field if self.expression_field != "expression" else None}
        for flag, value in given.items():
            if value:
                raise PerpoError(f"--kind {self.kind} has no use for --{flag}", "leave it out")


@dataclass(kw_only=True)
class HubArguments(CountingArguments):
    """Arguments of perpo-data hub."""

    name_of_command: ClassVar[str] = "hub"

    tasks: list[str] = arg([], "refcoco_val, ..., refcocog_test, coco_pope_random, ...; all by default")
    revision: str | None = arg(None, "commit or tag of the one repository that the tasks are in (default: pinned)")
    refer_root: Path | None = arg(
        None, "folder in the layout of refer: tells the papers' rows of refcoco_val and refcocog_val from Google's"
    )


@dataclass(kw_only=True)
class OverlapArguments(CommandArguments):
    """Arguments of perpo-data overlap."""

    name_of_command: ClassVar[str] = "overlap"

    train: Path = arg(help="preference records or questions (JSON, JSONL or Parquet)")
    against: list[Path] = arg(help="Parquet files, folders of them, or folders of runs")
    image_root: Path | None = arg(None, "folder that image paths start from; by default that of the training file")
    output: Path | None = arg(None, "write the training file without the rows whose images are in an evaluation")
    overwrite: bool = arg(False, _OVERWRITE)


@dataclass(kw_only=True)
class WordnetArguments(CommandArguments):
    """Arguments of perpo-data wordnet."""

    name_of_command: ClassVar[str] = "wordnet"

    target: Path | None = arg(None, "folder to keep WordNet in; by default where NLTK looks for it")


def check_name(name: str) -> None:
    """Refuse what can't be a part of a file's and a task's name.

    Raises:
        PerpoError: It holds other characters than letters, digits, dot, plus and hyphen.
    """
    if not _NAME.fullmatch(name):
        raise PerpoError(f"--name '{name}' can't be a part of a file's name", "use letters, digits and hyphens")
