"""Pages of a folder: a picture and a text file of the same name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perpo.data.images import listing
from perpo.errors import PerpoError
from perpo.prepare.pages.rows import OcrPage, page_rows, page_text, told_counts
from perpo.prepare.parquet import RowFile, Written, check_image_files, check_outputs, write_rows

if TYPE_CHECKING:
    from perpo.prepare.arguments import PagesArguments

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def build_folder(args: PagesArguments) -> list[Written]:
    """Write pages_<name>.parquet from a folder.

    Raises:
        PerpoError: An image without a text or a text without an image, or files that can't be read.
    """
    args.check()
    output = args.output / f"pages_{args.name}.parquet"
    check_outputs([output], args.overwrite)
    pages = read_folder(args.folder)
    check_image_files((page.image for page in pages), "correct them, or move them and their texts out of the folder")
    file = RowFile(
        path=output,
        kind="pages",
        source="folder",
        split=args.name,
        command=args.command(),
        counts=told_counts(pages),
    )
    return [write_rows(file, page_rows(pages, args.language))]


def read_folder(folder: Path) -> list[OcrPage]:
    """Read images and texts of the same stem, by name; folders in it are not looked into.

    Raises:
        PerpoError: No folder, no pages, an image or text without the other, or two images for one text.
    """
    if not folder.is_dir():
        raise PerpoError(f"expected a folder of pages at {folder}, found no folder", "check --folder")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in _SUFFIXES]
    texts = {path.stem: path for path in files if path.suffix.lower() == ".txt"}
    by_stem = {path.stem: path for path in images}
    if len(by_stem) < len(images):
        twice = sorted(path.name for path in images if by_stem[path.stem] != path)
        raise PerpoError(f"{folder} has several images of the same name: {', '.join(twice[:10])}", "keep one of each")
    no_text = [path.name for path in images if path.stem not in texts]
    no_image = [path.name for stem, path in texts.items() if stem not in by_stem]
    if no_text or no_image:
        unpaired = f"{len(no_text)} images without a text and {len(no_image)} texts without an image"
        raise PerpoError(
            f"{folder} has {unpaired}:\n  {listing(no_text + no_image)}", "each page needs NAME.png and NAME.txt"
        )
    if not images:
        raise PerpoError(f"{folder} holds no pages", "each page needs an image and a .txt file of the same name")
    pages = [OcrPage(path, "", page_text(texts[path.stem])) for path in images]
    if empty := [page.image.name for page in pages if not page.text.strip()]:
        raise PerpoError(
            f"{len(empty)} of {len(pages)} pages have an empty text and cannot be scored:\n  {listing(empty)}",
            "move them out of the folder",
        )
    return pages
