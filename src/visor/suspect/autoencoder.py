"""The autoencoder in one file: weights, the arguments that build it, and the threshold of its clean losses."""

import json
import tempfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from visor.core import hdf5
from visor.core.errors import UserError, first_line
from visor.core.files import atomic_write, check_disk_space, check_output
from visor.core.params import AutoencoderParams, ComputeParams
from visor.core.tf import keras
from visor.data.face_set import FaceSelection, FaceSet, read_batches
from visor.defences.input_filtering import reconstruction
from visor.defences.input_filtering.base import DefenceInputs
from visor.models import autoencoder, storage
from visor.models.losses import beta_vae_loss
from visor.models.training import fit, labelled_data, set_seed
from visor.suspect import foreign_autoencoder
from visor.suspect.inputs import MAX_SIDE, ImageShape, ImageSource
from visor.suspect.loading import load_saved_model
from visor.suspect.weights import read_weights

KIND = "visor autoencoder 1"
BLOCK_BYTES = 32 << 20  # of images as float32
MAX_WEIGHTS = 256 << 20


class Calibration(NamedTuple):
    """Mean and standard deviation of the losses of held-out clean images, and the threshold."""

    mean: float
    std: float
    threshold: float


def fit_autoencoder(
    source: ImageSource,
    out: Path,
    settings: AutoencoderParams,
    compute: ComputeParams,
    seed: int,
    calibration: float,
    deviations: float,
    force: bool = False,
) -> Calibration:
    """Fit an autoencoder on clean images and calibrate its threshold on images held out.

    After ``training.configure_tensorflow`` the same arguments give the same bytes. ``calibration`` in (0, 1) is the
    share held out; the threshold is mean + ``deviations`` · std of its losses.

    Raises:
        UserError: Too few images to divide, ``out`` exists (without ``force``) or is the clean data, sizes are too
            large to be loaded again, pixels are out of range, or the fit diverges.
        OSError: The disk is full (ENOSPC).
    """
    held_out = round(calibration * source.total) if 0 < calibration < 1 else 0
    arguments = {"image_shape": source.image_shape, "latent": settings.latent, "width": settings.width}
    check_output(out, "--out", force)
    _check_fit(source, out, held_out, arguments)
    order = np.random.default_rng(seed).permutation(source.total)
    out.parent.mkdir(parents=True, exist_ok=True)
    set_seed(seed)
    model = storage.build_model(autoencoder.build, arguments, "autoencoder")
    # A file without a name: the images are private, and gone with this process however it ends.
    with tempfile.TemporaryFile(dir=out.parent) as scratch, tempfile.TemporaryDirectory() as folder:
        faces = _write_faces(source, scratch, out)
        validation, train = faces.select(np.sort(order[:held_out])), faces.select(np.sort(order[held_out:]))
        train_data, validation_data = labelled_data([train], seed), labelled_data([validation], seed)
        loss, history = beta_vae_loss(settings.beta), Path(folder) / "history.csv"
        fit(model, loss, train_data, validation_data, settings, compute, seed, history)
        result = _calibrate(model, validation, deviations)
    if not np.isfinite(result).all():
        raise UserError(f"{source.name}: the threshold is not finite; lower --learning-rate, --beta or --deviations")
    save(model, arguments, result, out)
    return result


def _check_fit(source: ImageSource, out: Path, held_out: int, arguments: Mapping[str, Any]) -> None:
    """Check before the long work that the autoencoder can be fitted and loaded again."""
    if not 1 < held_out < source.total:
        raise UserError(f"{source.name}: too few images to fit and calibrate; pass more or change --calibration")
    if out.resolve() == Path(source.name).resolve():
        raise UserError(f"{out} is the clean data; pass another file with --out")
    try:
        check_size(arguments)
    except ValueError as error:
        raise UserError(f"the autoencoder is too large ({error}); choose a smaller --latent or --width") from None


def save(model: keras.Model, arguments: Mapping[str, Any], calibration: Calibration, path: Path) -> None:
    """Write model, build arguments and calibration to one HDF5 file, the same bytes every time.

    Raises:
        OSError: The disk is full (ENOSPC).
    """
    with atomic_write(path) as temporary:
        check_disk_space(temporary, 4 * model.count_params())
        with hdf5.create(temporary) as file:
            file.attrs["kind"] = KIND
            file.attrs["arguments"] = json.dumps(arguments, sort_keys=True)
            for name, value in calibration._asdict().items():
                file.attrs[name] = value
            for number, values in enumerate(model.get_weights()):
                file.create_dataset(f"weights/{number}", data=values)


def load(path: Path, decoder: Path | None = None) -> tuple[keras.Model, Calibration | None]:
    """Return what ``save`` wrote; of the pipeline or of others (with its ``decoder``) the autoencoder alone.

    Args:
        path: A file that ``save`` wrote, a folder ``artifacts/vae/…``, or what ``foreign_autoencoder`` reads.
        decoder: The other half, if ``path`` is an encoder.

    Raises:
        UserError: Another file, damaged, or with weights that do not fit.
    """
    if decoder is not None:
        return foreign_autoencoder.load(path, decoder), None
    if path.is_dir():
        return load_saved_model(autoencoder.build, path, check_size), None
    file = hdf5.open_untrusted(path) if hdf5.is_hdf5(path) else None
    if file is None or hdf5.read_text(file, "kind") != KIND:
        return foreign_autoencoder.load(path), None
    advice = "pass a file that `visor suspect fit-autoencoder` wrote"  # which may have to be another one
    try:
        arguments = json.loads(hdf5.read_text(file, "arguments") or "")
        check_size(arguments)
        model = autoencoder.build(**arguments)
        datasets = [hdf5.get_local(file, f"weights/{number}") for number in range(len(model.weights))]
        model.set_weights(read_weights(datasets, model.weights))
        calibration = Calibration(*(_read_number(file, name) for name in Calibration._fields))
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); {advice}") from None
    if not np.isfinite(calibration).all():
        raise UserError(f"{path} has a threshold that is not finite; {advice}")
    return model, calibration


def _read_number(file: hdf5.Group, name: str) -> float:
    if (value := hdf5.read_number(file, name)) is None:
        raise ValueError(f"it has no {name}")
    return value


def check_size(arguments: Mapping[str, Any]) -> None:
    """Check the arguments of ``autoencoder.build`` before they allocate anything.

    Raises:
        KeyError: One is missing.
        ValueError: They are not sizes, or exceed ``MAX_SIDE`` pixels or ``MAX_WEIGHTS`` weights.
    """
    shape, latent, width = (arguments[name] for name in ("image_shape", "latent", "width"))
    if not all(type(value) is int and value > 0 for value in (*shape, latent, width)) or list(shape[2:]) != [3]:
        raise ValueError("its arguments are not valid sizes")
    cells = -(-shape[0] // autoencoder.STRIDES) * -(-shape[1] // autoencoder.STRIDES) * 4 * width
    if max(shape) > MAX_SIDE or 3 * cells * latent + 200 * width**2 > MAX_WEIGHTS:
        raise ValueError(f"over {MAX_SIDE:,} pixels a side or {MAX_WEIGHTS:,} weights")


def _rows_in_block(image_shape: ImageShape) -> int:
    return max(1, BLOCK_BYTES // (4 * prod(image_shape)))


def _calibrate(model: keras.Model, clean: FaceSelection, deviations: float) -> Calibration:
    score = reconstruction.fit(DefenceInputs(clean, model, folds=()))
    batches = read_batches([clean], _rows_in_block(clean.faces.image_shape))
    losses = np.concatenate([score(images) for images, _ in batches])
    mean, std = float(losses.mean()), float(losses.std())
    return Calibration(mean, std, mean + deviations * std)


def _write_faces(source: ImageSource, scratch: IO[bytes], out: Path) -> FaceSet:
    """Write the images to a temporary file beside ``out``, from which the training loop reads them: 8 bits, RGB last.

    Raises:
        OSError: The disk is full (ENOSPC).
    """
    shape = (source.total, *source.image_shape)
    check_disk_space(out, prod(shape))  # for all of them, before the first is written
    step = _rows_in_block(source.image_shape)
    for start in range(0, source.total, step):
        pixels = source.read(start, start + step) * np.float32(source.to_255)
        low, high = pixels.min(), pixels.max()
        if not (low >= 0 and high <= 255):
            raise UserError(f"{source.name}: pixels run from {low:g} to {high:g}; they must be in 0..255 or 0..1")
        images = np.rint(pixels.transpose(0, 2, 3, 1) if source.channels_first else pixels).astype(np.uint8)
        scratch.write(images.tobytes())
    scratch.flush()
    images = np.memmap(scratch, np.uint8, "r", shape=shape)
    rows = np.arange(source.total, dtype=np.int32)
    return FaceSet(Path(source.name), np.zeros_like(rows), rows, rows, ("face",), source.name, "", images)
