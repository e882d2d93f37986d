"""Whatever a caller passes as images or labels is an array, or one sentence."""

import numpy as np
import pytest

from visor.core.errors import UserError
from visor.data.arrays import check_images, check_labels


class Odd:
    def __array__(self, *_, **__):
        raise RuntimeError("no array\nat all")


@pytest.mark.parametrize(
    "labels",
    [[0, [1, 2]], Odd(), ["0", "1"], [0.0, 1.0], [True, False], [0, None], [0, 1 << 70], [0, -1], {0, 1}, "01"],
)
def test_odd_labels_are_one_sentence(labels):
    with pytest.raises(UserError, match=r"^labels: .*; give ") as caught:
        check_labels(labels, 2)
    assert "\n" not in str(caught.value)


def test_labels_of_any_integer_type_are_kept():
    for labels in ([0, 1], (0, 1), np.array([0, 1], ">u2"), np.array([0, 1], np.uint64)):
        assert check_labels(labels, 2).tolist() == [0, 1]


@pytest.mark.parametrize("images", [[[0], [1, 2]], Odd(), None, "image", np.zeros((1, 2, 2, 3), complex)])
def test_odd_images_are_one_sentence(images):
    with pytest.raises(UserError, match=r"^images: .*; give ") as caught:
        check_images(images)
    assert "\n" not in str(caught.value)
