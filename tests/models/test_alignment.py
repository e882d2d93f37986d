"""Aligned faces reach a recogniser with the eyes where its template has them."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.linear_recogniser import linear
from visor.core.tf import tf
from visor.models.alignment import aligned_embeddings

TEMPLATE = ((0.3, 0.25), (0.7, 0.25))
SIDE = 40


def coordinates(template):
    """A recogniser whose embedding is, along each axis, where the mean light of its 40×40 crop lies, in shares."""

    def embed(images):
        light = tf.reduce_sum(images, -1)
        shares = (tf.range(SIDE, dtype=tf.float32) + 0.5) / SIDE
        sums = [tf.reduce_sum(light, axis) for axis in (1, 2)]  # by column, by row
        return tf.stack([tf.reduce_sum(each * shares, -1) / tf.reduce_sum(each, -1) for each in sums], -1)

    return replace(linear(), image_shape=(SIDE, SIDE, 3), embed=embed, template=template)


@pytest.mark.parametrize(("eye", "place"), [(0, TEMPLATE[0]), (1, TEMPLATE[1])])
def test_each_eye_comes_to_its_place(eye, place):
    """The image is no square, and the eyes lie lower than the template's."""
    eyes, images = [[0.25, 0.5], [0.75, 0.5]], np.zeros((2, 60, 40, 3), np.uint8)
    x, y = round(eyes[eye][0] * 40), round(eyes[eye][1] * 60)
    images[:, y - 2 : y + 2, x - 2 : x + 2] = 255
    found = aligned_embeddings(coordinates(TEMPLATE), eyes)(images)
    np.testing.assert_allclose(found, [place, place], atol=0.01)


@pytest.mark.parametrize(("template", "eyes"), [(TEMPLATE, None), (None, [[0.25, 0.5], [0.75, 0.5]])])
def test_faces_that_are_not_aligned_and_networks_that_take_boxes_get_whole_images(template, eyes):
    images = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    images[:, 8:12, 28:32] = 255
    np.testing.assert_allclose(aligned_embeddings(coordinates(template), eyes)(images), [[0.75, 0.25]], atol=1e-6)
