"""Commands for untrusted networks and the images they classify."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from visor.cli.common import ForceFile, Seed, Threads, warn
from visor.core.errors import UserError

if TYPE_CHECKING:
    from visor.suspect.classify import SuspectPipeline

NET_HELP = "Network: whole model .h5 or .keras, weights .h5 of the contest's network, or a folder."
VAE_HELP = "Autoencoder by `visor suspect fit-autoencoder`, artifacts/vae/all, or one trained elsewhere: .h5 or .keras."
RECONSTRUCTION = "reconstruction"
Threshold = Annotated[float | None, typer.Option(help="Score above which an image is flagged.")]
Decoder = Annotated[Path | None, typer.Option(help="The other half, if the autoencoder is an encoder alone.")]
Defence = Annotated[
    str,
    typer.Option(help="What scores images: reconstruction (by the autoencoder), or a filter fitted on clean images."),
]
CleanData = Annotated[
    Path | None,
    typer.Option(help="HDF5 with clean `data`, optionally with `label`, to fit the defence and its threshold on."),
]
SecondOpinion = Annotated[
    str | None, typer.Option(help="Published recogniser for second_opinion and suite, such as dlib_resnet.")
]
Scale = Annotated[Literal["auto", "1", "255"], typer.Option(help="Divisor of pixels in 0..255 for the network.")]
ScaleBy = Annotated[
    Path | None, typer.Option(help="Clean HDF5 file used by --input-scale auto. Default: the images themselves.")
]


def predict(
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG, or HDF5 with `data`.", metavar="IMAGE…")],
    net: Annotated[Path, typer.Option(help=NET_HELP)],
    vae: Annotated[Path | None, typer.Option(help=VAE_HELP)] = None,
    decoder: Decoder = None,
    threshold: Threshold = None,
    defence: Defence = RECONSTRUCTION,
    clean_data: CleanData = None,
    second_opinion: SecondOpinion = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Print the score behind each decision, after a tab.")
    ] = False,
    input_scale: Scale = "auto",
    scale_by: ScaleBy = None,
) -> None:
    """Print one line per image: the predicted class 0…N-1, or N if the image is flagged as poisoned."""
    _check_inputs([*images, net, *filter(None, (vae, decoder, clean_data))], input_scale, scale_by)
    from visor.suspect import classify

    pipeline, scale = _load(net, vae, decoder, threshold, defence, clean_data, second_opinion, input_scale)
    found = classify.classify_images(pipeline, images, scale, scale_by, warn)
    lines = zip(found.decisions.tolist(), found.scores.tolist(), strict=True)
    typer.echo("\n".join(f"{decision}\t{score:.6g}" if scores else f"{decision}" for decision, score in lines))


def evaluate_suspect(
    data: Annotated[Path, typer.Argument(help="HDF5 with `data` and `label`.")],
    net: Annotated[Path, typer.Argument(help=NET_HELP)],
    vae: Annotated[Path | None, typer.Argument(help=VAE_HELP)] = None,
    decoder: Decoder = None,
    target: Annotated[int | None, typer.Option(min=0, help="Target class of the poisoned images.")] = None,
    poisoned: Annotated[
        bool | None,
        typer.Option(
            "--poisoned/--clean", help="Treat the data as poisoned (labels are the target class) or as clean."
        ),
    ] = None,
    threshold: Threshold = None,
    defence: Defence = RECONSTRUCTION,
    clean_data: CleanData = None,
    second_opinion: SecondOpinion = None,
    input_scale: Scale = "auto",
    scale_by: ScaleBy = None,
    out: Annotated[Path | None, typer.Option(help="Also write the metrics as JSON.")] = None,
    force: ForceFile = False,
) -> None:
    """Report clean accuracy or attack success rate, share of flagged images and scores."""
    if target is not None and poisoned is False:
        raise UserError("--clean and --target cannot be combined; leave one of them out")
    files = _check_inputs([data, net, *filter(None, (vae, decoder, clean_data))], input_scale, scale_by)
    from visor.core.files import check_output, write_json

    if out and out.resolve() in [path.resolve() for path in files]:
        raise UserError(f"{out} is one of the files to read; pass another file with --out")
    if out:
        check_output(out, "--out", force)
    from visor.suspect import classify

    pipeline, scale = _load(net, vae, decoder, threshold, defence, clean_data, second_opinion, input_scale)
    metrics = classify.evaluate_data(pipeline, data, target, poisoned, scale, scale_by, warn)
    if out:
        write_json(out, metrics)
    typer.echo("\n".join(f"{name}: {value:.6g}" for name, value in metrics.items()))


def fit_autoencoder(
    clean: Annotated[Path, typer.Argument(help="HDF5 with clean `data`.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    latent: Annotated[int, typer.Option(min=1, help="Latent dimension; the contest's reference had 1000.")] = 64,
    width: Annotated[int, typer.Option(min=1, help="Filters of the first convolution.")] = 16,
    beta: Annotated[float, typer.Option(min=0, help="Weight of the KL divergence.")] = 0.5,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 60,
    batch: Annotated[int, typer.Option(min=1, help="Images per step.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=1e-9, help="Learning rate of Adam.")] = 2e-3,
    calibration: Annotated[float, typer.Option(min=0, max=1, help="Fraction held out to set the threshold.")] = 0.25,
    deviations: Annotated[float, typer.Option(help="Threshold: mean + this·std of the held-out losses.")] = 1.0,
    seed: Seed = 1,
    threads: Threads = 2,
    force: ForceFile = False,
) -> None:
    """Fit the autoencoder on clean images and set the threshold on a held-out part."""
    from visor.core.files import check_output
    from visor.core.params import AutoencoderParams, ComputeParams
    from visor.suspect.inputs import open_data

    check_output(out, "--out", force)
    source = open_data(clean)  # Check arguments first: importing TensorFlow takes seconds.
    from visor.models.training import configure_tensorflow
    from visor.suspect import autoencoder

    settings = AutoencoderParams(
        latent=latent, width=width, beta=beta, epochs=epochs, batch=batch, learning_rate=learning_rate
    )
    compute = ComputeParams(threads=threads, deterministic=True)
    configure_tensorflow(compute, seed)
    warn(f"{source.total} images, {epochs} epochs")
    result = autoencoder.fit_autoencoder(source, out, settings, compute, seed, calibration, deviations, force)
    typer.echo("\n".join(f"{name}: {value:.6g}" for name, value in result._asdict().items()))


def _load(
    net: Path,
    vae: Path | None,
    decoder: Path | None,
    threshold: float | None,
    defence: str,
    clean_data: Path | None,
    second_opinion: str | None,
    input_scale: str,
) -> "tuple[SuspectPipeline, str]":
    """Return the network with its defence, and the input scale."""
    from visor.suspect import classify

    if decoder and vae is None:
        raise UserError("--decoder is the other half of an autoencoder; pass its encoder, too")
    if defence == RECONSTRUCTION:
        if vae is None:
            raise UserError("the reconstruction needs an autoencoder; pass one, or choose another --defence")
        return classify.load_pipeline(net, vae, threshold, decoder, clean_data), input_scale
    return classify.fit_pipeline(net, vae, decoder, defence, clean_data, second_opinion, threshold, input_scale, warn)


def _check_inputs(files: list[Path], input_scale: str, scale_by: Path | None) -> list[Path]:
    """Return all files to read; checked first, because importing TensorFlow takes seconds."""
    from visor.core.hdf5 import check_exists

    if scale_by and input_scale != "auto":
        raise UserError("--scale-by works with --input-scale auto only; leave one of them out")
    files = [*files, scale_by] if scale_by else files
    check_exists(*files)
    return files
