"""The classic cascade: finds a frontal face, says how sure it is, twice the same."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data

from visor.core.errors import UserError
from visor.core.params import DetectorParams
from visor.models.detectors import cascade

IMAGES = np.stack([data.astronaut()[20:236, 120:310], np.full((216, 190, 3), 90, np.uint8)])


def test_finds_the_astronaut():
    detector = cascade.load(DetectorParams(threshold=0.5), Path())
    before = IMAGES.copy()
    face, nothing = detector.detect(IMAGES)
    x, y, w, h = face.boxes[0]
    assert x < 224 - 120 < x + w  # the nose
    assert y < 126 - 20 < y + h
    assert face.scores[0] >= 0.5
    assert (np.diff(face.scores) <= 0).all()
    assert (nothing.boxes.shape, nothing.scores.shape) == ((0, 4), (0,))
    assert (before == IMAGES).all()
    again = detector.detect(IMAGES)[0]
    assert face.boxes.tobytes() + face.scores.tobytes() == again.boxes.tobytes() + again.scores.tobytes()
    assert detector.pre_nms is detector.loss is None


def test_images_smaller_than_a_face():
    (found,) = cascade.load(DetectorParams(threshold=0.5), Path()).detect(IMAGES[:1, :20, :17])
    assert len(found.boxes) == 0


def test_wrong_options():
    with pytest.raises(UserError, match="min_face_size"):
        cascade.load(DetectorParams(threshold=0.5, options={"scale": 2}), Path())
