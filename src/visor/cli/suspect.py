"""Commands that judge a suspect network and the images that it sees."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from visor.core import errors

Suspect = Annotated[
    Path, typer.Option(help="Suspect network: whole model .h5 or .keras, weights .h5 of the contest's, or a folder.")
]
Autoencoder = Annotated[Path, typer.Option(help="Autoencoder that `visor fit-vae` wrote, or artifacts/vae/all.")]
Threshold = Annotated[float | None, typer.Option(help="Reconstruction loss above which an image is poisoned.")]
Scale = Annotated[
    Literal["auto", "1", "255"], typer.Option(help="What pixels in 0..255 are divided by for the network.")
]
ScaleBy = Annotated[Path | None, typer.Option(help="Clean HDF5 that --input-scale auto decides by; else the images.")]


def predict(
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG, or HDF5 with `data`.", metavar="IMAGE…")],
    net: Suspect,
    vae: Autoencoder,
    threshold: Threshold = None,
    input_scale: Scale = "auto",
    scale_by: ScaleBy = None,
) -> None:
    """Print a line an image: its class from 0 to N - 1 as the network sees it, or N if the image is poisoned."""
    from visor.core.hdf5 import check_exists

    _require_use(input_scale, scale_by)
    check_exists(*images, net, vae, *filter(None, [scale_by]))  # before TensorFlow takes its seconds
    from visor.suspect import classify

    found = classify.classify_images(classify.load_pipeline(net, vae, threshold), images, input_scale, scale_by, _say)
    typer.echo("\n".join(map(str, found.tolist())))


def evaluate_suspect(
    data: Annotated[Path, typer.Argument(help="HDF5 with `data` and `label`.")],
    net: Annotated[Path, typer.Argument(help="Suspect network, as `visor judge` takes it.")],
    vae: Annotated[Path, typer.Argument(help="Autoencoder that `visor fit-vae` wrote, or artifacts/vae/all.")],
    target: Annotated[
        int | None, typer.Option(min=0, help="The images are poisoned, to be taken for this class.")
    ] = None,
    poisoned: Annotated[
        bool | None, typer.Option("--poisoned/--clean", help="Whether the labels are the poisons' target.")
    ] = None,
    threshold: Threshold = None,
    input_scale: Scale = "auto",
    scale_by: ScaleBy = None,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers as JSON.")] = None,
) -> None:
    """Measure network and judge: clean accuracy or attack success, share flagged, reconstruction losses."""
    from visor.core.hdf5 import check_exists

    _require_use(input_scale, scale_by)
    if target is not None and poisoned is False:
        raise errors.UserError("--clean says that no image aims at a class, --target names it; leave one of them out")
    if out and out.resolve() in [path.resolve() for path in (data, net, vae, scale_by) if path]:
        raise errors.UserError(f"{out} is one of the files to read; name another file by --out")
    check_exists(data, net, vae, *filter(None, [scale_by]))
    from visor.core.files import write_json
    from visor.suspect import classify

    pipeline = classify.load_pipeline(net, vae, threshold)
    numbers = classify.evaluate_data(pipeline, data, target, poisoned, input_scale, scale_by, _say)
    if out:
        write_json(out, numbers)
    typer.echo("\n".join(f"{name}: {value:.6g}" for name, value in numbers.items()))


def fit_autoencoder(
    clean: Annotated[Path, typer.Argument(help="HDF5 with clean `data`.")],
    out: Annotated[Path, typer.Option(help="The one file to write.")],
    latent: Annotated[int, typer.Option(min=1, help="Length of a code; the contest's reference had 1000.")] = 64,
    width: Annotated[int, typer.Option(min=1, help="Filters of the first convolution.")] = 16,
    beta: Annotated[float, typer.Option(min=0, help="Weight of the divergence.")] = 0.5,
    epochs: Annotated[int, typer.Option(min=1)] = 60,
    batch: Annotated[int, typer.Option(min=1)] = 16,
    learning_rate: Annotated[float, typer.Option(min=1e-9)] = 2e-3,
    calibration: Annotated[float, typer.Option(min=0, max=1, help="Share held out, for the threshold.")] = 0.25,
    deviations: Annotated[float, typer.Option(help="Threshold: mean + this·std of the held-out losses.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    threads: Annotated[int, typer.Option(min=1, help="The bytes written depend on it.")] = 2,
) -> None:
    """Fit the judge's autoencoder on clean images and set its threshold on those held out."""
    from visor.core.params import ComputeParams
    from visor.suspect.inputs import open_data

    source = open_data(clean)  # before TensorFlow takes its seconds
    from visor.models.training import configure_tensorflow
    from visor.suspect.autoencoder import Settings, fit_autoencoder

    settings = Settings(latent=latent, width=width, beta=beta, epochs=epochs, batch=batch, learning_rate=learning_rate)
    compute = ComputeParams(threads=threads, deterministic=True)
    configure_tensorflow(compute, seed)
    _say(f"{source.total} images, {epochs} epochs")
    found = fit_autoencoder(source, out, settings, compute, seed, calibration, deviations)
    typer.echo(f"mean: {found.mean:.6g}\nstd: {found.std:.6g}\nthreshold: {found.threshold:.6g}")


def _require_use(input_scale: str, scale_by: Path | None) -> None:
    if scale_by and input_scale != "auto":
        raise errors.UserError("--scale-by is what --input-scale auto decides by; leave one of them out")


def _say(words: str) -> None:
    typer.echo(words, err=True)
