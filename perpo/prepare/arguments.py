"""The arguments of perpo-data's commands."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from perpo.boxes import Order, Scale
from perpo.common.arguments import arg
from perpo.common.numbers import AboveZero, Count, CountOrZero, Range, Share, ZeroOrMore, check_numbers
from perpo.data.placeholders import without_image
from perpo.errors import PerpoError
from perpo.prepare.published_counts import FoxLanguage, ReferSet

if TYPE_CHECKING:
    from perpo.prepare.pdf.document import PageSettings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_LONGEST_SIDE = 1400
_OVERWRITE = "replace files that exist"
_LANGUAGE = "language of the text (default: not stated)"
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

    allow_other_counts: bool = arg(False, "accept numbers of rows that differ from the published ones")


@dataclass(kw_only=True)
class ReferArguments(CountingArguments):
    """Arguments of perpo-data refer."""

    name_of_command: ClassVar[str] = "refer"

    root: Path = arg(help="folder with refcoco, refcoco+ and refcocog, each with its refs(...).p and instances.json")
    images: Path = arg(help="folder of COCO's train2014 images")
    datasets: list[ReferSet] = arg([], "refcoco, refcoco+ and refcocog, or some of them (default: all)")
    splits: list[str] = arg([], "train, val, testA, testB and test, or some of them (default: all)")
    keep_out_google: bool = arg(
        False,
        "also keep the val and test images of Google's partition out of training files. The hub's val splits "
        "hold these images. They are about 43% of RefCOCO's 19,994 images, and about half of the training refs "
        "go with them",
    )
    link_images: bool = arg(
        False, "store absolute paths of images instead of the images; training files are large otherwise"
    )


@dataclass(kw_only=True)
class QuestionsArguments(CommandArguments):
    """Arguments of perpo-data questions."""

    name_of_command: ClassVar[str] = "questions"

    rows: list[Path] = arg(help="training files that perpo-data refer wrote, such as refcoco_train.parquet")
    images: Path = arg(help="folder of their images")
    family: str | None = arg(
        None, "model_type of the model to ask, such as llava; it sets the prompt and how boxes are written"
    )
    model: str | None = arg(
        None,
        "instead of --family: the model itself, a folder or hub id. Needed where boxes count pixels of resized "
        "pictures, as these depend on the model's bounds of resizing",
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

    root: Path | None = arg(None, "the folder focus_benchmark_test of Fox")
    tsv: Path | None = arg(None, "instead of --root: the file fox_benchmark_data.tsv of EasonFan/fox_benchmark.tsv")
    languages: list[FoxLanguage] = arg([], "en, cn or both (default: both)")

    def __post_init__(self) -> None:
        """Refuse no source, and two.

        Raises:
            PerpoError: As said.
        """
        if (self.root is None) == (self.tsv is None):
            raise PerpoError("Fox is read from one place", "give --root or --tsv, and not both")


@dataclass(kw_only=True)
class OcrbenchArguments(WritingArguments):
    """Arguments of perpo-data ocrbench."""

    name_of_command: ClassVar[str] = "ocrbench"

    data: str = arg("hub", "hub, or a folder: OCRBench_v2.json with its images, or the Parquet files of the hub")
    languages: list[FoxLanguage] = arg([], "en, cn or both (default: both)")
    revision: str | None = arg(None, "commit or tag on the hub (default: the newest, which is recorded)")

    def __post_init__(self) -> None:
        """Refuse a revision of a folder.

        Raises:
            PerpoError: As said.
        """
        if self.revision is not None and self.data != "hub":
            raise PerpoError("--revision can be used only with --data hub", "leave it out")


@dataclass(kw_only=True)
class OlmocrArguments(WritingArguments):
    """Arguments of perpo-data olmocr."""

    name_of_command: ClassVar[str] = "olmocr"

    data: str = arg("hub", "hub, or the folder bench_data of the benchmark: files of tests, and PDFs in pdfs")
    longest_side: Annotated[int, Range(64, 10_000)] = arg(
        2048, "pixels of the longer side of a page's picture (default: as the official program)"
    )
    revision: str | None = arg(None, "commit or tag on the hub (default: the newest, which is recorded)")

    def __post_init__(self) -> None:
        """Refuse a revision of a folder, and pictures of a size that is none.

        Raises:
            PerpoError: As said.
        """
        check_numbers(self)
        if self.revision is not None and self.data != "hub":
            raise PerpoError("--revision can be used only with --data hub", "leave it out")


@dataclass(kw_only=True)
class OmnidocbenchArguments(CountingArguments):
    """Arguments of perpo-data omnidocbench."""

    name_of_command: ClassVar[str] = "omnidocbench"

    data: str = arg("hub", "hub, or a folder: OmniDocBench.json, and the pages' pictures in images")
    revision: str | None = arg(None, "commit or tag on the hub (default: the newest, which is recorded)")

    def __post_init__(self) -> None:
        """Refuse a revision of a folder.

        Raises:
            PerpoError: As said.
        """
        if self.revision is not None and self.data != "hub":
            raise PerpoError("--revision can be used only with --data hub", "leave it out")


@dataclass(kw_only=True)
class PagesArguments(WritingArguments):
    """Arguments of perpo-data pages."""

    name_of_command: ClassVar[str] = "pages"

    folder: Path = arg(help="folder of page images, each with its text in a .txt file of the same name")
    name: str = arg(help="name of the pages; the file is pages_NAME.parquet")
    language: Language = arg("", _LANGUAGE)

    def check(self) -> None:
        """Refuse a name that can't be one.

        Raises:
            PerpoError: It holds other characters than letters, digits, dot, plus and hyphen.
        """
        check_name(self.name)


@dataclass(kw_only=True)
class PdfArguments(WritingArguments):
    """Arguments of perpo-data pdf."""

    name_of_command: ClassVar[str] = "pdf"

    pdf: Path = arg(help="folder of PDF files with a text layer; folders in it are looked into")
    name: str = arg("pdf", "name of the pages for evaluation; the file is pages_NAME.parquet")
    language: Language = arg("", _LANGUAGE)
    question: str = arg("", "what is asked about each page (default: what perpo-eval asks about pages)")
    longest_side: Count | None = arg(None, "pixels of a picture's longer side (default: 1400, without --dpi)")
    dpi: AboveZero | None = arg(None, "instead: pixels an inch of the page")
    max_pixels: Count = arg(20_000_000, "pages of more pixels are left out")
    image_format: Literal["png", "jpeg"] = arg("png", "format of the pictures; jpeg has quality 90")
    line_ends: Literal["keep", "join"] = arg(
        "keep", "keep: the text has the lines of the page, with their hyphens. join: a paragraph is a line"
    )
    min_characters: Count = arg(30, "pages of fewer characters are left out; spaces don't count")
    max_characters: Count = arg(10_000, "pages of more characters are left out")
    min_height: ZeroOrMore = arg(6.0, "pages whose characters (the middle one) are lower in pixels are left out")
    max_pages: Count = arg(5_000, "documents of more pages are left out")
    page_seconds: AboveZero = arg(20.0, "a document is left out if opening it, or a page of it, takes longer")
    eval_share: Share = arg(0.1, "share of the documents whose pages are for evaluation")
    seed: CountOrZero = arg(0, "another one shares out the documents in another way")
    workers: Count | None = arg(None, "processes that read documents; the result is the same (default: one a core)")

    def check(self) -> None:
        """Refuse a name that can't be one, and flags that contradict each other.

        Raises:
            PerpoError: As said.
        """
        check_name(self.name)
        without_image(self.question)  # refuses what no question may hold
        if self.dpi is not None and self.longest_side is not None:
            raise PerpoError("expected --longest_side or --dpi, found both", "leave one out")
        if self.min_characters > self.max_characters:
            raise PerpoError("--min_characters is above --max_characters", "make it smaller")

    def command(self) -> str:
        """Return the command line as for others, and without --workers: the result does not depend on it."""
        return super(PdfArguments, dataclasses.replace(self, workers=None)).command()

    def number_of_workers(self) -> int:
        """Return how many processes read documents."""
        return self.workers or (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )

    def page_settings(self) -> PageSettings:
        """Return what a page's picture and text depend on; loads the renderer."""
        from perpo.prepare.pdf.checks import Limits
        from perpo.prepare.pdf.document import PageSettings

        return PageSettings(
            longest_side=self.longest_side or (None if self.dpi else _LONGEST_SIDE),
            dpi=self.dpi,
            max_pixels=self.max_pixels,
            max_pages=self.max_pages,
            image_format=self.image_format,
            line_ends=self.line_ends,
            limits=Limits(self.min_characters, self.max_characters, self.min_height),
        )


@dataclass(kw_only=True)
class JsonlArguments(WritingArguments):
    """Arguments of perpo-data jsonl."""

    name_of_command: ClassVar[str] = "jsonl"

    file: Path = arg(help="JSON, CSV or Parquet with image, question (or expression) and answer")
    kind: Literal["pages", "yesno", "grounding"] = arg(
        help="what the answer is. pages: the text of a page. yesno: yes or no. grounding: the box (four numbers) of "
        "what the question asks for or the expression names"
    )
    name: str = arg(help="name of the rows; the file is pages_NAME, yesno_NAME or boxes_NAME.parquet")
    image_root: Path | None = arg(None, "folder that image paths start from (default: the folder of the file)")
    image_field: str = arg("image", "field with the path of the image")
    question_field: str = arg("question", "field with the question, which is asked as it is; not needed for pages")
    expression_field: str = arg(
        "expression", "grounding: field with what to look for; the prompt of the model's family asks for it"
    )
    answer_field: str = arg("answer", "field with the true answer")
    language: Language = arg("", _LANGUAGE)
    box_scale: Scale | None = arg(None, "grounding: unit of the numbers in boxes (default: pixels of the image)")
    box_order: Order | None = arg(
        None, "grounding: order of the four numbers; w and h are width and height (default: xyxy)"
    )

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
                raise PerpoError(f"--{flag} has no effect with --kind {self.kind}", "leave it out")


@dataclass(kw_only=True)
class HubArguments(CountingArguments):
    """Arguments of perpo-data hub."""

    name_of_command: ClassVar[str] = "hub"

    tasks: list[str] = arg([], "refcoco_val, ..., refcocog_test, coco_pope_random, ... (default: all)")
    revision: str | None = arg(
        None, "commit or tag of the repository; all tasks must then be in one repository (default: the pinned commit)"
    )
    refer_root: Path | None = arg(
        None, "folder in the layout of refer; separates the papers' rows of refcoco_val and refcocog_val from Google's"
    )


@dataclass(kw_only=True)
class OverlapArguments(CommandArguments):
    """Arguments of perpo-data overlap."""

    name_of_command: ClassVar[str] = "overlap"

    train: Path = arg(help="preference records or questions (JSON, JSONL or Parquet)")
    against: list[Path] = arg(help="files of evaluations: Parquet files, folders of them, or folders of runs")
    image_root: Path | None = arg(None, "folder that image paths start from (default: the folder of the training file)")
    output: Path | None = arg(
        None, "file to write: the training data without the rows whose images are in an evaluation"
    )
    overwrite: bool = arg(False, _OVERWRITE)


@dataclass(kw_only=True)
class WordnetArguments(CommandArguments):
    """Arguments of perpo-data wordnet."""

    name_of_command: ClassVar[str] = "wordnet"

    target: Path | None = arg(None, "folder for WordNet (default: where NLTK looks for it)")


def check_name(name: str) -> None:
    """Refuse what can't be a part of a file's and a task's name.

    Raises:
        PerpoError: It holds other characters than letters, digits, dot, plus and hyphen.
    """
    if not _NAME.fullmatch(name):
        raise PerpoError(f"--name '{name}' cannot be part of a file name", "use letters, digits and hyphens")
