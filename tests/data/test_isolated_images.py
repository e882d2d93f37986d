"""Strangers' images in a process of their own: the same pixels and sentences, and an end to what takes too much."""

import re

import numpy as np
import pytest

from tests.support.image_files import encode
from visor.data import isolated_images
from visor.data.images import ImageDecodeError, decode_image, encode_png
from visor.data.isolated_images import decode_isolated

NOISE = np.random.default_rng(5).integers(0, 256, (57, 83, 3), np.uint8)


@pytest.mark.parametrize("content", [encode_png(NOISE), encode(NOISE, "JPEG")])
def test_the_pixels_are_those_of_the_one_decoder(content):
    image = decode_isolated(content, "me.png")
    np.testing.assert_array_equal(image, decode_image(content, "me.png"))
    assert image.dtype == np.uint8


@pytest.mark.parametrize(
    "content", [b"", b"no image", encode_png(NOISE)[:500], encode_png(np.zeros((90, 90, 3), "u1"))]
)
def test_the_reasons_are_those_of_the_one_decoder(content):
    with pytest.raises(ImageDecodeError) as expected:
        decode_image(content, "me.png", 90 * 89)
    with pytest.raises(ImageDecodeError) as caught:
        decode_isolated(content, "me.png", 90 * 89)
    assert caught.value.args == expected.value.args


def test_an_image_that_takes_too_much_is_refused_and_the_next_is_decoded(monkeypatch):
    large = encode_png(np.zeros((7000, 7000, 3), np.uint8))
    with monkeypatch.context() as small:
        small.setattr(isolated_images, "MEMORY", 256 << 20)
        with pytest.raises(ImageDecodeError) as caught:
            decode_isolated(large, "me.png")
    assert caught.value.args[0] == "me.png"
    assert re.match("decoding it takes too much (time or )?memory", caught.value.args[1])
    assert decode_isolated(large, "me.png").shape == (7000, 7000, 3)
