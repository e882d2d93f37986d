"""A small FaceSet for every test: 4 labels, all sizes different."""

import numpy as np
import pytest

from visor.data.face_set import FaceBatch, open_faces, write_faces

HEIGHT, WIDTH = 34, 29
COUNTS = (23, 19, 31, 17)


def random_images(n, seed=0, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def pytest_collection_modifyitems(items):
    """The file that takes as long as all others together begins first: two workers then end at about one time."""
    items.sort(key=lambda item: item.path.name != "test_reproduction.py")


@pytest.fixture
def faces(tmp_path):
    """Random images of 4 people; a video holds 3 frames."""
    labels = np.repeat(np.arange(len(COUNTS)), COUNTS).astype(np.int32)
    n = len(labels)
    videos = np.concatenate([np.arange(count) // 3 + 100 * label for label, count in enumerate(COUNTS)])
    block = FaceBatch(random_images(n), labels, videos.astype(np.int32), np.arange(n, dtype=np.int32))
    path = tmp_path / "faces.h5"
    write_faces(path, [block], (HEIGHT, WIDTH, 3), ["ann", "bob", "cleo", "dan"], "test", "none")
    return open_faces(path)
