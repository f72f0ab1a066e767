"""Pictures come from the declared folders alone, and are drawn as they are."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile

from perpo.errors import PerpoError
from perpo_dashboard.shared import pictures
from perpo_dashboard.shared.pictures import SMALL, Box
from perpo_dashboard.shared.settings import Settings

BLUE, GREEN = (0, 114, 178), (0, 158, 115)


def write(path: Path, size: tuple[int, int] = (40, 30), colour: int = 255) -> str:
    """A picture of one grey; returns its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour, colour, colour)).save(path, "PNG")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pixels(png: bytes) -> np.ndarray:
    """(height, width, 3) of an encoded picture."""
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.fixture
def folders(tmp_path, monkeypatch) -> tuple[Path, Path, Path]:
    """The results, a media folder, and a folder that nobody declared."""
    results, media, outside = (tmp_path / name for name in ("results", "media", "outside"))
    for folder in (results, media, outside):
        folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PERPO_DASHBOARD", "")  # so that it is what it was again after the test
    Settings(results, (media,)).announce()
    pictures._found.clear()
    return results, media, outside


def test_a_picture_is_found_in_the_results_the_media_folders_and_the_cache(folders, tmp_path):
    results, media, _ = folders
    for place, file in enumerate((results / "a" / "x.png", media / "y.png")):
        digest = write(file, colour=place)
        path = str(file.relative_to(results if place == 0 else media))
        assert pictures.find({"sha256": digest, "path": path}) == file
    digest = write(tmp_path / "z.png", colour=9)
    kept = tmp_path / "cache" / "perpo" / "images" / f"{digest[:32]}.png"
    write(kept, colour=9)
    assert pictures.find({"sha256": digest, "path": "anything"}) == kept


def test_what_lies_outside_is_refused_by_whatever_path(folders):
    results, media, outside = folders
    digest = write(outside / "secret.png")
    (results / "link.png").symlink_to(outside / "secret.png")
    (results / "folder").symlink_to(outside, target_is_directory=True)
    (media / "up").symlink_to("../outside", target_is_directory=True)
    paths = [
        "../outside/secret.png",
        "a/../../outside/secret.png",
        str(outside / "secret.png"),
        "link.png",
        "folder/secret.png",
        "up/secret.png",
        "folder/../../outside/secret.png",
    ]
    assert {path: pictures.find({"sha256": digest, "path": path}) for path in paths} == dict.fromkeys(paths)
    # The very same file inside is found: it was the place that was refused.
    write(results / "inside.png")
    assert pictures.find({"sha256": digest, "path": "inside.png"}) == results / "inside.png"


def test_a_link_within_the_folder_serves_and_other_contents_do_not(folders):
    results, _, _ = folders
    digest = write(results / "x.png")
    (results / "same.png").symlink_to("x.png")
    assert pictures.find({"sha256": digest, "path": "same.png"}) == results / "x.png"
    other = write(results / "y.png", colour=3)
    assert pictures.find({"sha256": other, "path": "x.png"}) is None


@pytest.mark.parametrize(
    "image",
    [
        None,
        {},
        {"sha256": None, "path": "x.png"},
        {"sha256": "", "path": "x.png"},
        {"sha256": "0" * 64, "path": None},
        {"sha256": "*", "path": ""},
        {"sha256": "../../x", "path": "\x00"},
        {"sha256": "0" * 64, "path": "x" * 5000},
    ],
)
def test_what_names_no_picture_is_none(folders, image):
    write(folders[0] / "x.png")
    assert pictures.find(image) is None


def test_a_picture_that_came_or_changed_later_is_seen(folders):
    results, _, _ = folders
    digest = write(results / "x.png")
    held = (results / "x.png").read_bytes()
    (results / "x.png").unlink()
    assert pictures.find({"sha256": digest, "path": "x.png"}) is None
    (results / "x.png").write_bytes(held)
    assert pictures.find({"sha256": digest, "path": "x.png"}) == results / "x.png"
    write(results / "x.png", colour=7)
    assert pictures.find({"sha256": digest, "path": "x.png"}) is None


def test_a_large_picture_is_made_small_once_and_kept(folders):
    file = folders[0] / "x.png"
    digest = write(file, (2 * SMALL, SMALL))
    assert pixels(pictures.small(file, digest)).shape == (SMALL // 2, SMALL, 3)
    (kept,) = (folders[0].parent / "cache" / "perpo" / "thumbnails").iterdir()
    before = kept.stat().st_mtime_ns
    pictures._small.clear()
    assert pixels(pictures.small(file, digest)).shape == (SMALL // 2, SMALL, 3)
    assert kept.stat().st_mtime_ns == before


def test_boxes_lie_where_the_original_pixels_say(folders):
    file = folders[0] / "x.png"
    digest = write(file, (2 * SMALL, SMALL))
    boxes = [Box((200, 100, 1000, 600), "#0072b2"), Box((400, 300, 500, 500), "#009e73", dashed=True)]
    for whole, scale in ((True, 1.0), (False, 0.5)):
        drawn = pixels(pictures.with_boxes(file, {"sha256": digest}, boxes, whole=whole))
        for box, colour in zip(boxes, (BLUE, GREEN), strict=True):
            rows, columns = np.nonzero((drawn == colour).all(axis=2))
            line = max(2, round(drawn.shape[1] / 250))
            edges = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
            np.testing.assert_allclose(edges, np.array(box.xyxy) * scale, atol=line)
        inside = drawn[int(550 * scale), int(800 * scale)]
        assert (inside == 255).all()


def test_a_broken_line_has_gaps_and_a_whole_one_none(folders):
    file = folders[0] / "x.png"
    digest = write(file, (SMALL, SMALL))
    box = (100.0, 100.0, 700.0, 700.0)
    whole, broken = (
        (
            pixels(pictures.with_boxes(file, {"sha256": digest}, [Box(box, "#0072b2", dashed=dashed)]))[100, 100:700]
            == BLUE
        ).all(axis=1)
        for dashed in (False, True)
    )
    assert whole.all()
    assert 0.3 < broken.mean() < 0.8


def test_a_small_picture_is_enlarged_so_that_its_boxes_can_be_seen(folders):
    file = folders[0] / "x.png"
    digest = write(file, (96, 96))
    drawn = pixels(pictures.with_boxes(file, {"sha256": digest}, [Box((24, 24, 72, 72), "#0072b2")]))
    assert drawn.shape[0] >= SMALL // 2
    scale = drawn.shape[0] / 96
    rows, columns = np.nonzero((drawn == BLUE).all(axis=2))
    assert abs(columns.min() - 24 * scale) <= 4
    assert abs(rows.max() - 72 * scale) <= 4


@pytest.mark.parametrize("box", [(-50, -50, 900, 900), (30, 20, 10, 5), (5, 5, 5, 5), (0, 0, 2e9, 1e300)])
def test_boxes_beyond_the_picture_inverted_or_empty_do_no_harm(folders, box):
    file = folders[0] / "x.png"
    digest = write(file)
    for dashed in (False, True):
        assert pixels(pictures.with_boxes(file, {"sha256": digest}, [Box(box, "#0072b2", dashed)])).ndim == 3


def test_a_box_that_is_no_box_is_not_drawn(folders):
    file = folders[0] / "x.png"
    digest = write(file)
    boxes = [Box((0, 0, number, 9), "#0072b2", True) for number in (float("nan"), float("inf"))]
    assert (pixels(pictures.with_boxes(file, {"sha256": digest}, boxes)) == 255).all()


@pytest.mark.parametrize(
    "boxes", [[(10, 10, 30, 20)], [(0, 0, 5, 5), (390, 290, 400, 300)], [(-50, 20, 900, 40)], [(7, 7, 7, 7)]]
)
def test_what_is_around_boxes_lies_in_the_picture_holds_them_and_has_its_shape(boxes):
    x1, y1, x2, y2 = pictures.around([Box(box, "#0072b2") for box in boxes], (400, 300))
    assert 0 <= x1 < x2 <= 400
    assert 0 <= y1 < y2 <= 300
    assert (x2 - x1) / (y2 - y1) == pytest.approx(4 / 3, rel=0.15)
    for box in boxes:
        left, top, right, bottom = np.clip(box, 0, (400, 300, 400, 300))
        assert x1 <= left <= right <= x2
        assert y1 <= top <= bottom <= y2


def test_a_part_of_a_picture_has_its_boxes_where_they_were(folders):
    results, *_ = folders
    digest = write(results / "x.png", size=(400, 300))
    box = Box((110.0, 60.0, 190.0, 120.0), "#0072b2")
    drawn = pixels(pictures.with_boxes(results / "x.png", {"sha256": digest}, [box], window=(100, 50, 200, 125)))
    rows, columns = np.nonzero((drawn == BLUE).all(axis=2))
    scale = drawn.shape[1] / 100
    assert drawn.shape[0] == pytest.approx(75 * scale, abs=scale)
    expected = (10 * scale, 10 * scale, 90 * scale, 70 * scale)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == pytest.approx(expected, abs=6)


def test_boxes_that_are_no_numbers_show_the_whole_picture():
    assert pictures.around([Box((float("nan"), 0, 1, 1), "#0072b2")], (40, 30)) == (0, 0, 40, 30)


@pytest.mark.parametrize("content", [b"no picture", "half", b""])
def test_a_picture_that_is_damaged_is_refused_in_a_sentence(folders, content, monkeypatch):
    # What the evaluation stands on switches this on for a whole process; the dashboard does not import it.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    file = folders[0] / "x.png"
    write(file)
    file.write_bytes(file.read_bytes()[:60] if content == "half" else content)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert pictures.find({"sha256": digest, "path": "x.png"}) == file  # it is what the record names
    for whole in (False, True):
        with pytest.raises(PerpoError, match=r"the picture .*x\.png cannot be read: ") as told:
            pictures.with_boxes(file, {"sha256": digest}, [], whole=whole)
        assert told.value.message.count("cannot be read") == 1


def test_a_pictures_size_is_its_own(folders):
    write(folders[0] / "x.png", (40, 30))
    assert pictures.size(folders[0] / "x.png") == (40, 30)


def test_a_picture_is_shown_where_no_small_one_can_be_kept(folders, monkeypatch):
    file = folders[0] / "x.png"
    digest = write(file, (2 * SMALL, SMALL))
    (folders[0].parent / "taken").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folders[0].parent / "taken"))  # a file: no folder can be made in it
    assert pixels(pictures.small(file, digest)).shape == (SMALL // 2, SMALL, 3)


def test_a_picture_is_upright_with_its_box_on_it(folders):
    results, *_ = folders
    upright = Image.new("RGB", (600, 800), "white")
    upright.paste((200, 0, 0), (60, 200, 200, 360))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(results / "phone.png", exif=exif)
    digest = hashlib.sha256((results / "phone.png").read_bytes()).hexdigest()
    image = {"sha256": digest, "path": "phone.png", "width": 600, "height": 800}
    assert pictures.size(pictures.find(image)) == (600, 800)
    box = Box((60.0, 200.0, 200.0, 360.0), "#0072b2")
    for settings in ({}, {"whole": True}, {"window": (0, 0, 600, 800)}):
        drawn = pixels(pictures.with_boxes(results / "phone.png", image, [box], **settings))
        assert drawn.shape[:2] == (800, 600)
        rows, columns = np.nonzero((drawn == BLUE).all(axis=2))
        assert (columns.min(), rows.min(), columns.max(), rows.max()) == pytest.approx((60, 200, 200, 360), abs=6)
        assert (drawn[215:345, 75:185] == (200, 0, 0)).all()
    older = image | {"width": 800, "height": 600}
    with pytest.raises(PerpoError, match=r"the run saw phone.png as 800 x 600 pixels, upright it has 600 x 800"):
        pictures.with_boxes(results / "phone.png", older, [box])
