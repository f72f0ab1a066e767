"""Padding to a square: where the picture goes, and that boxes of the padded frame agree with it."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from perpo.boxes import frame_window
from perpo.images import find_image, pad_to_square


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
    from perpo.models import load_model
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
