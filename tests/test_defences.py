"""One contract for every defence, and the reference by hand."""

import numpy as np
import pandas as pd
import pytest

from tests.conftest import HEIGHT, WIDTH, random_images
from visor.defences import DEFENCES
from visor.errors import UserError
from visor.evaluation.defence import picture, score_sets, triggered_sets
from visor.models import vae


@pytest.fixture
def model():
    return vae.build((HEIGHT, WIDTH, 3), latent=4, width=3)


@pytest.mark.parametrize("name", DEFENCES)
def test_contract(name, faces, model):
    score, show = DEFENCES[name](model, faces.select())
    images = random_images(7, seed=5)
    before = images.copy()
    scores = score(images)
    assert scores.shape == (7,)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(scores, score(images))
    singles = np.concatenate([score(image[None]) for image in images])
    np.testing.assert_allclose(scores, singles, rtol=1e-5, err_msg="a score depends on the batch")
    pictures = show(images)
    assert pictures.shape == images.shape
    assert pictures.dtype == np.uint8


def test_reconstruction_is_the_mean_absolute_error(faces, model):
    score, show = DEFENCES["reconstruction"](model, faces.select())
    images = random_images(3, seed=5)
    expected = np.abs(model(images / np.float32(255))[0].numpy() - images / 255).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(score(images), expected, rtol=1e-5)
    shown = show(images) / 255
    assert np.abs(np.abs(shown - images / 255).mean(axis=(1, 2, 3)) - expected).max() < 0.003


def test_scores_are_listed_by_set_and_row(faces):
    sets = {"clean": faces.select(np.array([4, 9])), "accessory": faces.select(np.array([7]))}
    table = score_sets(lambda images: images.mean(axis=(1, 2, 3)), sets)
    means = faces.read(np.array([4, 9, 7])).mean(axis=(1, 2, 3))
    expected = pd.DataFrame({"set": ["clean", "clean", "accessory"], "row": [4, 9, 7], "score": means})
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)


def test_leftovers_of_a_removed_attack_are_refused(faces, tmp_path):
    folder = tmp_path / "triggered"
    folder.mkdir()
    for name in ("blended", "accessory"):
        (folder / f"{name}.h5").write_bytes(faces.path.read_bytes())
    assert list(triggered_sets(folder, {"blended", "accessory", "eyebrows"})) == ["accessory", "blended"]
    with pytest.raises(UserError, match=r"accessory\.h5 belongs to no block of backdoors; delete it"):
        triggered_sets(folder, {"blended"})


def test_picture_is_written_and_repeats(faces, tmp_path):
    for name in ("a.png", "b.png"):
        picture(lambda images: 255 - images, {"clean": faces.select()}, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
