"""The judged benchmarks as their authors published them: text files, and beside them the images.

The images are in a folder `images`, or in a zip file that holds one. The same layout lies in a folder of one's own and
in the authors' repositories on the hub. A row that is read here has the columns that its benchmark asks for, with the
image as a path, or as bytes where it is zipped.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpo.data.rows import read_rows
from perpo.errors import PerpoError
from perpo.prepare.hub.rows import hub_folder
from perpo.prepare.published_counts import LLAVA_BENCH_QUESTIONS, MMHAL_QUESTIONS

_IMAGES = "images"
_LARGEST_IMAGE = 64 << 20


@dataclass(frozen=True)
class Published:
    """A published benchmark.

    Attributes:
        repository: Its authors' data set on the hub.
        folders: What its folder may be called within the folder that --data names, which may also be it.
        files: Its text files; for each, the names that it goes by.
        questions: How many it has.
        read: Its rows, by its text files and the folder of its images.
        zipped: A zip file that may hold the folder of its images.
    """

    repository: str
    folders: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]
    questions: int
    read: Callable[[list[Path], Path], list[dict[str, Any]]]
    zipped: str | None = None

    def find(self, data: Path) -> list[Path] | None:
        """Return its text files in a folder of data, or None where it is not there."""
        for folder in (data, *(data / name for name in self.folders)):
            files = [next((folder / name for name in names if (folder / name).is_file()), None) for names in self.files]
            if None not in files:
                return [file for file in files if file is not None]
        return None

    def rows(self, files: list[Path]) -> list[dict[str, Any]]:
        """Return its rows.

        Raises:
            PerpoError: Files that do not belong together, or images that are not there.
        """
        images = files[0].parent / _IMAGES
        rows = self.read(files, images)
        archive = None if self.zipped is None else files[0].parent / self.zipped
        absent = [row for row in rows if not Path(row["image"]["path"]).is_file()]
        if absent and archive is not None and archive.is_file():
            held = _zipped_images(archive, {row["file_name"] for row in absent})
            for row in absent:
                row["image"] |= {"bytes": held.get(row["file_name"])}
            absent = [row for row in absent if row["image"]["bytes"] is None]
        if absent:
            count, where = len({row["file_name"] for row in absent}), f"{images} or {self.zipped}"
            raise PerpoError(
                f"{count} images are missing in {where if self.zipped else images}, such as {absent[0]['file_name']}",
                f"fetch {_IMAGES} of {self.repository} from the hub" + (f", or {self.zipped}" if self.zipped else ""),
            )
        return rows

    def get(self, data: str) -> tuple[list[Path], str | None]:
        """Return its text files, and the commit that they are of on the hub.

        Args:
            data: A folder, or "hub" to fetch them with their images.

        Raises:
            PerpoError: They are not there, or not all; see `perpo.prepare.hub.rows.hub_folder`.
        """
        folder, commit = Path(data), None
        if data == "hub":
            patterns = [*(name for names in self.files for name in names), f"{_IMAGES}/*"]
            patterns += [self.zipped] if self.zipped else []
            folder, commit = hub_folder(self.repository, patterns)
        files = self.find(folder)
        if files is None:
            wanted = ", ".join(" or ".join(names) for names in self.files)
            raise PerpoError(f"{folder} does not hold {wanted}", f"fetch them from {self.repository} on the hub")
        return files, commit

    def note(self, count: int) -> str | None:
        """Return what is to be said of another number of questions than the published one."""
        return None if count == self.questions else f"{count} questions, not the published {self.questions}"

    def versioned(self, files: list[Path]) -> list[Path]:
        """Return all that its rows are read from."""
        folder = files[0].parent
        archive = [folder / self.zipped] if self.zipped and (folder / self.zipped).is_file() else []
        return [*files, *archive, *sorted((folder / _IMAGES).glob("*"))]


def _zipped_images(archive: Path, names: set[str]) -> dict[str, bytes]:
    """Those of the named images that stand in a folder `images` of a zip file. Nothing is unpacked to the disk.

    Raises:
        PerpoError: It is no zip file, or an image in it is damaged, encrypted or too large.
    """
    held = {}
    try:
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                folder, _, name = member.filename.rpartition("/")
                if name not in names or folder.rpartition("/")[2] != _IMAGES:
                    continue
                with file.open(member) as stream:
                    content = stream.read(_LARGEST_IMAGE + 1)  # what its header says of its size may be wrong
                if len(content) > _LARGEST_IMAGE:
                    raise PerpoError(
                        f"{archive}: {member.filename!r:.120} is larger than {_LARGEST_IMAGE >> 20} MiB",
                        "give the published file",
                    )
                held[name] = content
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise PerpoError(f"{archive} cannot be read: {error}", "fetch it again from the hub") from error
    return held


def _field(row: Any, name: str, where: Path) -> Any:
    if not isinstance(row, dict) or name not in row:
        raise PerpoError(f"{where}: a row lacks {name}", "give the published file")
    return row[name]


def _llava_bench(files: list[Path], images: Path) -> list[dict[str, Any]]:
    questions, contexts, answers = files
    captions = {_field(row, "image", contexts): _field(row, "caption", contexts) for row in read_rows(contexts)}
    references = {str(_field(row, "question_id", answers)): _field(row, "text", answers) for row in read_rows(answers)}
    rows = []
    for row in read_rows(questions):
        image, number = _field(row, "image", questions), str(_field(row, "question_id", questions))
        for file, known, name in ((contexts, captions, image), (answers, references, number)):
            if name not in known:
                raise PerpoError(f"{file} has nothing for question {number} about {image}", "give the published files")
        rows.append(
            {
                "question_id": number,
                "image": {"bytes": None, "path": str(images / image)},
                "question": _field(row, "text", questions),
                "category": _field(row, "category", questions),
                "caption": captions[image],
                "reference": references[number],
                "file_name": image,
            }
        )
    return rows


def _mmhal(files: list[Path], images: Path) -> list[dict[str, Any]]:
    (file,) = files
    rows = []
    for number, row in enumerate(read_rows(file)):
        name = str(_field(row, "image_src", file)).rpartition("/")[2]
        rows.append(
            {
                "question_id": str(number),
                "image": {"bytes": None, "path": str(images / name)},
                "file_name": name,
                **{field: _field(row, field, file) for field in ("question", "image_content", "gt_answer")},
                "question_type": _field(row, "question_type", file),
            }
        )
    return rows


PUBLISHED = {
    "llava_bench_wild": Published(
        "liuhaotian/llava-bench-in-the-wild",
        ("llava_bench_wild", "llava-bench-in-the-wild"),
        (("questions.jsonl",), ("context.jsonl",), ("answers_gpt4.jsonl",)),
        LLAVA_BENCH_QUESTIONS,
        _llava_bench,
    ),
    "mmhal_bench": Published(
        "Shengcao1006/MMHal-Bench",
        ("mmhal", "mmhal_bench", "MMHal-Bench"),
        (("response_template.json", "mmhal-bench_answer_template.json"),),
        MMHAL_QUESTIONS,
        _mmhal,
        zipped="test_data.zip",
    ),
}
"""By the name of the task."""
