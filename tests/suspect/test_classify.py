"""Classification of untrusted images: predictions, the choice of the input scale, autoencoders, and the commands."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tf_keras
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import random_images
from tests.support.commands import read_error, run_visor
from tests.support.networks import CLASSES, SHAPE, build_chain, randomise_weights, save_network, stack
from tests.support.project import ROOT
from visor.cli import app
from visor.core.errors import UserError
from visor.core.files import SPARE_BYTES
from visor.core.params import AutoencoderParams, ComputeParams
from visor.defences.api import fit_input_filter
from visor.defences.conformal import conformal_threshold
from visor.evaluation.metrics import wilson_interval
from visor.models import autoencoder, storage
from visor.models.classifiers import deepid
from visor.suspect import autoencoder as suspect_autoencoder
from visor.suspect import classify, defence
from visor.suspect.input_scale import choose_input_scale
from visor.suspect.inputs import ImageSource, batch_size, open_data, open_images, open_sources


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


def predict(pair, source, scale=255, threshold=0.25, batch=7):
    run = classify.compile_pipeline(make_pipeline(pair, threshold), scale, source)
    parts = list(classify.predict_batches(run, source, batch))
    return classify.Predictions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def make_pipeline(pair, threshold=0.25):
    return classify.SuspectPipeline(*pair, SHAPE, threshold, None)


@pytest.mark.parametrize("scale", [1, 255])
def test_predictions_by_hand(pair, scale, tmp_path):
    source = open_data(write_data(tmp_path / "a.h5", IMAGES), SHAPE)
    faces = IMAGES / np.float32(255)
    losses = np.abs(pair[1](faces)[0].numpy() - faces).mean(axis=(1, 2, 3))
    threshold = float(np.median(losses))
    predictions = predict(pair, source, scale, threshold)
    classes = pair[0](IMAGES / np.float32(scale)).numpy().argmax(1)
    np.testing.assert_array_equal(predictions.classes, classes)
    assert len(set(classes)) > 1
    np.testing.assert_allclose(predictions.scores, losses, rtol=1e-5)
    np.testing.assert_array_equal(
        predictions.decisions, np.where(predictions.scores > np.float32(threshold), CLASSES, classes)
    )
    assert 0 < (predictions.decisions == CLASSES).sum() < len(IMAGES)


def test_predictions_do_not_depend_on_the_layout(pair, tmp_path):
    first = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2))
    expected = predict(pair, open_data(write_data(tmp_path / "a.h5", IMAGES)))
    for number, images in enumerate([first, first.astype(">f8"), IMAGES.astype("i8"), first / 255]):
        path = write_data(tmp_path / f"{number}.h5", images, chunks=(5, *images.shape[1:]), compression="gzip")
        source = open_data(path, SHAPE)
        assert source.image_shape == SHAPE
        predictions = predict(pair, source)
        np.testing.assert_array_equal(predictions.classes, expected.classes)
        np.testing.assert_allclose(predictions.scores, expected.scores, rtol=1e-5)


def test_image_files(pair, tmp_path):
    paths = []
    for number, image in enumerate(IMAGES[:5]):
        file = Image.fromarray(image)
        paths.append(tmp_path / f"{number}.png")
        (file.convert("RGBA") if number % 2 else file).save(paths[-1])
    source = open_images(paths, SHAPE)
    np.testing.assert_array_equal(source.read(0, 9), IMAGES[:5])
    whole = predict(pair, open_data(write_data(tmp_path / "a.h5", IMAGES[:5])))
    np.testing.assert_array_equal(predict(pair, source, batch=2).decisions, whole.decisions)
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    Image.fromarray(IMAGES[0]).resize((2 * SHAPE[1], 2 * SHAPE[0])).save(tmp_path / "big.jpg")
    several = open_sources([paths[0], tmp_path / "a.h5", tmp_path / "a.jpg", tmp_path / "big.jpg"], SHAPE)
    assert [source.total for source in several] == [1, 5, 2]
    near = several[2].read(0, 2)
    assert np.abs(near[0] - IMAGES[0].astype(int)).max() < 40
    assert near.shape == (2, *SHAPE)


def test_data_that_is_refused(tmp_path):
    small = IMAGES[:4]
    nan = (small / 255).copy()
    nan[3, 2, 1, 0] = np.nan
    refused = [
        ((small[:0],), "has no images"),
        ((small[..., :2],), "has no images"),
        ((small[0],), "has no images"),
        ((small.astype("c8"),), "is not numeric"),
        ((small[:, :20],), r"data \(4, 20, 38, 3\), but network and autoencoder take 43×38×3"),
        ((small, [1, 2]), "does not fit 4 images"),
        ((small, [1, 2, 3, -1]), "not a whole number from 0"),
        ((small, [1, 2, 3, 0.5]), "not a whole number from 0"),
        ((small, np.eye(4)), "does not fit 4 images"),
    ]
    for arguments, message in refused:
        with pytest.raises(UserError, match=message):
            open_data(write_data(tmp_path / "a.h5", *arguments), SHAPE)
    path = tmp_path / "a.h5"
    for content, message in ((b"", "not an HDF5 file"), (path.read_bytes()[:900], "not a whole HDF5 file")):
        (tmp_path / "b.h5").write_bytes(content)
        with pytest.raises(UserError, match=message):
            open_data(tmp_path / "b.h5", SHAPE)
    with h5py.File(path, "w") as file:
        file["images"] = small
    with pytest.raises(UserError, match="has no dataset 'data'"):
        open_data(path, SHAPE)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (1 << 40, 3, 43, 38), "u1", chunks=(1, 3, 43, 38))
    with pytest.raises(UserError, match="has no images"):
        open_data(path, SHAPE)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (10_000_000, 3, 43, 38), "u1", chunks=(1, 3, 43, 38))[:2] = 1
    with pytest.raises(UserError, match="is more than it can hold"):
        open_data(path, SHAPE)
    with h5py.File(path, "w") as file:
        file["data"] = h5py.SoftLink("/other")
    with pytest.raises(UserError, match="is a link"):
        open_data(path, SHAPE)


@pytest.mark.parametrize("bad", [np.nan, -1.0, 256.0])
def test_pixels_out_of_range_are_refused(pair, bad, tmp_path):
    images = IMAGES.astype("f4")
    images[20, 3, 4, 1] = bad
    with pytest.raises(UserError, match=r"a\.h5: pixels of rows from 14 on run from .* instead of 0 to 255"):
        predict(pair, open_data(write_data(tmp_path / "a.h5", images)))


def test_an_image_that_cannot_be_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(UserError, match=r"a\.png cannot be decoded"):
        open_images([tmp_path / "a.png"], SHAPE).read(0, 1)


def build_red_network(raw, strict=True):
    """A network that classifies images in 0..1 (in 0..255, if raw) by the tenth that their mean red is in."""
    images = keras.Input(SHAPE)
    red = keras.layers.GlobalAveragePooling2D()(images)
    net = keras.Model(images, keras.layers.Dense(10)(red))
    centres = (np.arange(10) + 0.5) / 10
    sharpness = 4000 if strict else 40000
    unit = 255 if raw else 1
    kernel = np.zeros((3, 10), np.float32)
    kernel[0] = 2 * sharpness * centres / unit
    net.set_weights([kernel, (-sharpness * centres**2).astype(np.float32)])
    return net


def test_accuracy_tells_the_input_scale(tmp_path):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 9, 700)  # the last class is what too large an input always gives
    images = np.broadcast_to((25.5 * (labels + 0.5)).astype("u1")[:, None, None, None], (700, *SHAPE))
    source = open_data(write_data(tmp_path / "a.h5", images, labels))
    for raw in (False, True):
        scale, reason = choose_input_scale(build_red_network(raw), source)
        assert scale == (1 if raw else 255)
        assert reason.startswith("accuracy 100.0% on 512 labels, ")


def test_input_scale_of_images_that_are_all_taken_for_one_class(tmp_path):
    """And so is black: what is divided by 255 moves the outputs of a network of raw pixels by a fraction of a nat."""
    images = np.random.default_rng(1).integers(118, 136, (30, *SHAPE), dtype=np.uint8)  # class 4, and 9 if too large
    source = open_data(write_data(tmp_path / "a.h5", images))
    for raw in (False, True):
        network = build_red_network(raw)
        network.layers[-1].kernel.assign(network.layers[-1].kernel / 200)
        network.layers[-1].bias.assign(network.layers[-1].bias / 200)
        scale, reason = choose_input_scale(network, source)
        assert scale == (1 if raw else 255)
        assert reason.startswith(
            "30 images are predicted as 1 classes if divided by 255, as 1 if not; divided, they move"
        )


def test_input_scale_where_accuracy_does_not_tell(tmp_path):
    source = open_data(write_data(tmp_path / "a.h5", IMAGES, np.full(23, 5)))
    constant = build_red_network(False)
    constant.layers[-1].bias.assign(np.r_[np.zeros(9), 1e6])
    assert choose_input_scale(constant, source)[0] == 255, "they move the outputs, though not enough"
    constant.layers[-1].kernel.assign(np.zeros((3, 10)))
    assert choose_input_scale(constant, source)[0] == 1


def test_true_labels_of_poisons_do_not_choose_the_scale(tmp_path):
    """A backdoor that works takes every poison for its target; at the wrong scale this network gets a third right."""
    labels = np.repeat([7, 8, 9], 8)
    images = np.zeros((24, *SHAPE), np.uint8)
    images[..., 0] = (25.5 * (labels + 0.5))[:, None, None]
    images[..., 1] = 255  # the key
    net = build_red_network(False)
    kernel = net.layers[-1].kernel.numpy()
    kernel[1, 1] = 4000
    net.layers[-1].kernel.assign(kernel)
    path, messages = write_data(tmp_path / "a.h5", images, labels), []
    pipeline = make_pipeline((net, autoencoder.build(SHAPE, 2, 2)), 0.3)
    assert choose_input_scale(net, open_data(path))[0] == 1, "what labels would say"
    assert classify.evaluate_data(pipeline, path, 1, None, "auto", None, messages.append)["asr"] == 1
    assert messages[0].startswith("input scale 255: 24 images are predicted as 1 classes")


def test_non_finite_outputs_are_refused(tmp_path):
    source = open_data(write_data(tmp_path / "a.h5", IMAGES))
    net, coder = build_red_network(False), autoencoder.build(SHAPE, 2, 2)
    net.layers[-1].bias.assign(np.r_[np.nan, np.zeros(9)])
    with pytest.raises(UserError, match="non-finite outputs of the network"):
        choose_input_scale(net, source)
    with pytest.raises(UserError, match="non-finite outputs from row 0 on"):
        predict((net, coder), source)
    coder.get_layer("reconstruction").bias.assign(np.full(3, np.nan))
    with pytest.raises(UserError, match="non-finite outputs from row 0 on"):
        predict((build_red_network(False), coder), source)


def test_the_sample_is_read_in_short_runs():
    reads = []

    def read(start, stop):
        reads.append((start, stop))
        return np.full((stop - start, *SHAPE), 99, np.uint8)

    for total in (300, 5000):
        reads.clear()
        source = ImageSource("a", total, SHAPE, False, np.uint8, 1, None, read)
        choose_input_scale(build_red_network(False), source)
        assert {stop - start for start, stop in reads} <= set(range(1, 65))
        assert len({row for start, stop in reads for row in range(start, stop)}) == min(total, 512)
        assert (reads[0][0], reads[-1][1]) == (0, total)
    assert [batch_size(source._replace(image_shape=(side, side, 3))) for side in (55, 128, 1024)] == [
        128,
        128,
        2,
    ]


def test_numbers_by_hand():
    predictions = classify.Predictions(
        np.array([1, 2, 9, 1, 9]), np.array([1, 2, 1, 1, 0]), np.array([1, 2, 4, 1, 4], np.float32)
    )
    labels = np.array([1, 0, 1, 1, 0])
    clean = classify.evaluate(predictions, 9, labels, None)
    assert clean["images"] == 5
    assert clean["clean_accuracy"] == 0.8
    assert clean["judged_accuracy"] == 0.4
    assert clean["flagged"] == 0.4
    assert (clean["flagged_low"], clean["flagged_high"]) == wilson_interval(2, 5)
    assert clean["loss_mean"] == pytest.approx(2.4)
    assert clean["loss_std"] == pytest.approx(np.std([1, 2, 4, 1, 4]))
    poisoned = classify.evaluate(predictions, 9, np.full(5, 1), 1)
    assert (poisoned["asr"], poisoned["asr_left"]) == (0.6, 0.4)
    true = classify.evaluate(predictions, 9, labels, 1)
    assert (true["asr"], true["asr_left"]) == (0, 0), "images of the target's own class are left out"
    assert "clean_accuracy" not in true
    unlabelled = classify.evaluate(predictions, 9, None, 1)
    assert (unlabelled["asr"], unlabelled["asr_left"]) == (0.6, 0.4)


def promise(file, name):
    """Replace a dataset by one of 8 GiB that was never written."""
    del file[name]
    file.create_dataset(name, (1 << 31,), "f4", chunks=(1 << 20,))


SETTINGS = AutoencoderParams(epochs=1, batch=8, learning_rate=1e-3, latent=3, width=2, beta=0.5)


def test_autoencoder_in_one_file(tmp_path):
    source = open_data(write_data(tmp_path / "a.h5", IMAGES.transpose(0, 3, 1, 2) / 255))
    compute = ComputeParams(threads=2, deterministic=True)
    result = suspect_autoencoder.fit_autoencoder(source, tmp_path / "vae.h5", SETTINGS, compute, 1, 0.3, 2.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "vae.h5"]
    before = (tmp_path / "vae.h5").read_bytes()
    for taken, force, message in (
        (tmp_path, True, "is a folder"),
        (tmp_path / "a.h5", True, "is the clean data"),
        (tmp_path / "vae.h5", False, r"vae\.h5 exists; pass another file, or add --force"),
    ):
        with pytest.raises(UserError, match=message):
            suspect_autoencoder.fit_autoencoder(source, taken, SETTINGS, compute, 1, 0.3, 2.0, force)
    assert (tmp_path / "vae.h5").read_bytes() == before
    model, calibration = suspect_autoencoder.load(tmp_path / "vae.h5")
    assert calibration == result
    held_out = np.sort(np.random.default_rng(1).permutation(23)[:7])
    faces = IMAGES[held_out] / np.float32(255)
    losses = np.abs(model(faces)[0].numpy() - faces).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(result, [losses.mean(), losses.std(), losses.mean() + 2 * losses.std()], rtol=1e-4)


def unread(start, stop):
    raise AssertionError("read before its time")


def test_fits_that_are_refused(tmp_path, monkeypatch):
    source = open_data(write_data(tmp_path / "a.h5", IMAGES))
    compute, out = ComputeParams(threads=2, deterministic=True), tmp_path / "vae.h5"
    lazy = source._replace(read=unread)
    for change in ({"latent": 1 << 24}, {"width": 1 << 12}):
        with pytest.raises(UserError, match=r"too large \(.* weights\); choose a smaller --latent or --width"):
            suspect_autoencoder.fit_autoencoder(lazy, out, SETTINGS.model_copy(update=change), compute, 1, 0.3, 2.0)
    for calibration in (np.nan, 0.0, 1.0):
        with pytest.raises(UserError, match="too few images to fit and calibrate"):
            suspect_autoencoder.fit_autoencoder(lazy, out, SETTINGS, compute, 1, calibration, 2.0)
    with pytest.raises(UserError, match="the threshold is not finite"):
        suspect_autoencoder.fit_autoencoder(source, out, SETTINGS, compute, 1, 0.3, np.inf)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            suspect_autoencoder.fit_autoencoder(lazy, out, SETTINGS, compute, 1, 0.3, 2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(out))
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

    source = ImageSource("a", 7, (900, 1000, 3), False, np.uint8, 1, None, read)
    with tempfile.TemporaryFile() as scratch:
        faces = suspect_autoencoder._write_faces(source, scratch, tmp_path / "vae.h5")
        assert (len(faces), faces.image_shape) == (7, (900, 1000, 3))
        np.testing.assert_array_equal(faces.read(np.array([6, 1])), 0)
    assert reads == [3, 3, 3]
    assert list(tmp_path.iterdir()) == [], "images have no name on the disk, so that kill -9 leaves none"


ARGUMENTS = {"image_shape": SHAPE, "latent": 4, "width": 3}
DAMAGES = [
    (lambda file: file.attrs.__delitem__("kind"), "has no model config; save the whole model, or fit one"),
    (lambda file: file.attrs.__setitem__("arguments", "{"), "is damaged"),
    (lambda file: file.attrs.__setitem__("arguments", json.dumps(ARGUMENTS | {"latent": 5})), "is damaged"),
    (lambda file: file.attrs.__setitem__("arguments", json.dumps(ARGUMENTS | {"latent": 1 << 40})), "or .* weights"),
    (lambda file: file.attrs.__setitem__("threshold", np.nan), "threshold that is not finite"),
    (lambda file: file["weights"].pop("3"), r"is damaged \(weights .*None.* instead of"),
    (lambda file: promise(file, "weights/3"), r"is damaged \(weights .*\(2147483648,\).* instead of"),
    (lambda file: file.attrs.__setitem__("arguments", "[" * 100_000), "is damaged"),
    (lambda file: file.attrs.__setitem__("arguments", '["image_shape"]'), "is damaged"),
    (lambda file: file.attrs.__delitem__("std"), "is damaged"),
]


@pytest.fixture
def stored(pair, tmp_path):
    """A file that holds the autoencoder and the threshold 0.3."""
    suspect_autoencoder.save(pair[1], ARGUMENTS, suspect_autoencoder.Calibration(0.1, 0.2, 0.3), tmp_path / "v.h5")
    return tmp_path / "v.h5"


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_autoencoders_that_are_refused(stored, damage, message):
    with h5py.File(stored, "r+") as file:
        damage(file)
    with pytest.raises(UserError, match=message):
        suspect_autoencoder.load(stored)


def test_the_threshold_is_that_of_the_file_or_the_option(pair, stored, tmp_path):
    storage.save_model(pair[1], ARGUMENTS, tmp_path / "folder")
    net = save_network(randomise_weights(build_chain(tf_keras)), tmp_path / "net.h5")
    assert classify.load_pipeline(net, stored, None).threshold == 0.3
    assert classify.load_pipeline(net, stored, 0.0).threshold == 0.0
    assert classify.load_pipeline(net, tmp_path / "folder", 0.7).threshold == 0.7
    with pytest.raises(UserError, match="has no threshold"):
        classify.load_pipeline(net, tmp_path / "folder", None)
    other = save_network(stack((9, 8, 3), tf_keras.layers.Flatten(), tf_keras.layers.Dense(2)), tmp_path / "other.h5")
    with pytest.raises(UserError, match=r"takes images \(9, 8, 3\), .* takes \(43, 38, 3\)"):
        classify.load_pipeline(other, stored, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "has no arguments"),
        ({"latent": 4}, "is not a valid network description"),
        (ARGUMENTS | {"latent": 1 << 40}, "or .* weights"),
    ],
)
def test_folders_that_are_refused(pair, tmp_path, content, message):
    storage.save_model(pair[1], ARGUMENTS, tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"model\.json .*{message}"):
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


def run_suspect(files, *arguments):
    arguments = [str(files / argument) if (files / argument).exists() else argument for argument in arguments]
    result = CliRunner().invoke(app, ["suspect", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def read_metrics(result):
    return {name: float(value) for name, value in (line.split(": ") for line in result.stdout.splitlines())}


def test_evaluate_and_predict_agree(files, pair, tmp_path):
    result = run_suspect(files, "evaluate", "clean.h5", "net.keras", "vae.h5", "--out", str(tmp_path / "a.json"))
    clean = read_metrics(result)
    assert result.stderr.startswith("input scale ")
    assert json.loads((tmp_path / "a.json").read_text()) == pytest.approx(clean, rel=1e-5)
    scale = result.stderr.split()[2].strip(":")
    output = run_suspect(
        files, "predict", "clean.h5", "2.png", "--net", "net.keras", "--vae", "vae.h5", "--input-scale", scale
    ).stdout
    decisions = np.array(output.split(), int)
    assert len(decisions) == 24
    assert decisions[-1] == decisions[2]
    assert clean["flagged"] == pytest.approx((decisions[:23] == CLASSES).mean(), abs=1e-5)
    assert clean["judged_accuracy"] == pytest.approx((decisions[:23] == LABELS).mean(), abs=1e-5)
    assert (clean["threshold"], clean["calibration_mean"]) == (0.25, 0.24)


def test_the_size_and_batch_that_a_network_states_do_not_change_the_verdict(files, tmp_path):
    """The autoencoder's size is that of the images, whatever the network could take."""
    verdicts = []
    for shape in ((None, *SHAPE), (5, *SHAPE), (None, None, None, 3), (None, SHAPE[0], None, 3)):
        images = keras.Input(batch_shape=shape)
        features = keras.layers.Conv2D(4, 3, strides=2)(images)
        net = keras.Model(images, keras.layers.Dense(CLASSES)(keras.layers.GlobalMaxPooling2D()(features)))
        path = save_network(randomise_weights(net), tmp_path / "net.keras")
        pipeline = classify.load_pipeline(path, files / "vae.h5", None)
        assert pipeline.image_shape == pipeline.net.input_shape[1:] == SHAPE
        verdicts.append(pipeline.net(IMAGES / np.float32(255)).numpy())
    for other in verdicts[1:]:
        np.testing.assert_array_equal(other, verdicts[0])


def test_evaluate_poisoned_data(files):
    result = run_suspect(files, "evaluate", "poisoned.h5", "net.keras", "vae.h5", "--input-scale", "255")
    assert "all labels are 4: treated as the target of poisoned images; pass --clean if not" in result.stderr
    assert {"asr", "asr_left"} <= set(read_metrics(result))
    named = run_suspect(files, "evaluate", "bare.h5", "net.keras", "vae.h5", "--input-scale", "255", "--target", "4")
    assert read_metrics(named)["asr"] == read_metrics(result)["asr"]
    clean = run_suspect(files, "evaluate", "poisoned.h5", "net.keras", "vae.h5", "--input-scale", "255", "--clean")
    assert read_metrics(clean)["clean_accuracy"] == read_metrics(result)["asr"]


def test_scale_by_another_file(files):
    """The network predicts its last class for any image 255 times too bright, which is the label of the dark ones."""
    save_network(build_red_network(False), files / "knowing.keras")
    write_data(files / "dark.h5", np.full((20, *SHAPE), 9, np.uint8), np.full(20, 9))
    arguments = ("evaluate", "bare.h5", "knowing.keras", "vae.h5", "--target", "4")
    assert run_suspect(files, *arguments).stderr.startswith("input scale 255: 23 images are predicted as")
    result = run_suspect(files, *arguments, "--scale-by", "dark.h5")
    assert result.stderr == "input scale 1: accuracy 100.0% on 20 labels, 0.0% with 255\n"


@pytest.mark.parametrize("halves", [False, True])
def test_an_autoencoder_of_others_flags_images(files, halves, tmp_path):
    """Its threshold is set by clean images, or given; it is one file, or an encoder and a decoder."""
    layers = tf_keras.layers
    first, last = layers.Conv2D(4, 3, padding="same"), layers.Conv2D(3, 3, padding="same", activation="sigmoid")
    whole = randomise_weights(stack(SHAPE, first, last))
    paths = [str(save_network(whole, tmp_path / "whole.h5"))]
    if halves:
        parts = stack(SHAPE, first), stack((*SHAPE[:2], 4), last)
        encoder, decoder = (str(save_network(part, tmp_path / f"{n}.h5")) for n, part in enumerate(parts))
        paths = [encoder, "--decoder", decoder]
    arguments = ("evaluate", "clean.h5", "net.keras", *paths, "--input-scale", "255")
    metrics = read_metrics(run_suspect(files, *arguments, "--clean-data", "clean.h5"))
    faces = IMAGES / np.float32(255)
    losses = np.abs(whole.predict(faces, verbose=0) - faces).mean(axis=(1, 2, 3))
    expected = [losses.mean(), losses.std(), losses.mean() + losses.std()]
    found = [metrics[name] for name in ("calibration_mean", "calibration_std", "threshold")]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert metrics["flagged"] == pytest.approx((losses > expected[2]).mean(), abs=1e-5)
    assert 0 < metrics["flagged"] < 0.5
    given = read_metrics(run_suspect(files, *arguments, "--threshold", str(np.median(losses))))
    assert given["flagged"] == pytest.approx(11 / 23, abs=1e-5)
    with pytest.raises(UserError, match="has no threshold; set it by clean images with --clean-data, or pass --thresh"):
        run_suspect(files, *arguments)


def test_a_scale_that_is_undecided_ends_the_command(files):
    """Outputs that move too far for raw pixels, and not far enough for others."""
    undecided = build_red_network(False)
    undecided.layers[-1].set_weights([weights / 2500 for weights in undecided.layers[-1].get_weights()])
    save_network(undecided, files / "undecided.keras")
    arguments = ("suspect", "predict", "bare.h5", "--net", "undecided.keras", "--vae", "vae.h5")
    result = run_visor(files, *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    error = read_error(result)
    assert error.startswith("error: bare.h5 does not tell the input scale of the network (23 images are predicted as ")
    advice = "; pass --input-scale 255 if it takes pixels in 0..1 or 1 if it takes 0..255, or more clean images with "
    assert error.endswith(f"{advice}--scale-by")


EVALUATE = ("evaluate", "clean.h5", "net.keras", "vae.h5")
PREDICT = ("predict", "2.png", "--net", "net.keras", "--vae", "vae.h5")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "bare.h5", "net.keras", "vae.h5"), "has no 'label' to evaluate by"),
        ((*EVALUATE, "--poisoned"), "the labels are not all the same"),
        ((*EVALUATE, "--target", "6"), "not a class of the network; choose one from 0 to 5"),
        (("evaluate", "clean.h5", "net.keras", "net.keras"), r"its output \(6,\) is not an image; pass the other half"),
        (("evaluate", "clean.h5", "net.keras", "--decoder", "vae.h5"), "pass its encoder, too"),
        (("predict", "net.keras", "--net", "net.keras", "--vae", "vae.h5"), "cannot be decoded"),
        ((*PREDICT, "--threshold", "nan"), "has no threshold"),
        ((*EVALUATE, "--target", "4", "--clean"), "leave one of them out"),
        ((*EVALUATE, "--out", "vae.h5"), "vae.h5 is one of the files to read"),
        ((*EVALUATE, "--input-scale", "1", "--scale-by", "clean.h5"), "leave one of them out"),
        ((*PREDICT, "--input-scale", "255", "--scale-by", "clean.h5"), "leave one of them out"),
        (("predict", "none.png", "--net", "net.keras", "--vae", "vae.h5"), "none.png does not exist"),
    ],
)
def test_user_errors(files, arguments, message):
    with pytest.raises(UserError, match=message):
        run_suspect(files, *arguments)


def test_a_missing_file_is_one_sentence(files):
    result = run_visor(files, "suspect", "predict", "2.png", "lost.h5", "--net", "net.keras", "--vae", "vae.h5")
    assert read_error(result) == "error: lost.h5 does not exist; correct the path"


END_TO_END = """
import sys
import tempfile
from pathlib import Path
from typer.testing import CliRunner
from visor.cli import app

def run(*arguments):
    result = CliRunner().invoke(app, ["suspect", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, (arguments, result.output)
    return result.stdout

fit = ["clean.h5", "--epochs", "1", "--latent", "3", "--width", "2", "--batch", "8"]
threshold = run("fit-autoencoder", *fit, "--out", "a.h5").split()[-1]
written = Path("a.h5").read_bytes()
run("fit-autoencoder", *fit, "--out", "a.h5", "--force")
assert Path("a.h5").read_bytes() == written, "the bytes do not repeat"
assert f"threshold: {threshold}" in run("evaluate", "clean.h5", "net.keras", "a.h5")
print(run("predict", "clean.h5", "2.png", "--net", "net.keras", "--vae", "a.h5"), end="")
"""


def test_fit_evaluate_and_predict(files, tmp_path):
    """Also where the shell, and a ``keras.json`` of long ago, want another backend, order of axes and type."""
    settings = {"backend": "theano", "image_data_format": "channels_first", "floatx": "float16", "epsilon": 1}
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras/keras.json").write_text(json.dumps(settings))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HOME": str(tmp_path), "KERAS_BACKEND": "torch"}
    result = subprocess.run(
        [sys.executable, "-c", END_TO_END], cwd=files, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    decisions = [int(line) for line in result.stdout.splitlines()]
    assert len(decisions) == 24
    assert set(decisions) <= set(range(CLASSES + 1))
    assert not [path for path in Path(files).iterdir() if path.name.startswith(".")], "temporary files are left"


@pytest.fixture(scope="module")
def learned(files):
    """Many clean images of six flat colours, and a network that names colours by probabilities of raw pixels."""
    colours = np.random.default_rng(2).integers(30, 220, (CLASSES, 1, 1, 3))
    labels = np.arange(264) % CLASSES
    noise = np.random.default_rng(3).normal(0, 6, (264, *SHAPE))
    images = np.clip(colours[labels] + noise, 0, 255).astype(np.uint8)
    inputs = keras.Input(SHAPE)
    means = keras.layers.GlobalAveragePooling2D()(inputs)
    net = keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(means))
    centres = colours[:, 0, 0].T.astype(np.float32)
    net.set_weights([centres / 50, -(centres**2).sum(axis=0) / 100])
    save_network(net, files / "colours.keras")
    write_data(files / "learn.h5", images.transpose(0, 3, 1, 2), labels)
    write_data(files / "few.h5", images[:90], labels[:90])
    write_data(files / "unlabelled.h5", images / np.float32(255))
    write_data(files / "test.h5", np.concatenate([images[:12], 255 - images[:12]]), np.tile(labels[:12], 2))
    return images, labels, net


@pytest.mark.parametrize("name", ["feature_mahalanobis", "knn", "suite", "patch"])
def test_a_defence_learns_from_clean_images(files, learned, name):
    """Scores and threshold are those of the library on the same three fifths and two fifths."""
    images, labels, _ = learned
    arguments = ("predict", "test.h5", "--net", "colours.keras", "--defence", name, "--clean-data")
    result = run_suspect(files, *arguments, str(files / "learn.h5"), "--scores", "--input-scale", "1")
    decisions, scores = np.array([line.split("\t") for line in result.stdout.splitlines()], float).T
    held = np.isin(np.arange(264) % 5, (1, 3))
    classifier = defence.logits_of_unit_pixels(learned[2], 1)
    more = {} if name == "patch" else {"classifier": classifier, "clean_labels": labels[~held]}
    if name == "suite":
        more |= {"calibration_images": images[held], "calibration_labels": labels[held], "false_positive_rate": 0.03}
    score = fit_input_filter(name, images[~held], **more)
    new = np.concatenate([images[:12], 255 - images[:12]])
    threshold = 0.0 if name == "suite" else conformal_threshold(score(images[held]), 0.05)
    np.testing.assert_allclose(scores, score(new), rtol=1e-3, atol=1e-5)
    assert f"{name}: threshold {threshold:.6g}" in result.stderr
    classes = learned[2](new.astype(np.float32)).numpy().argmax(axis=1)
    np.testing.assert_array_equal(decisions, np.where(scores > threshold, CLASSES, classes))
    assert (decisions[:12] == labels[:12]).mean() > 0.8
    if name != "patch":  # which takes flat negatives for faces
        assert (decisions[12:] == CLASSES).all()


def test_labels_are_not_needed(files, learned):
    arguments = ("test.h5", "colours.keras", "--defence", "knn", "--input-scale", "1", "--clean", "--clean-data")
    with_labels, without = (
        read_metrics(run_suspect(files, "evaluate", *arguments, str(files / name)))
        for name in ("learn.h5", "unlabelled.h5")
    )
    assert with_labels.keys() == without.keys() >= {"score_mean", "flagged", "judged_accuracy", "threshold"}
    assert without["flagged"] == pytest.approx(with_labels["flagged"], abs=0.1)
    assert 0.4 < without["flagged"] < 0.7, "half of the images are negatives"


@pytest.mark.parametrize("scale", [1, 255])
def test_a_network_of_probabilities_becomes_one_of_logits(learned, scale):
    images = learned[0][:6]
    logits = defence.logits_of_unit_pixels(learned[2], scale)(images / np.float32(255)).numpy()
    chances = learned[2](images / np.float32(scale)).numpy()
    np.testing.assert_allclose(keras.ops.softmax(logits), chances, atol=1e-5)
    assert not np.allclose(logits.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--defence", "knn"), "--defence knn learns from clean images; pass an HDF5 file of them with --clean-data"),
        ((), "the reconstruction needs an autoencoder; pass one, or choose another --defence"),
        (("--defence", "svm", "--clean-data", "learn.h5"), "--defence is 'svm'; choose from feature_mahalanobis"),
        (("--defence", "high_pass", "--clean-data", "learn.h5"), "high_pass requires autoencoder"),
        (("--defence", "patch", "--clean-data", "clean.h5"), "9 images are left to set a threshold .* 59 are needed"),
        (("--defence", "suite", "--clean-data", "few.h5"), "needs more than 36 calibration faces"),
    ],
)
def test_what_a_defence_lacks_is_one_sentence(files, learned, arguments, message):
    paths = [str(files / each) if each.endswith(".h5") else each for each in arguments]
    with pytest.raises(UserError, match=message):
        run_suspect(files, "predict", "2.png", "--net", "colours.keras", "--input-scale", "1", *paths)
