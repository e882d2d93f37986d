"""Autoencoders of others: each form reconstructs as the program that wrote it does; hostile ones do not run.

Models are built and saved by Keras 2 and 3; what samples a code there is a ``Lambda`` or a class of their own.
"""

import json

import h5py
import keras
import numpy as np
import pytest
import tf_keras

from tests.conftest import random_images
from tests.support.networks import CLASSES, SHAPE, build_chain, randomise_weights, save_network, stack
from visor.core.errors import UserError
from visor.suspect import autoencoder, foreign_autoencoder
from visor.suspect.loading import load_network

LATENT = 5
IMAGES = random_images(3, 4, *SHAPE[:2]) / np.float32(255)
FORMATS = [(tf_keras, "h5"), (keras, "h5"), (keras, "keras")]


def decoder_layers(library):
    """Layers from a code to an image."""
    layers = library.layers
    return [
        layers.Dense(6 * 5 * 4, activation="elu", name="grow"),
        layers.Reshape((6, 5, 4), name="map"),
        layers.Conv2DTranspose(4, 3, strides=2, padding="same", name="double"),
        layers.LeakyReLU(0.2, name="leak"),
        layers.Conv2DTranspose(3, 4, strides=(2, 2), output_padding=1, name="again"),
        layers.UpSampling2D((2, 2), interpolation="bilinear", name="larger"),
        layers.Cropping2D(((5, 6), (4, 4)), name="cut"),
        layers.Conv2D(3, 3, padding="same", activation="sigmoid", name="image"),
    ]


def apply(steps, tensor):
    for step in steps:
        tensor = step(tensor)
    return tensor


def encode(library):
    """An image, and the mean and the logarithm of the variance of its code."""
    layers = library.layers
    images = layers.Input(SHAPE, name="photo")
    features = layers.Conv2D(4, 3, strides=2, activation="relu", name="halve")(images)
    features = layers.Flatten(name="flat")(layers.MaxPooling2D(4, name="pool")(features))
    return images, layers.Dense(LATENT, name="z_mean")(features), layers.Dense(LATENT, name="z_log_var")(features)


def draw(arguments):
    mean, log_var = arguments
    return mean + 10 + log_var


class Sampling3(keras.layers.Layer):
    def call(self, mean, log_var=None):
        return draw(mean if log_var is None else (mean, log_var))


class Sampling2(tf_keras.layers.Layer):
    def call(self, mean, log_var=None):
        return draw(mean if log_var is None else (mean, log_var))


def sample_by_lambda(library, mean, log_var):
    return library.layers.Lambda(draw, output_shape=(LATENT,), name="z")([mean, log_var])


def sample_by_class(library, mean, log_var):
    return (Sampling3 if library is keras else Sampling2)(name="code")([mean, log_var])


def sample_by_two_arguments(library, mean, log_var):
    return (Sampling3 if library is keras else Sampling2)(name="code")(mean, log_var)


def swapped(library, mean, log_var):
    return library.layers.Lambda(lambda pair: draw(pair[::-1]), output_shape=(LATENT,), name="sampling")(
        [log_var, mean]
    )


SAMPLERS = [sample_by_lambda, sample_by_class, sample_by_two_arguments, swapped]


def variational(library, sample):
    """A variational autoencoder, and the model that reconstructs from the mean."""
    images, mean, log_var = encode(library)
    steps = decoder_layers(library)
    whole = library.Model(images, apply(steps, sample(library, mean, log_var)))
    by_mean = library.Model(images, apply(steps, mean))
    randomise_weights(by_mean)
    return whole, by_mean


def check(model, expected):
    reconstruction = model(IMAGES)[0]
    assert reconstruction.shape == (3, *SHAPE)
    assert np.ptp(expected, axis=0).mean() > 1e-3, "images differ"
    np.testing.assert_allclose(reconstruction, expected, atol=1e-5)


@pytest.mark.parametrize(("library", "suffix"), FORMATS)
def test_a_plain_autoencoder(library, suffix, tmp_path):
    images, mean, _ = encode(library)
    hidden = library.layers.BatchNormalization(name="norm")(mean)
    model = randomise_weights(library.Model(images, apply(decoder_layers(library), hidden)))
    path = save_network(model, tmp_path / f"a.{suffix}")
    loaded, calibration = autoencoder.load(path)
    assert calibration is None
    check(loaded, model.predict(IMAGES, verbose=0))


@pytest.mark.parametrize("sample", SAMPLERS)
@pytest.mark.parametrize(("library", "suffix"), FORMATS)
def test_a_variational_one_reconstructs_from_the_mean(library, suffix, sample, tmp_path):
    whole, by_mean = variational(library, sample)
    path = save_network(whole, tmp_path / f"a.{suffix}")
    expected = by_mean.predict(IMAGES, verbose=0)
    assert not np.allclose(whole.predict(IMAGES, verbose=0), expected, atol=1e-3), "the sampling layer does something"
    check(autoencoder.load(path)[0], expected)


@pytest.mark.parametrize("outputs", ["mean", "all", "drawn"])
@pytest.mark.parametrize(("library", "suffix"), FORMATS)
def test_two_halves(library, suffix, outputs, tmp_path):
    images, mean, log_var = encode(library)
    steps, code = decoder_layers(library), library.layers.Input((LATENT,), name="code")
    drawn = sample_by_class(library, mean, log_var)
    ends = {"mean": mean, "all": [log_var, mean, drawn], "drawn": drawn}[outputs]
    encoder, decoder = library.Model(images, ends), library.Model(code, apply(steps, code))
    whole = randomise_weights(library.Model(images, apply(steps, mean)))
    halves = [save_network(half, tmp_path / f"{n}.{suffix}") for n, half in enumerate((encoder, decoder))]
    check(autoencoder.load(*halves)[0], whole.predict(IMAGES, verbose=0))


def test_a_decoder_of_maps(tmp_path):
    """A code may have places; nothing is flattened then."""
    layers = keras.layers
    encoder = randomise_weights(stack(SHAPE, layers.Conv2D(2, 3, padding="same"), library=keras))
    decoder = randomise_weights(stack((*SHAPE[:2], 2), layers.Conv2D(3, 1), library=keras))
    halves = [save_network(half, tmp_path / f"{n}.keras") for n, half in enumerate((encoder, decoder))]
    check(autoencoder.load(*halves)[0], decoder(encoder(IMAGES)))


# Refusals


def lambda_at_the_end(library):
    images, mean, _ = encode(library)
    image = apply(decoder_layers(library), mean)
    return library.Model(images, library.layers.Lambda(lambda x: x * 2, name="brighter")(image))


def lambda_of_one(library):
    images, mean, _ = encode(library)
    code = library.layers.Lambda(lambda x: x * 2, name="resample")(mean)
    return library.Model(images, apply(decoder_layers(library), code))


def two_variances(library):
    images, _, log_var = encode(library)
    code = library.layers.Lambda(draw, output_shape=(LATENT,), name="sampling")([log_var, log_var])
    return library.Model(images, apply(decoder_layers(library), code))


def nested(library):
    images, mean, _ = encode(library)
    code = library.layers.Input((LATENT,))
    decoder = library.Model(code, apply(decoder_layers(library), code), name="decoder")
    return library.Model(images, decoder(mean))


HALVES = r"save a plain autoencoder, or its encoder and its decoder"
REFUSED = {
    "a lambda": (lambda_at_the_end, f"layer 'brighter' of class 'Lambda' is not on the allow-list; {HALVES}"),
    "one input": (lambda_of_one, "'resample' is named as one that samples, but does not take a mean and a variance"),
    "no mean": (two_variances, "'sampling' is named as one that samples, but does not take a mean and a variance"),
    "nested": (nested, f"layer 'decoder' of class 'Functional' is not on the allow-list; {HALVES}"),
    "a classifier": (build_chain, r"its output \(6,\) is not an image; pass the other half with --decoder"),
    "another size": (
        lambda library: stack(SHAPE, library.layers.Conv2D(3, 3), library=library),
        "maps 43×38×3 to 41×36×3, which is no reconstruction; pass an autoencoder of images",
    ),
    "any size": (
        lambda library: stack((None, None, 3), library.layers.Conv2D(3, 3, padding="same"), library=library),
        "has any size, and nothing says which one",
    ),
    "another interpolation": (
        lambda library: stack(SHAPE, library.layers.UpSampling2D(2, interpolation="lanczos3"), library=library),
        "'lanczos3' is none of bilinear, nearest",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize(("library", "suffix"), [(tf_keras, "h5"), (keras, "keras")])
def test_autoencoders_that_are_refused(name, library, suffix, tmp_path):
    build, message = REFUSED[name]
    path = save_network(build(library), tmp_path / f"a.{suffix}")
    with pytest.raises(UserError, match=message) as caught:
        autoencoder.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_halves_that_do_not_fit(tmp_path):
    images, mean, _ = encode(keras)
    encoder = save_network(keras.Model(images, mean), tmp_path / "encoder.keras")
    for number, (latent, side, message) in enumerate(
        [
            (4, 43, r"encodes as 5, .*0\.keras decodes 4; pass halves of one autoencoder"),
            (5, 40, "maps 43×38×3 to 40×38×3, which is no reconstruction"),
        ]
    ):
        layers = keras.layers.Dense(side * 38 * 3), keras.layers.Reshape((side, 38, 3))
        decoder = save_network(stack((latent,), *layers, library=keras), tmp_path / f"{number}.keras")
        with pytest.raises(UserError, match=message):
            autoencoder.load(encoder, decoder)
    with pytest.raises(UserError, match=r"its output \(5,\) is not an image; pass the other half with --decoder"):
        autoencoder.load(encoder)


@pytest.mark.parametrize("shape", [[None], [None, -5], [None, 0], [None, "5"], [None, 1 << 40], [None, None]])
def test_a_code_of_an_absurd_size(shape, tmp_path):
    entries = [{"class_name": "InputLayer", "config": {"name": "i", "batch_input_shape": shape}}]
    entries += [{"class_name": "Dense", "config": {"name": "d", "units": 3}}]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": entries}})
    with pytest.raises(UserError, match=r"a\.h5 is rejected: "):
        foreign_autoencoder.load(tmp_path / "a.h5")


def test_a_sampling_layer_is_never_run(tmp_path):
    """Its code is replaced by code that would leave a file behind, wherever Keras unpacks a Lambda."""
    images, mean, log_var = encode(keras)
    mark = str(tmp_path / "mark")
    code = keras.layers.Lambda(lambda pair: pair[0], output_shape=(LATENT,), name="z")
    hostile = lambda pair, open=open, mark=mark: (open(mark, "w").close(), pair[0])[1]  # noqa: E731
    whole = keras.Model(images, apply(decoder_layers(keras), code([mean, log_var])))
    code.function = hostile
    path = save_network(randomise_weights(whole), tmp_path / "a.keras")
    whole(IMAGES)
    assert (tmp_path / "mark").exists(), "the layer does what it should not"
    (tmp_path / "mark").unlink()
    autoencoder.load(path)[0](IMAGES)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(("library", "suffix"), [(tf_keras, "h5"), (keras, "keras")])
def test_a_classifier_may_not_sample(library, suffix, tmp_path):
    images, mean, log_var = encode(library)
    net = library.Model(images, library.layers.Dense(CLASSES)(sample_by_lambda(library, mean, log_var)))
    with pytest.raises(UserError, match="layer 'z' of class 'Lambda' is not on the allow-list; save a plain image"):
        load_network(save_network(net, tmp_path / f"a.{suffix}"))


def test_weights_are_found_by_name_alone(tmp_path):
    """Numbers of early Keras 3 count layers that are left out here."""
    whole, _ = variational(keras, sample_by_lambda)
    path = save_network(whole, tmp_path / "a.h5", weights=False)
    with h5py.File(path, "r+") as file:
        file["model_weights"].move("grow", "dense_2")
    with pytest.raises(UserError, match=r"layer grow has weights \[\] instead of"):
        autoencoder.load(path)
