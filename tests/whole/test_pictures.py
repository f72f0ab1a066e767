"""A picture that can be read in several ways is the same one, of the same size, for every program."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import ExifTags, Image

from perpo.data import Question
from perpo.data.images import image_size
from perpo.engines.base import Decoding, Query, ask
from perpo.engines.server import ServerEngine
from perpo.models.families import family_of
from perpo.models.loaded import LoadedModel
from perpo.results.regression.page import _thumbnail
from perpo.train.lists import ListDataset
from perpo_dashboard.shared import pictures
from perpo_eval.rows.media import keep_image, locate_image, recent_image
from perpo_eval.tasks.functions import doc_to_visual

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
WHITE = 255


def with_alpha() -> Image.Image:
    alpha = np.full((4, 6, 1), WHITE, dtype=np.uint8)
    alpha[:, :3] = 0
    return Image.fromarray(np.concatenate([PIXELS, alpha], axis=2))


def palette() -> Image.Image:
    return Image.fromarray(PIXELS).quantize(24)  # a colour for each pixel


def on_white(picture: np.ndarray) -> np.ndarray:
    return np.where(np.arange(6)[None, :, None] < 3, WHITE, picture)


# The stored image, its format and EXIF orientation, and what everybody has to see, by formulas.
KINDS = {
    "turned by EXIF": (Image.fromarray(PIXELS), "PNG", 6, PIXELS.transpose(1, 0, 2)[:, ::-1]),
    "upside down by EXIF": (Image.fromarray(PIXELS), "TIFF", 3, PIXELS[::-1, ::-1]),
    "transparent": (with_alpha(), "PNG", 1, on_white(PIXELS)),
    "transparent and turned": (with_alpha(), "PNG", 8, on_white(PIXELS).transpose(1, 0, 2)[::-1]),
    "palette": (palette(), "PNG", 1, PIXELS),
    "grey": (Image.fromarray(PIXELS[..., 0]), "PNG", 1, np.repeat(PIXELS[..., :1], 3, axis=2)),
    "CMYK": (Image.fromarray(np.concatenate([WHITE - PIXELS, 0 * PIXELS[..., :1]], 2), "CMYK"), "TIFF", 1, PIXELS),
}


@pytest.fixture(params=KINDS)
def stored(request, tmp_path, monkeypatch) -> tuple[Path, np.ndarray]:
    """The file, and the pixels that everybody has to see."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image, form, orientation, expected = KINDS[request.param]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = tmp_path / f"picture.{form.lower()}"
    image.save(file, form, exif=exif)
    return file, expected


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_every_program_sees_the_same_pixels(stored):
    file, expected = stored
    seen: dict[str, np.ndarray] = {}
    engine = SimpleNamespace(answers=lambda queries, decoding: seen.update(sampling=np.asarray(queries[0].image)))
    question = Question(image_path=file.name, question="?", answer="", image_id=0)
    ask(engine, [(0, question)], file.parent, Decoding(max_new_tokens=1))  # type: ignore[arg-type]
    model = LoadedModel(None, None, family_of("qwen3_vl"), "m", "")
    query = Query("?", recent_image(str(file)), 0, file)
    url = ServerEngine._picture(SimpleNamespace(loaded=model), query)  # type: ignore[arg-type]
    seen["a server"] = decoded(base64.b64decode(url.partition("base64,")[2]))
    encoder = SimpleNamespace(encode=lambda prompts, images: seen.update(training=np.asarray(images[0])) or ENCODED)
    item = SimpleNamespace(prompt="?", image_path=file)
    ListDataset([item], SimpleNamespace(without_model=lambda: encoder))[0]  # type: ignore[list-item, arg-type]
    seen["evaluation"] = np.asarray(doc_to_visual({"image_file": str(file)})[0])
    seen["the model's processor"] = np.asarray(model.shown(recent_image(str(file))))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    seen["the dashboard"] = decoded(pictures.small(file, digest))
    height, width = expected.shape[:2]
    page = _thumbnail(file, (width, height))
    assert page is not None
    seen["a report"] = decoded(base64.b64decode(page.partition("base64,")[2]))
    assert len(seen) == 7
    for program, picture in seen.items():
        np.testing.assert_array_equal(picture, expected, err_msg=program)


ENCODED = {"input_ids": np.zeros((1, 1), dtype=np.int64)}


def test_every_record_holds_the_same_size(stored):
    file, expected = stored
    height, width = expected.shape[:2]
    kept, located = keep_image(file.read_bytes()), locate_image(file)
    assert {image_size(file), (kept.width, kept.height), (located.width, located.height), pictures.size(file)} == {
        (width, height)
    }
