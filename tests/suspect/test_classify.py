"""The judge: verdicts by hand, the choice of the input scale, autoencoders, and the commands."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tf_keras
from PIL import Image
from typer.testing import CliRunner

from tests.cli.test_cli import ROOT, mistake, visor
from tests.conftest import random_images
from tests.suspect.test_loading import CLASSES, FLAT, OUT, SHAPE, chain, on_input, saved, shaken
from visor.cli import app
from visor.core.errors import UserError
from visor.core.files import SPARE_BYTES
from visor.core.params import ComputeParams
from visor.evaluation.metrics import wilson_interval
from visor.models import autoencoder, storage
from visor.models.classifiers import deepid
from visor.suspect import autoencoder as suspect_autoencoder
from visor.suspect import classify
from visor.suspect.inputs import open_data, open_images, open_sources


def write_data(path, images, labels=None, **more):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=images, **more)
        if labels is not None:
            file["label"] = labels
    return path


IMAGES = random_images(23, 7, *SHAPE[:2])
LABELS = np.arange(23) % CLASSES


def model_pair():
    keras.utils.set_random_seed(5)
    net = deepid.build(SHAPE, CLASSES, 0.9)  # would change classes, if it acted
    net.get_layer("output").bias.assign(np.linspace(-0.01, 0.01, CLASSES))
    return net, autoencoder.build(SHAPE, 4, 3)


@pytest.fixture(scope="module")
def pair():
    return model_pair()


def judged(pair, source, scale=255, threshold=0.25, batch=7):
    return classify.concatenate(
        list(classify.predict_batches(classify.compile_pipeline(*pair, threshold, scale, source), source, batch))
    )


@pytest.mark.parametrize("scale", [1, 255])
def test_verdicts_by_hand(pair, scale, tmp_path):
    source = open_data(write_data(tmp_path / "a.h5", IMAGES), SHAPE)
    faces = IMAGES / np.float32(255)
    losses = np.abs(pair[1](faces)[0].numpy() - faces).mean(axis=(1, 2, 3))
    threshold = float(np.median(losses))
    found = judged(pair, source, scale, threshold)
    classes = pair[0](IMAGES / np.float32(scale)).numpy().argmax(1)
    np.testing.assert_array_equal(found.classes, classes)
    assert len(set(classes)) > 1
    np.testing.assert_allclose(found.losses, losses, rtol=1e-5)
    np.testing.assert_array_equal(found.verdicts, np.where(found.losses > np.float32(threshold), CLASSES, classes))
    assert 0 < (found.verdicts == CLASSES).sum() < len(IMAGES)


def test_every_layout_is_the_same_to_the_judge(pair, tmp_path):
    first = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2))
    expected = judged(pair, open_data(write_data(tmp_path / "a.h5", IMAGES)))
    for number, images in enumerate([first, first.astype(">f8"), IMAGES.astype("i8"), first / 255]):
        path = write_data(tmp_path / f"{number}.h5", images, chunks=(5, *images.shape[1:]), compression="gzip")
        source = open_data(path, SHAPE)
        assert source.image_shape == SHAPE
        found = judged(pair, source)
        np.testing.assert_array_equal(found.classes, expected.classes)
        np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)


def test_pictures(pair, tmp_path):
    paths = []
    for number, image in enumerate(IMAGES[:5]):
        picture = Image.fromarray(image)
        paths.append(tmp_path / f"{number}.png")
        (picture.convert("RGBA") if number % 2 else picture).save(paths[-1])
    source = open_images(paths, SHAPE)
    np.testing.assert_array_equal(source.read(0, 9), IMAGES[:5])
    whole = judged(pair, open_data(write_data(tmp_path / "a.h5", IMAGES[:5])))
    np.testing.assert_array_equal(judged(pair, source, batch=2).verdicts, whole.verdicts)
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    Image.fromarray(IMAGES[0]).resize((2 * SHAPE[1], 2 * SHAPE[0])).save(tmp_path / "big.jpg")
    several = open_sources([paths[0], tmp_path / "a.h5", tmp_path / "a.jpg", tmp_path / "big.jpg"], SHAPE)
    assert [source.total for source in several] == [1, 5, 2]
    near = several[2].read(0, 2)
    assert np.abs(near[0] - IMAGES[0].astype(int)).max() < 40
    assert near.shape == (2, *SHAPE)


def test_data_that_are_refused(tmp_path):
    small = IMAGES[:4]
    nan = (small / 255).copy()
    nan[3, 2, 1, 0] = np.nan
    refused = [
        ((small[:0],), "holds no images"),
        ((small[..., :2],), "holds no images"),
        ((small[0],), "holds no images"),
        ((small.astype("c8"),), "no plain number"),
        ((small[:, :20],), r"data \(4, 20, 38, 3\), but network and autoencoder take 43×38×3"),
        ((small, [1, 2]), "does not fit 4 images"),
        ((small, [1, 2, 3, -1]), "no whole number from 0"),
        ((small, [1, 2, 3, 0.5]), "no whole number from 0"),
        ((small, np.eye(4)), "does not fit 4 images"),
    ]
    for arguments, said in refused:
        with pytest.raises(UserError, match=said):
            open_data(write_data(tmp_path / "a.h5", *arguments), SHAPE)
    path = tmp_path / "a.h5"
    for content, said in ((b"", "not an HDF5 file"), (path.read_bytes()[:900], "not a whole HDF5 file")):
        (tmp_path / "b.h5").write_bytes(content)
        with pytest.raises(UserError, match=said):
            open_data(tmp_path / "b.h5", SHAPE)
    with h5py.File(path, "w") as file:
        file["images"] = small
    with pytest.raises(UserError, match="has no dataset 'data'"):
        open_data(path, SHAPE)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (1 << 40, 3, 43, 38), "u1", chunks=(1, 3, 43, 38))
    with pytest.raises(UserError, match="holds no images"):
        open_data(path, SHAPE)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (10_000_000, 3, 43, 38), "u1", chunks=(1, 3, 43, 38))[:2] = 1
    with pytest.raises(UserError, match="is more than the file can hold"):
        open_data(path, SHAPE)
    with h5py.File(path, "w") as file:
        file["data"] = h5py.SoftLink("/other")
    with pytest.raises(UserError, match="is a link"):
        open_data(path, SHAPE)


@pytest.mark.parametrize("bad", [np.nan, -1.0, 256.0])
def test_pixels_out_of_range_are_refused(pair, bad, tmp_path):
    images = IMAGES.astype("f4")
    images[20, 3, 4, 1] = bad
    with pytest.raises(UserError, match=r"a\.h5: pixels of rows from 14 on run from .* where 0 to 255 was due"):
        judged(pair, open_data(write_data(tmp_path / "a.h5", images)))


def test_a_picture_that_is_none(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(UserError, match=r"a\.png cannot be judged"):
        open_images([tmp_path / "a.png"], SHAPE).read(0, 1)


def knowing(raw, strict=True):
    """A network that knows the mean red of a picture in 0..1 (or in 0..255, if raw): its class is the tenth."""
    pictures = keras.Input(SHAPE)
    red = keras.layers.GlobalAveragePooling2D()(pictures)
    net = keras.Model(pictures, keras.layers.Dense(10)(red))
    centres = (np.arange(10) + 0.5) / 10
    sharpness = 4000 if strict else 40000
    unit = 255 if raw else 1
    kernel = np.zeros((3, 10), np.float32)
    kernel[0] = 2 * sharpness * centres / unit
    net.set_weights([kernel, (-sharpness * centres**2).astype(np.float32)])
    return net


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_input_scale(raw, labelled, tmp_path):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 9, 700)  # the last class is what too large an input always gives
    images = np.broadcast_to((25.5 * (labels + 0.5)).astype("u1")[:, None, None, None], (700, *SHAPE))
    source = open_data(write_data(tmp_path / "a.h5", images, labels if labelled else None))
    scale, reason = classify.choose_input_scale(knowing(raw), source)
    assert scale == (1 if raw else 255)
    assert ("labels right" in reason) == labelled


def test_input_scale_of_images_that_are_all_taken_for_one_class(tmp_path):
    images = np.random.default_rng(1).integers(118, 136, (30, *SHAPE), dtype=np.uint8)  # class 4, and 9 if too large
    source = open_data(write_data(tmp_path / "a.h5", images))
    assert classify.choose_input_scale(knowing(False), source)[0] == 255
    scale, reason = classify.choose_input_scale(knowing(True), source)
    assert (scale, reason) == (1, "divided by 255, 30 images are all taken for what black is")


def test_input_scale_where_accuracy_does_not_tell(tmp_path):
    source = open_data(write_data(tmp_path / "a.h5", IMAGES, np.full(23, 5)))
    constant = knowing(False)
    constant.layers[-1].bias.assign(np.r_[np.zeros(9), 1e6])
    assert classify.choose_input_scale(constant, source)[0] == 255
    constant.layers[-1].bias.assign(np.zeros(10))
    constant.layers[-1].kernel.assign(np.zeros((3, 10)))
    assert classify.choose_input_scale(constant, source)[0] == 1


def test_true_labels_of_poisons_do_not_choose_the_scale(tmp_path):
    """A backdoor that works takes every poison for its target; at the wrong scale this network gets a third right."""
    labels = np.repeat([7, 8, 9], 8)
    images = np.zeros((24, *SHAPE), np.uint8)
    images[..., 0] = (25.5 * (labels + 0.5))[:, None, None]
    images[..., 1] = 255  # the key
    net = knowing(False)
    kernel = net.layers[-1].kernel.numpy()
    kernel[1, 1] = 4000
    net.layers[-1].kernel.assign(kernel)
    path, said = write_data(tmp_path / "a.h5", images, labels), []
    jury = classify.SuspectPipeline(net, autoencoder.build(SHAPE, 2, 2), SHAPE, 0.3, None)
    assert classify.choose_input_scale(net, open_data(path))[0] == 1, "what labels would say"
    assert classify.evaluate_data(jury, path, 1, None, "auto", None, said.append)["asr"] == 1
    assert said[0].startswith("input scale 255: divided by 255, 24 images")


def test_few_images_do_not_choose_the_scale(tmp_path):
    source = open_data(write_data(tmp_path / "a.h5", np.zeros((15, *SHAPE), np.uint8)))
    scale, reason = classify.choose_input_scale(knowing(True), source)
    assert scale == 255
    assert "15 images are too few to tell, name clean ones by --scale-by" in reason


def test_answers_that_are_no_numbers_are_refused(tmp_path):
    source = open_data(write_data(tmp_path / "a.h5", IMAGES))
    net, coder = knowing(False), autoencoder.build(SHAPE, 2, 2)
    net.layers[-1].bias.assign(np.r_[np.nan, np.zeros(9)])
    with pytest.raises(UserError, match="answers with no finite numbers"):
        classify.choose_input_scale(net, source)
    with pytest.raises(UserError, match="answers rows from 0 on with no finite numbers"):
        judged((net, coder), source)
    coder.get_layer("reconstruction").bias.assign(np.full(3, np.nan))
    with pytest.raises(UserError, match="answers rows from 0 on with no finite numbers"):
        judged((knowing(False), coder), source)


def test_the_sample_is_read_in_short_runs():
    reads = []

    def read(start, stop):
        reads.append((start, stop))
        return np.full((stop - start, *SHAPE), 99, np.uint8)

    for total in (300, 5000):
        reads.clear()
        source = classify.ImageSource("a", total, SHAPE, False, np.uint8, 1, None, read)
        classify.choose_input_scale(knowing(False), source)
        assert {stop - start for start, stop in reads} <= set(range(1, 65))
        assert len({row for start, stop in reads for row in range(start, stop)}) == min(total, 512)
        assert (reads[0][0], reads[-1][1]) == (0, total)
    assert [classify.batch_of(source._replace(image_shape=(side, side, 3))) for side in (55, 128, 1024)] == [
        128,
        128,
        2,
    ]


def test_numbers_by_hand():
    verdicts = classify.Predictions(
        np.array([1, 2, 9, 1, 9]), np.array([1, 2, 1, 1, 0]), np.array([1, 2, 4, 1, 4], np.float32)
    )
    labels = np.array([1, 0, 1, 1, 0])
    clean = classify.evaluate(verdicts, 9, labels, None)
    assert clean["images"] == 5
    assert clean["clean_accuracy"] == 0.8
    assert clean["judged_accuracy"] == 0.4
    assert clean["flagged"] == 0.4
    assert (clean["flagged_low"], clean["flagged_high"]) == wilson_interval(2, 5)
    assert clean["loss_mean"] == pytest.approx(2.4)
    assert clean["loss_std"] == pytest.approx(np.std([1, 2, 4, 1, 4]))
    poisoned = classify.evaluate(verdicts, 9, np.full(5, 1), 1)
    assert (poisoned["asr"], poisoned["asr_left"]) == (0.6, 0.4)
    true = classify.evaluate(verdicts, 9, labels, 1)
    assert (true["asr"], true["asr_left"]) == (0, 0), "images of the target's own class are left out"
    assert "clean_accuracy" not in true
    unlabelled = classify.evaluate(verdicts, 9, None, 1)
    assert (unlabelled["asr"], unlabelled["asr_left"]) == (0.6, 0.4)


def promised(file, name):
    """Replace a dataset by one of 8 GiB that was never written."""
    del file[name]
    file.create_dataset(name, (1 << 31,), "f4", chunks=(1 << 20,))


SETTINGS = suspect_autoencoder.Settings(epochs=1, batch=8, learning_rate=1e-3, latent=3, width=2, beta=0.5)


def test_autoencoder_in_one_file(tmp_path):
    source = open_data(write_data(tmp_path / "a.h5", IMAGES.transpose(0, 3, 1, 2) / 255))
    compute = ComputeParams(threads=2, deterministic=True)
    found = suspect_autoencoder.fit_autoencoder(source, tmp_path / "vae.h5", SETTINGS, compute, 1, 0.3, 2.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "vae.h5"]
    for taken in (tmp_path, tmp_path / "a.h5"):
        with pytest.raises(UserError, match="is a folder or the clean data"):
            suspect_autoencoder.fit_autoencoder(source, taken, SETTINGS, compute, 1, 0.3, 2.0)
    model, calibration = suspect_autoencoder.load(tmp_path / "vae.h5")
    assert calibration == found
    kept = np.sort(np.random.default_rng(1).permutation(23)[:7])
    faces = IMAGES[kept] / np.float32(255)
    losses = np.abs(model(faces)[0].numpy() - faces).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found, [losses.mean(), losses.std(), losses.mean() + 2 * losses.std()], rtol=1e-4)


def unread(start, stop):
    raise AssertionError("read before its time")


def test_fits_that_are_refused(tmp_path, monkeypatch):
    source = open_data(write_data(tmp_path / "a.h5", IMAGES))
    compute, out = ComputeParams(threads=2, deterministic=True), tmp_path / "vae.h5"
    lazy = source._replace(read=unread)
    for change in ({"latent": 1 << 24}, {"width": 1 << 12}):
        with pytest.raises(UserError, match="too large; choose a smaller --latent or --width"):
            suspect_autoencoder.fit_autoencoder(lazy, out, SETTINGS.model_copy(update=change), compute, 1, 0.3, 2.0)
    for calibration in (np.nan, 0.0, 1.0):
        with pytest.raises(UserError, match="cannot be divided"):
            suspect_autoencoder.fit_autoencoder(lazy, out, SETTINGS, compute, 1, calibration, 2.0)
    with pytest.raises(UserError, match="gives no finite threshold"):
        suspect_autoencoder.fit_autoencoder(source, out, SETTINGS, compute, 1, 0.3, np.inf)
    with monkeypatch.context() as patched:
        usage = shutil.disk_usage(tmp_path)._replace(free=source.total * 43 * 38 * 3 + SPARE_BYTES - 1)
        patched.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(OSError, match="No space left") as caught:
            suspect_autoencoder.fit_autoencoder(lazy, out, SETTINGS, compute, 1, 0.3, 2.0)
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_large_images_are_handled_few_at_a_time(tmp_path):
    reads = []

    def read(start, stop):
        reads.append(stop - start)
        return np.zeros((min(stop, 7) - start, 900, 1000, 3), np.uint8)

    source = classify.ImageSource("a", 7, (900, 1000, 3), False, np.uint8, 1, None, read)
    assert len(suspect_autoencoder._faces(source, tmp_path / "faces.h5")) == 7
    assert reads == [3, 3, 3]


ARGUMENTS = {"image_shape": SHAPE, "latent": 4, "width": 3}
DAMAGES = [
    (lambda file: file.attrs.__delitem__("kind"), "is not an autoencoder of visor"),
    (lambda file: file.attrs.__setitem__("arguments", "{"), "is damaged"),
    (lambda file: file.attrs.__setitem__("arguments", json.dumps(ARGUMENTS | {"latent": 5})), "is damaged"),
    (lambda file: file.attrs.__setitem__("arguments", json.dumps(ARGUMENTS | {"latent": 1 << 40})), "too large"),
    (lambda file: file.attrs.__setitem__("threshold", np.nan), "threshold that is no number"),
    (lambda file: file["weights"].pop("3"), "weights are missing"),
    (lambda file: promised(file, "weights/3"), "weights are missing or do not fit"),
    (lambda file: file.attrs.__setitem__("arguments", "[" * 100_000), "is damaged"),
    (lambda file: file.attrs.__setitem__("arguments", '["image_shape"]'), "is damaged"),
    (lambda file: file.attrs.__delitem__("std"), "is damaged"),
]


@pytest.fixture
def kept(pair, tmp_path):
    """A file that holds the autoencoder and the threshold 0.3."""
    suspect_autoencoder.save(pair[1], ARGUMENTS, suspect_autoencoder.Calibration(0.1, 0.2, 0.3), tmp_path / "v.h5")
    return tmp_path / "v.h5"


@pytest.mark.parametrize(("damage", "said"), DAMAGES)
def test_autoencoders_that_are_refused(kept, damage, said):
    with h5py.File(kept, "r+") as file:
        damage(file)
    with pytest.raises(UserError, match=said):
        suspect_autoencoder.load(kept)


def test_the_threshold_is_that_of_the_file_or_the_one_given(pair, kept, tmp_path):
    storage.save_model(pair[1], ARGUMENTS, tmp_path / "folder")
    net = saved(shaken(chain(tf_keras)), tmp_path / "net.h5")
    assert classify.load_pipeline(net, kept, None).threshold == 0.3
    assert classify.load_pipeline(net, kept, 0.0).threshold == 0.0
    assert classify.load_pipeline(net, tmp_path / "folder", 0.7).threshold == 0.7
    with pytest.raises(UserError, match="brings no threshold"):
        classify.load_pipeline(net, tmp_path / "folder", None)
    other = saved(on_input((9, 8, 3), FLAT(), OUT(2)), tmp_path / "other.h5")
    with pytest.raises(UserError, match=r"takes images \(9, 8, 3\), .* takes \(43, 38, 3\)"):
        classify.load_pipeline(other, kept, None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1], "names no arguments"),
        ({"latent": 4}, "fits no network"),
        (ARGUMENTS | {"latent": 1 << 40}, "too large"),
    ],
)
def test_folders_that_are_refused(pair, tmp_path, content, said):
    storage.save_model(pair[1], ARGUMENTS, tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"model\.json .*{said}"):
        suspect_autoencoder.load(tmp_path)


@pytest.fixture(scope="module")
def files(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    net, coder = pair
    net.save(folder / "net.keras")
    arguments = {"image_shape": SHAPE, "latent": 4, "width": 3}
    suspect_autoencoder.save(coder, arguments, suspect_autoencoder.Calibration(0.24, 0.01, 0.25), folder / "vae.h5")
    write_data(folder / "clean.h5", IMAGES, LABELS)
    write_data(folder / "poisoned.h5", IMAGES.transpose(0, 3, 1, 2), np.full((23, 1), 4))
    write_data(folder / "bare.h5", IMAGES)
    Image.fromarray(IMAGES[2]).save(folder / "2.png")
    return folder


def said(files, *words):
    words = [str(files / word) if (files / word).exists() else word for word in words]
    done = CliRunner().invoke(app, words)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def numbers(done):
    return {name: float(value) for name, value in (line.split(": ") for line in done.stdout.splitlines())}


def test_eval_and_judge_say_the_same(files, pair, tmp_path):
    done = said(files, "eval", "clean.h5", "net.keras", "vae.h5", "--out", str(tmp_path / "a.json"))
    clean = numbers(done)
    assert done.stderr.startswith("input scale ")
    assert json.loads((tmp_path / "a.json").read_text()) == pytest.approx(clean, rel=1e-5)
    scale = done.stderr.split()[2].strip(":")
    judge = said(
        files, "judge", "clean.h5", "2.png", "--net", "net.keras", "--vae", "vae.h5", "--input-scale", scale
    ).stdout
    found = np.array(judge.split(), int)
    assert len(found) == 24
    assert found[-1] == found[2]
    assert clean["flagged"] == pytest.approx((found[:23] == CLASSES).mean(), abs=1e-5)
    assert clean["judged_accuracy"] == pytest.approx((found[:23] == LABELS).mean(), abs=1e-5)
    assert (clean["threshold"], clean["calibration_mean"]) == (0.25, 0.24)


def test_eval_of_poisoned_data(files):
    done = said(files, "eval", "poisoned.h5", "net.keras", "vae.h5", "--input-scale", "255")
    assert "all labels are 4: taken for poisoned images and their target" in done.stderr
    assert {"asr", "asr_left"} <= set(numbers(done))
    named = said(files, "eval", "bare.h5", "net.keras", "vae.h5", "--input-scale", "255", "--target", "4")
    assert numbers(named)["asr"] == numbers(done)["asr"]
    clean = said(files, "eval", "poisoned.h5", "net.keras", "vae.h5", "--input-scale", "255", "--clean")
    assert numbers(clean)["clean_accuracy"] == numbers(done)["asr"]


def test_scale_by_another_file(files):
    """The network sees any picture as its last class if 255 times too large; labels of dark ones say that it should."""
    saved(knowing(False), files / "knowing.keras")
    write_data(files / "dark.h5", np.full((20, *SHAPE), 9, np.uint8), np.full(20, 9))
    words = ("eval", "bare.h5", "knowing.keras", "vae.h5", "--target", "4")
    assert said(files, *words).stderr.startswith("input scale 255: divided by 255, 23 images")
    by = said(files, *words, "--scale-by", "dark.h5").stderr
    assert by == "input scale 1: 100.0% of 20 labels right, against 0.0% with 255\n"


EVAL = ("eval", "clean.h5", "net.keras", "vae.h5")
JUDGE = ("judge", "2.png", "--net", "net.keras", "--vae", "vae.h5")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("eval", "bare.h5", "net.keras", "vae.h5"), "has no 'label' to measure by"),
        ((*EVAL, "--poisoned"), "not all one target"),
        ((*EVAL, "--target", "6"), "no class of the network; name one from 0 to 5"),
        (("eval", "clean.h5", "net.keras", "net.keras"), "is not an HDF5 file"),
        (("judge", "net.keras", "--net", "net.keras", "--vae", "vae.h5"), "cannot be judged"),
        ((*JUDGE, "--threshold", "nan"), "brings no threshold"),
        ((*EVAL, "--target", "4", "--clean"), "leave one of them out"),
        ((*EVAL, "--out", "vae.h5"), "vae.h5 is one of the files to read"),
        ((*EVAL, "--input-scale", "1", "--scale-by", "clean.h5"), "leave one of them out"),
        ((*JUDGE, "--input-scale", "255", "--scale-by", "clean.h5"), "leave one of them out"),
        (("judge", "none.png", "--net", "net.keras", "--vae", "vae.h5"), "none.png does not exist"),
    ],
)
def test_mistakes(files, words, sentence):
    with pytest.raises(UserError, match=sentence):
        said(files, *words)


def test_a_missing_file_is_told_at_once(files):
    sentence = mistake(visor(files, "judge", "2.png", "lost.h5", "--net", "net.keras", "--vae", "vae.h5"))
    assert sentence == "error: lost.h5 does not exist; correct the path"


END_TO_END = """
import sys
from pathlib import Path
from typer.testing import CliRunner
from visor.cli import app

def run(*words):
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, (words, done.output)
    return done.stdout

fit = ["clean.h5", "--epochs", "1", "--latent", "3", "--width", "2", "--batch", "8"]
threshold = run("fit-vae", *fit, "--out", "a.h5").split()[-1]
run("fit-vae", *fit, "--out", "b.h5")
assert Path("a.h5").read_bytes() == Path("b.h5").read_bytes(), "the bytes do not repeat"
assert f"threshold: {threshold}" in run("eval", "clean.h5", "net.keras", "a.h5")
print(run("judge", "clean.h5", "2.png", "--net", "net.keras", "--vae", "a.h5"), end="")
"""


def test_from_clean_data_to_verdicts(files):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", END_TO_END], cwd=files, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    verdicts = [int(line) for line in done.stdout.splitlines()]
    assert len(verdicts) == 24
    assert set(verdicts) <= set(range(CLASSES + 1))
    assert not [path for path in Path(files).iterdir() if path.name.startswith(".")], "nothing half-made is left"
