"""perpo-data overlap: read the images of training data and of evaluations, compare, and drop what is in both."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.data import image_root_of
from perpo.data.embedded import image_in_text
from perpo.data.images import listing, short_name
from perpo.data.row_formats import with_picture
from perpo.data.rows import Row, open_parquet, parquet_batches, read_rows
from perpo.errors import PerpoError, placed
from perpo.prepare.overlap.images import ImageIdentity, ImageIndex, Match, count_reasons, find_matches, sha256_of
from perpo.prepare.parquet import METADATA_KEY, check_outputs, say, whole_file
from perpo.records.store import RUN_FILE, read_run

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from perpo.prepare.arguments import OverlapArguments

_TRAIN = "train"
_NAME_COLUMNS = ("file_name", "image_source")


def check_overlap(args: OverlapArguments) -> None:
    """Print what training data and evaluations share, and write the training data without it if asked to.

    Raises:
        PerpoError: They share images and no `--output` is given; or files can't be read.
    """
    if args.output is not None:
        _check_output(args.train, args.output, args.overwrite)
    root = args.image_root if args.image_root is not None else image_root_of(args.train)
    if not args.against:
        raise PerpoError("--against is empty", "give Parquet files, folders of them, or folders of runs")
    index = ImageIndex()
    own = [path for path in (args.train, args.output) if path is not None and path.exists()]
    skipped = [skip for path in args.against for skip in _add_evaluation(path, own, index)]
    if skipped:
        say(f"{len(skipped)} files of --against are training data and are not compared\n  {listing(skipped)}")
    if not index.known:
        raise PerpoError("--against holds no images of evaluations", "give what perpo-data or perpo-eval wrote")
    images = _training_images(args.train, root)
    matches = find_matches(dict.fromkeys(images), index)
    leaks = [image in matches for image in images]
    print(_summary(args, images, index, matches, sum(leaks)))
    if args.output is not None:
        _write_without(args.train, leaks, args.output)
        print(f"{args.output}: {leaks.count(False)} of {len(leaks)} rows")
    elif matches:
        raise PerpoError(
            f"{sum(leaks)} of {len(leaks)} rows of {args.train} show an image that an evaluation asks about",
            "give --output FILE to write the training data without these rows",
        )


def _check_output(train: Path, output: Path, overwrite: bool) -> None:
    expected = ".parquet" if train.suffix == ".parquet" else ".jsonl"
    if output.suffix != expected:
        raise PerpoError(f"--output is {output}, but {train} is written as {expected}", f"name it ...{expected}")
    if output.exists() and output.samefile(train):
        raise PerpoError(f"--output is the training file {train} itself", "give another name")
    check_outputs([output], overwrite)


def _summary(
    args: OverlapArguments,
    images: Sequence[ImageIdentity],
    index: ImageIndex,
    matches: Mapping[ImageIdentity, Match],
    rows: int,
) -> str:
    reasons = ", ".join(f"{number} by {reason}" for reason, number in count_reasons(matches).items())
    lines = [
        f"{args.train}: {len(images)} rows, {len(set(images))} images",
        f"evaluations: {len(index.known)} images",
        f"in both: {len(matches)} images ({reasons}), {rows} rows",
    ]
    if matches:
        lines.append("  " + listing([f"{match.image} = {match.evaluation}" for match in matches.values()]))
    if index.unknown:
        say(
            f"{len(index.unknown)} images of evaluations have only a name, such as {min(index.unknown)}, and are "
            "not compared"
        )
    return "\n".join(lines)


def _training_images(path: Path, root: Path) -> list[ImageIdentity]:
    """The image of each row.

    Raises:
        PerpoError: A row names no image, or images are missing: all are counted and ten are named.
    """
    images: list[ImageIdentity] = []
    known: dict[str, ImageIdentity] = {}
    missing: list[str] = []
    for number, row in enumerate(read_rows(path), start=1):
        image = _image_of(row, f"{path}, row {number}")
        if isinstance(image, ImageIdentity):
            images.append(image)
            continue
        if image not in known:
            known[image] = ImageIdentity(image, _file_sha256(root / image))
            if known[image].sha256 is None:
                missing.append(image)
        images.append(known[image])
    if missing:
        raise PerpoError(
            f"{len(missing)} of {len(known)} images of {path} cannot be read:\n  "
            f"{listing([*map(short_name, missing)])}",
            f"paths are relative to the image root '{root}'; give --image_root",
        )
    if not images:
        raise PerpoError(f"{path} holds no records", "check that this is the right file")
    return images


def _image_of(row: Any, where: str) -> ImageIdentity | str:
    """A row's image if the row holds it, else its path."""
    if not isinstance(row, dict):
        raise PerpoError(f"{where}: expected an object with named fields, found {row!r:.40}", "one object per line")
    with placed(where):
        row = with_picture(row)
    image = row.get("image_path")
    if image is None:
        image = row.get("image")
    if isinstance(image, dict):
        if isinstance(image.get("bytes"), bytes):
            return ImageIdentity(_name(row, image), sha256_of(image["bytes"]))
        image = image.get("path")
    if isinstance(image, str) and (data := _in_text(image, where)) is not None:
        return ImageIdentity(_name(row, {}), sha256_of(data))
    if not isinstance(image, str):
        raise PerpoError(f"{where}: expected a path as `image_path`, found {image!r:.40}", "each row names its image")
    return image


def _in_text(image: str, where: str) -> bytes | None:
    try:
        return image_in_text(image)
    except ValueError as error:
        raise PerpoError(f"{where}: its image cannot be read: {error}", "correct or remove the row") from error


def _name(row: Row, image: Row) -> str:
    named = [row.get(column) for column in _NAME_COLUMNS]
    return str(next((name for name in (*named, image.get("path")) if name), "an image without a name"))


def _file_sha256(path: Path) -> str | None:
    try:
        return sha256_of(path.read_bytes())
    except OSError:
        return None


def _add_evaluation(path: Path, own: Sequence[Path], index: ImageIndex) -> list[str]:
    """Take in the images of a run, of a Parquet file or of a folder of them.

    Args:
        path: Where they are.
        own: The files that are read and written as training data.
        index: Where to put them.

    Returns:
        What was skipped, and why: training data, which perpo-data refer writes beside the evaluations.
    """
    if path.is_dir() and (path / RUN_FILE).is_file():
        for row in read_run(path).samples(["image"]).to_pylist():
            index.add(ImageIdentity(row["image"]["path"], row["image"]["sha256"]), path.name)
        return []
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise PerpoError(f"{path} holds no Parquet files", "give what perpo-data or perpo-eval wrote")
    skipped = []
    for name in files:
        if not name.is_file():
            raise PerpoError(f"expected a Parquet file or a folder at {name}, found nothing there", "check --against")
        file = open_parquet(name)
        reason = "this training file itself" if any(map(name.samefile, own)) else _why_training(name, file)
        if reason is not None:
            skipped.append(f"{name}: {reason}")
            continue
        for image in _evaluation_images(name, file):
            index.add(image, name.name)
    return skipped


def _why_training(path: Path, file: pq.ParquetFile) -> str | None:
    """What says that a file holds training data, or None; its own metadata go before its name."""
    written = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
    if written is not None:
        try:
            said = json.loads(written)
        except ValueError as error:
            raise PerpoError(f"{path}: the notes of perpo-data in it are not JSON", "build it again") from error
        return "its split is train" if isinstance(said, dict) and said.get("split") == _TRAIN else None
    return "by its name" if path.stem.endswith(f"_{_TRAIN}") else None


def _evaluation_images(path: Path, file: pq.ParquetFile) -> Iterator[ImageIdentity]:
    """The images of a Parquet file of rows or of samples, a few at a time in memory."""
    columns = [name for name in ("image", *_NAME_COLUMNS) if name in file.schema_arrow.names]
    if "image" not in columns:
        raise PerpoError(f"{path} has no column `image`", "give what perpo-data or perpo-eval wrote")
    for batch in parquet_batches(file, columns):
        for row in batch.to_pylist():
            image = row["image"]
            if not isinstance(image, dict):
                raise PerpoError(
                    f"{path}: expected images as {{bytes, path}}, found {image!r:.40}",
                    "give what perpo-data or perpo-eval wrote",
                )
            if isinstance(image.get("sha256"), str):  # a sample of a run
                digest = image["sha256"]
            elif isinstance(image.get("bytes"), bytes):
                digest = sha256_of(image["bytes"])
            else:
                digest = _file_sha256(path.parent / str(image.get("path")))
            yield ImageIdentity(_name(row, image), digest)


def _write_without(train: Path, leaks: Sequence[bool], output: Path) -> None:
    if all(leaks):
        raise PerpoError(
            f"every row of {train} shows an image of an evaluation, so nothing would be left",
            "check that it is not the file of an evaluation, or give training data with other images",
        )
    if train.suffix == ".parquet":
        _write_parquet_without(train, leaks, output)
        return
    with whole_file(output) as part, part.open("w", encoding="utf-8") as file:
        for row, leak in zip(read_rows(train), leaks, strict=True):
            if not leak:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet_without(train: Path, leaks: Sequence[bool], output: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = open_parquet(train)
    done = 0
    with whole_file(output) as part, pq.ParquetWriter(part, source.schema_arrow, compression="zstd") as writer:
        for batch in parquet_batches(source):
            kept = pa.array([not leak for leak in leaks[done : done + len(batch)]])
            writer.write_batch(batch.filter(kept))
            done += len(batch)
