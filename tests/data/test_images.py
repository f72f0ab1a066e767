"""Opening pictures: upright, on white, of a size that the head says; what is wrong with those that can't be read."""

import base64
import hashlib
import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from perpo.boxes import frame_window
from perpo.data.embedded import find_image, image_in_text
from perpo.data.images import (
    MOST_PIXELS,
    as_stored,
    image_problems,
    image_size,
    open_image,
    pad_to_square,
    require_images,
    short_name,
)
from perpo.errors import PerpoError

FORMATS = ["JPEG", "PNG", "WEBP", "TIFF"]


def noise(width=6, height=4, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image, form="PNG", orientation=None, **settings):
    """An image's file, with an EXIF orientation."""
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(form, {})
    data = io.BytesIO()
    image.save(data, form, exif=exif, **lossless | settings)
    return data.getvalue()


# What EXIF (TIFF 6.0, tag 274) says where the 0th row and column of the stored pixels lie in the upright picture.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_picture_is_upright_and_its_size_is_known_from_the_head(form, orientation):
    data = encoded(Image.fromarray(noise()), form, orientation)
    with Image.open(io.BytesIO(data)) as image:
        plain = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    picture = open_image(data)
    assert (picture.mode, picture.size, image_size(data)) == ("RGB", plain.shape[1::-1], picture.size)
    np.testing.assert_array_equal(np.asarray(picture), plain)
    if form != "JPEG":
        np.testing.assert_array_equal(plain, UPRIGHT[orientation](noise()))


def test_a_png_that_says_how_it_lies_behind_its_pixels_is_upright_too():
    data = encoded(Image.fromarray(noise()))
    exif = encoded(Image.fromarray(noise()), orientation=6)
    start = exif.index(b"eXIf") - 4
    chunk = exif[start : start + 12 + struct.unpack(">I", exif[start : start + 4])[0]]
    end = data.index(b"IEND") - 4
    behind = data[:end] + chunk + data[end:]
    assert image_size(behind) == open_image(behind).size == (4, 6)
    np.testing.assert_array_equal(np.asarray(open_image(behind)), UPRIGHT[6](noise()))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0broken", b"Exif\0\0MM\0*\0\0\xff\xff", b"x"])
def test_an_orientation_that_cannot_be_read_is_none(exif):
    data = io.BytesIO()
    Image.fromarray(noise()).save(data, "PNG", exif=exif)
    assert image_size(data.getvalue()) == (6, 4)
    np.testing.assert_array_equal(np.asarray(open_image(data.getvalue())), noise())


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "MPO"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_what_refers_to_the_stored_pixels_gets_a_file_that_nobody_turns(form, orientation):
    several = {"save_all": True, "append_images": [Image.fromarray(noise(seed=1))]} if form == "MPO" else {}
    data = encoded(Image.fromarray(noise()), form, orientation, **several)
    with Image.open(io.BytesIO(data)) as image:
        stored = np.asarray(image.convert("RGB"))
    unturned = as_stored(data)
    np.testing.assert_array_equal(np.asarray(open_image(unturned)), stored)
    assert image_size(unturned) == image_size(data, stored=True) == (6, 4)
    assert as_stored(unturned) is None
    assert as_stored(encoded(Image.fromarray(noise()), form, 1, **several)) is None


def translucent(mode):
    """An image with transparency, and what shines through a white ground: (height, width, 3), by the formula."""
    alpha = np.repeat(np.array([[0, 64, 128, 255]], dtype=np.uint8), 2, axis=0)
    grey = np.full_like(alpha, 40)
    colours = np.stack([grey, grey + 20, grey + 60], axis=-1) if mode == "RGBA" else np.stack([grey] * 3, axis=-1)
    share = alpha[..., None] / 255
    bands = [*np.moveaxis(colours, -1, 0), alpha] if mode == "RGBA" else [grey, alpha]
    return Image.merge(mode, [Image.fromarray(band) for band in bands]), colours * share + 255 * (1 - share)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    image, expected = translucent(mode)
    picture = np.asarray(open_image(encoded(image))).astype(float)
    assert np.abs(picture - expected).max() <= 1
    assert (picture[:, 0] == 255).all()


@pytest.mark.parametrize("mode", ["P", "1", "L", "RGB"])
def test_a_colour_that_stands_for_nothing_is_white(mode):
    image = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert(mode)
    nothing = {"P": 0, "1": 0, "L": 0, "RGB": (0, 0, 0)}[mode]  # black
    data = encoded(image, transparency=nothing)
    with Image.open(io.BytesIO(data)) as stored:
        assert np.asarray(stored.convert("RGB"))[0, 0].max() == 0
    assert (np.asarray(open_image(data)) == 255).all()


def test_a_palette_with_shades_of_transparency_is_laid_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.putdata([0, 1])
    picture = np.asarray(open_image(encoded(image, transparency=bytes([0, 255]))))
    assert picture.tolist() == [[[255, 255, 255], [200, 0, 0]]]
    black = Image.new("PA", (1, 1), (0, 0))
    assert (np.asarray(open_image(encoded(black.convert("LA")))) == 255).all()


@pytest.mark.parametrize(("mode", "form"), [("I;16", "PNG"), ("I", "TIFF"), ("F", "TIFF")])
def test_pixels_whose_scale_would_be_lost_are_refused_by_whoever_opens_them(mode, form, tmp_path):
    """Pillow cuts 16 bits off at 255, so that a page would be plain white."""
    types = {"I;16": "uint16", "I": "int32", "F": "float32"}
    levels = np.random.default_rng(0).integers(256, 60_000, (4, 6))
    (tmp_path / "deep").write_bytes(encoded(Image.fromarray(levels.astype(types[mode])), form))
    with pytest.raises(OSError, match="pixels, whose scale would be lost: convert it to 8 bits"):
        open_image(tmp_path / "deep")
    assert image_problems([tmp_path / "deep"])[0].endswith("pixels, whose scale would be lost: convert it to 8 bits")


@pytest.mark.parametrize(("mode", "form"), [("RGBA", "PNG"), ("CMYK", "JPEG"), ("YCbCr", "JPEG")])
def test_what_is_not_transparent_is_read_as_pillow_converts_it(mode, form):
    data = encoded(Image.fromarray(noise()).convert(mode), form)
    with Image.open(io.BytesIO(data)) as stored:
        expected = np.asarray(stored.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(open_image(data)), expected)


def test_of_several_frames_the_first_is_read():
    frames = [Image.fromarray(noise(seed=seed)).quantize(16) for seed in (0, 1)]
    data = io.BytesIO()
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(np.asarray(open_image(data.getvalue())), np.asarray(frames[0].convert("RGB")))


def head_of_png(width, height):
    """A PNG file of white and black that ends where its pixels begin."""
    about = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(b"")
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (about, pixels))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_the_limit_is_our_own_whatever_other_libraries_set(monkeypatch, recwarn):
    for limit in (None, 1, 10**12):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(OSError, match="30,000 x 30,000 pixels, but at most 178,956,970 are allowed"):
            open_image(head_of_png(30_000, 30_000))
        assert image_size(head_of_png(MOST_PIXELS // 10, 10)) == (MOST_PIXELS // 10, 10)
        assert limit == Image.MAX_IMAGE_PIXELS
    assert not recwarn.list


BAD = {
    "lfs.jpg": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
        "Git LFS pointer.*git lfs pull",
    ),
    "empty.png": (b"", "an empty file"),
    "page.jpg": (b"\n<!DOCTYPE html><html></html>", "a web page"),
    "drawing.svg": (
        b'<?xml version="1.0"?>\n<!-- a -->\n<svg xmlns="x"/>',
        "an SVG drawing, which is not supported: convert it to PNG",
    ),
    "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC, which is not supported: convert it to JPEG or PNG"),
    "paper.png": (b"%PDF-1.7", "a PDF"),
    "words.png": (b"no picture", "not an image format"),
    "bomb.png": (head_of_png(30_000, 30_000), "30,000 x 30,000 pixels"),
    "cut.png": (encoded(Image.fromarray(noise(60, 60)))[:-300], "truncated|incomplete|broken"),
}


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    for name, (data, _) in BAD.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.png").mkdir()
    others = {
        "folder.png": "a folder",
        "gone.png": "no such file",
        "n" * 5000: "too long",
        "https://x/y.png": "a web address",
    }
    names = [*BAD, *others]
    problems = dict(zip(names, image_problems([tmp_path / name for name in names]), strict=True))
    for name, said in ({name: said for name, (_, said) in BAD.items()} | others).items():
        assert re.search(said, str(problems[name])), (name[:40], problems[name])


def test_bad_images_are_counted_and_named_shortly(tmp_path, capsys):
    (tmp_path / "good.jpg").write_bytes(encoded(Image.fromarray(noise()), "JPEG", 6))
    names = ["good.jpg", "a\nb.png", "\ud800.png", "data:" + "x" * 90_000, *(f"{n}.png" for n in range(12))]
    with pytest.raises(PerpoError) as error:
        require_images({name: tmp_path / name for name in names}, "look", lambda size: None)
    head, *lines = error.value.message.split("\n  ")
    assert (head, len(lines), lines[-1]) == ("15 of 16 images cannot be used:", 11, "and 5 more")
    assert lines[0] == "a?b.png: no such file"
    assert lines[1].startswith("?.png: ")
    assert max(map(len, lines)) < 250
    assert "1 of 16 pictures are stored turned" in capsys.readouterr().err
    with pytest.raises(PerpoError, match=r"good.jpg: \(4, 6\)"):
        require_images({"good.jpg": tmp_path / "good.jpg"}, "look", str)


def test_a_short_name_is_one_line_with_both_ends():
    assert short_name("a/b.png") == "a/b.png"
    long = short_name("start" + "x" * 100_000 + "end.png")
    assert long.startswith("start")
    assert "end.png (100,012 characters)" in long
    assert len(long) < 200


def test_pictures_in_texts():
    data = encoded(Image.fromarray(noise(40, 40)))
    plain = base64.b64encode(data).decode()
    lines = "\n".join(plain[at : at + 76] for at in range(0, len(plain), 76))
    for text in (plain, lines, f"data:image/png;base64,{plain}", f"DATA:image/png;charset=x;BASE64,{lines}"):
        assert image_in_text(text) == data
    jpeg = encoded(Image.fromarray(noise(40, 40)), "JPEG")
    assert image_in_text(base64.b64encode(jpeg).decode()) == jpeg  # which begins as an absolute path does
    assert image_in_text("data:image/svg+xml,%3Csvg/%3E") == b"<svg/>"
    for path in ("a.png", "/9j/a.jpg", "iVBORw0KGgo.png", "x" * 500, "", f"/9j/{'a' * 200}.jpg"):
        assert image_in_text(path) is None
    for bad in (plain[:-3], "data:image/png;base64", "data:image/png;base64,***"):
        with pytest.raises(ValueError, match=r"base64|data URI"):
            image_in_text(bad)


@pytest.mark.parametrize("size", [(50, 20), (20, 50), (31, 30), (30, 37), (24, 24)])
def test_the_picture_lies_where_the_padded_frame_says(size):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 200, (size[1], size[0], 3), dtype=np.uint8))
    padded = np.asarray(pad_to_square(picture, (255, 250, 245)))
    left, top, width, height = (int(value) for value in frame_window("padded", size))
    assert padded.shape == (height, width, 3)
    inside = padded[-top : -top + size[1], -left : -left + size[0]]
    np.testing.assert_array_equal(inside, np.asarray(picture))
    # Everything else is the colour that was asked for.
    assert (padded == (255, 250, 245)).all(axis=2).sum() == height * width - size[0] * size[1]


def test_a_family_that_pads_shows_the_model_the_whole_picture(tmp_path):
    from perpo.models.loading import load_model
    from perpo.tiny.model import TINY, save_random_model

    loaded = load_model(str(save_random_model(tmp_path, TINY)))
    wide = Image.new("RGB", (192, 96), (255, 255, 255))
    (pixels,) = loaded.encode(["<image>"], [wide])["pixel_values"].numpy()
    processor = loaded.processor.image_processor
    colour = (pixels.transpose(1, 2, 0) * processor.image_std + processor.image_mean)[:, 48]
    # A white band of half the height; above and below it the mean colour, which is what CLIP's zero is.
    assert np.abs(colour[30:66] - 1).max() < 0.02
    assert np.abs(colour[:20] - processor.image_mean).max() < 0.02
    assert np.abs(colour[76:] - processor.image_mean).max() < 0.02


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "../out.png", "link.png", "folder", "", "gone.png"])
def test_a_path_that_is_no_picture_of_the_folder_gives_none(tmp_path, path):
    inside = tmp_path / "in"
    (inside / "folder").mkdir(parents=True)
    (tmp_path / "out.png").write_bytes(b"x")
    (inside / "link.png").symlink_to(tmp_path / "out.png")
    assert find_image({"sha256": hashlib.sha256(b"x").hexdigest(), "path": path}, inside) is None
