"""The judge's autoencoder in one file: weights, the arguments that build it, and the threshold of its clean losses."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from visor.core import hdf5, params
from visor.core.errors import UserError
from visor.core.files import atomic_write, check_disk_space
from visor.core.tf import keras
from visor.data.face_set import FaceBatch, FaceSelection, FaceSet, open_faces, read_batches, write_faces
from visor.defences.input_filtering import reconstruction
from visor.defences.input_filtering.base import DefenceInputs
from visor.models import autoencoder, storage
from visor.models.losses import beta_vae_loss
from visor.models.training import fit, labelled_data
from visor.suspect.inputs import MAX_SIDE, ImageSource
from visor.suspect.loading import load_saved_model

KIND = "visor autoencoder 1"
BLOCK_BYTES = 32 << 20  # of images as float32
MAX_WEIGHTS = 256 << 20


class Settings(params.TrainingSchedule):
    """How the autoencoder is built and fitted; ``beta`` weighs the divergence."""

    latent: int
    width: int
    beta: float


class Calibration(NamedTuple):
    """Mean and deviation of the losses of clean images that the autoencoder was not fitted on; the bound."""

    mean: float
    std: float
    threshold: float


def fit_autoencoder(
    source: ImageSource,
    out: Path,
    settings: Settings,
    compute: params.ComputeParams,
    seed: int,
    calibration: float,
    deviations: float,
) -> Calibration:
    """Fit on a part of clean images, take mean + ``deviations``·std of the losses of the rest, write both to ``out``.

    ``calibration`` is the share in (0, 1) that is held out, drawn by ``seed``. After
    ``training.configure`` the same arguments give the same bytes.

    Raises:
        UserError: too few images to divide, ``out`` is taken, sizes are too large to be loaded again, pixels are
            out of range, or the fit diverges.
        OSError: the disk is full (ENOSPC).
    """
    held_out = round(calibration * source.total) if 0 < calibration < 1 else 0
    arguments = {"image_shape": source.image_shape, "latent": settings.latent, "width": settings.width}
    _check_fit(source, out, held_out, arguments)
    order = np.random.default_rng(seed).permutation(source.total)
    out.parent.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(seed)
    model = storage.build_model(autoencoder.build, arguments, "autoencoder")
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        faces = _faces(source, Path(folder) / "faces.h5")
        kept, fitted = faces.select(np.sort(order[:held_out])), faces.select(np.sort(order[held_out:]))
        loss, history = beta_vae_loss(settings.beta), Path(folder) / "history.csv"
        fit(model, loss, labelled_data([fitted], seed), labelled_data([kept], seed), settings, compute, seed, history)
        found = _calibrated(model, kept, deviations)
    if not np.isfinite(found).all():
        raise UserError(
            f"{source.name}: the fit gives no finite threshold; lower --learning-rate, --beta or --deviations"
        )
    save(model, arguments, found, out)
    return found


def _check_fit(source: ImageSource, out: Path, held_out: int, arguments: Mapping[str, Any]) -> None:
    """Refuse what could not be fitted, or not be loaded again, before the long work."""
    if not 1 < held_out < source.total:
        raise UserError(f"{source.name}: {source.total} images cannot be divided to fit and to calibrate; give more")
    if out.is_dir() or out.resolve() == Path(source.name).resolve():
        raise UserError(f"{out} is a folder or the clean data; name another file by --out")
    try:
        check_size(arguments)
    except ValueError as error:
        raise UserError(f"no autoencoder is fitted: {error}; choose a smaller --latent or --width") from None


def save(model: keras.Model, arguments: dict[str, object], calibration: Calibration, path: Path) -> None:
    """Write one HDF5 file, the same bytes every time, whole or not at all.

    Raises:
        OSError: the disk is full (ENOSPC).
    """
    with atomic_write(path) as temporary:
        check_disk_space(temporary, 4 * model.count_params())
        with h5py.File(temporary, "w", track_order=False) as file:
            file.attrs["kind"] = KIND
            file.attrs["arguments"] = json.dumps(arguments, sort_keys=True)
            for name, value in calibration._asdict().items():
                file.attrs[name] = value
            for number, values in enumerate(model.get_weights()):
                file.create_dataset(f"weights/{number}", data=values)


def load(path: Path) -> tuple[keras.Model, Calibration | None]:
    """Return what ``save`` wrote; of a folder ``artifacts/vae/…`` of the pipeline the autoencoder alone.

    Raises:
        UserError: another file, damaged, or with weights that do not fit.
    """
    if path.is_dir():
        return load_saved_model(autoencoder.build, path, check_size), None
    with hdf5.open_untrusted(path) as file:
        if hdf5.read_text(file, "kind", path) != KIND:
            raise UserError(
                f"{path} is not an autoencoder of visor; make one with `visor fit-vae CLEAN.h5 --out {path}`"
            )
        try:
            arguments = json.loads(hdf5.read_text(file, "arguments", path) or "")
            check_size(arguments)
            model = autoencoder.build(**arguments)
            model.set_weights(_weights(file, model, path))
            found = Calibration(*(float(file.attrs[name]) for name in Calibration._fields))
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{path} is damaged ({reason}); make it anew with `visor fit-vae`") from None
    if not np.isfinite(found).all():
        raise UserError(f"{path} has a threshold that is no number; make it anew with `visor fit-vae`")
    return model, found


def check_size(arguments: Mapping[str, Any]) -> None:
    """Make sure of the arguments of ``vae.build``, before they allocate anything.

    Raises:
        KeyError: one is missing.
        ValueError: they are no sizes, or make more weights than any autoencoder has.
    """
    shape, latent, width = (arguments[name] for name in ("image_shape", "latent", "width"))
    if not all(type(value) is int and value > 0 for value in (*shape, latent, width)) or len(shape) != 3:
        raise ValueError("its arguments are no sizes")
    cells = -(-shape[0] // autoencoder.STRIDES) * -(-shape[1] // autoencoder.STRIDES) * 4 * width
    if shape[2] != 3 or max(shape) > MAX_SIDE or 3 * cells * latent + 200 * width**2 > MAX_WEIGHTS:
        raise ValueError("its arguments make it too large")


def _weights(file: h5py.File, model: keras.Model, path: Path) -> list[np.ndarray]:
    found = [hdf5.get_local(file, f"weights/{number}", path) for number in range(len(model.weights))]
    wanted = [tuple(weight.shape) for weight in model.weights]
    # Compared unread: a file of a kilobyte can promise terabytes.
    if [data.shape if isinstance(data, h5py.Dataset) else None for data in found] != wanted:
        raise ValueError("weights are missing or do not fit")
    return [hdf5.read_finite(data, path) for data in found]


def _rows(image_shape: tuple[int, int, int]) -> int:
    """Return how many images are handled at a time."""
    return max(1, BLOCK_BYTES // (4 * prod(image_shape)))


def _calibrated(model: keras.Model, clean: FaceSelection, deviations: float) -> Calibration:
    score = reconstruction.fit(DefenceInputs(clean, model, folds=()))
    losses = np.concatenate([score(images) for images, _ in read_batches([clean], _rows(clean.faces.image_shape))])
    mean, std = float(losses.mean()), float(losses.std())
    return Calibration(mean, std, mean + deviations * std)


def _faces(source: ImageSource, path: Path) -> FaceSet:
    """Write the images as a FaceSet, what the training loop takes: 8 bits, channels last."""
    check_disk_space(path, source.total * prod(source.image_shape))  # for all of them, before the first takes its time
    step = _rows(source.image_shape)

    def blocks() -> Iterator[FaceBatch]:
        for start in range(0, source.total, step):
            pixels = source.read(start, start + step) * np.float32(source.to_255)
            low, high = pixels.min(), pixels.max()
            if not (low >= 0 and high <= 255):
                raise UserError(
                    f"{source.name}: pixels run from {low:g} to {high:g}; they must be in 0..255 or in 0..1"
                )
            images = np.rint(pixels.transpose(0, 2, 3, 1) if source.channels_first else pixels).astype(np.uint8)
            rows = np.arange(start, start + len(images), dtype=np.int32)
            yield FaceBatch(images, np.zeros_like(rows), rows, rows)

    write_faces(path, blocks(), source.image_shape, ["face"], source.name, "")
    return open_faces(path)
