"""The command line ``visor``: one function a command; what a command needs is imported when it runs."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from visor import errors

Suspect = Annotated[
    Path, typer.Option(help="Suspect network: whole model .h5 or .keras, weights .h5 of the contest's, or a folder.")
]
Autoencoder = Annotated[Path, typer.Option(help="Autoencoder that `visor fit-vae` wrote, or artifacts/vae/all.")]
Threshold = Annotated[float | None, typer.Option(help="Reconstruction loss above which an image is poisoned.")]
Scale = Annotated[
    Literal["auto", "1", "255"], typer.Option(help="What pixels in 0..255 are divided by for the network.")
]
ScaleBy = Annotated[Path | None, typer.Option(help="Clean HDF5 that --input-scale auto decides by; else the images.")]

app = typer.Typer(
    name="visor",
    help="Attack and defend face models in one reproducible pipeline. Run from the project's root; "
    "`dvc repro` runs the pipeline itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def params() -> None:
    """Check params.yaml: names, types, ranges, and that the named source and triggers exist."""
    from visor.backdoors import BACKDOORS
    from visor.config import choice, load_params
    from visor.datasets import DATASETS

    found = load_params()
    choice(DATASETS, found.faces.source, "faces.source")
    for name, backdoor in found.backdoors.items():
        choice(BACKDOORS, backdoor.trigger, f"backdoors.{name}.trigger")
    typer.echo("ok")


@app.command()
def mirror(
    uri: Annotated[
        str | None, typer.Option(help="MLflow server or database; else MLFLOW_TRACKING_URI, else mlflow.db.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show the curves of a running training until Ctrl-C.")
    ] = False,
) -> None:
    """Mirror the state that dvc.lock records into MLflow; what is already there is left alone."""
    from visor import tracking

    if follow:
        typer.echo("following metrics/history into the experiment visor-live; stop with Ctrl-C")
        tracking.follow(Path(), uri)
    else:
        mirrored = tracking.mirror(Path(), uri)
        said = "written" if mirrored.created else "already there"
        typer.echo(f"state {mirrored.state[:8]}: {mirrored.runs} runs {said}")


@app.command()
def gate(
    baseline: Annotated[str, typer.Option(help="Git revision that max_change compares with.")] = "HEAD",
    junit: Annotated[Path | None, typer.Option(help="Also write the verdicts as JUnit XML.")] = None,
) -> None:
    """Hold metrics/ against the gates of params.yaml; exit code 1 on a breach."""
    from visor import gates
    from visor.config import load_params
    from visor.files import read_metrics, write_text

    bounds = load_params().gates
    before = gates.read_baseline(Path(), baseline, bounds)
    verdicts = gates.check(read_metrics(Path("metrics")), before, bounds)
    typer.echo(gates.markdown(verdicts, baseline))
    if junit:
        write_text(junit, gates.junit(verdicts))
    if any(verdict.problem for verdict in verdicts):
        raise typer.Exit(1)


@app.command()
def lock() -> None:
    """Prove, without running the pipeline, that dvc.lock and data.dvc fit code and params."""
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing"]
    dry = subprocess.run(command, capture_output=True, text=True)
    stale = re.search(r"^(?:Running stage|Importing) '(.+?)'", dry.stdout, re.MULTILINE)
    stale = stale or re.search(r"failed to reproduce '(.+?)'", dry.stderr)  # a clone without data cannot import them
    if stale:
        raise errors.UserError(f"dvc.lock or data.dvc is stale from {stale[1]} on; run `dvc repro` and commit both")
    if dry.returncode:
        raise errors.UserError(f"dvc.lock cannot be checked: {' '.join(dry.stderr.split())}")
    typer.echo("dvc.lock fits the code and params.yaml")


@app.command()
def judge(
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG, or HDF5 with `data`.", metavar="IMAGE…")],
    net: Suspect,
    vae: Autoencoder,
    threshold: Threshold = None,
    input_scale: Scale = "auto",
    scale_by: ScaleBy = None,
) -> None:
    """Print a line an image: its class from 0 to N - 1 as the network sees it, or N if the image is poisoned."""
    from visor.hdf5 import require

    _require_use(input_scale, scale_by)
    require(*images, net, vae, *filter(None, [scale_by]))  # before TensorFlow takes its seconds
    from visor.judge import court

    found = court.judge_images(court.convene(net, vae, threshold), images, input_scale, scale_by, _say)
    typer.echo("\n".join(map(str, found.tolist())))


@app.command("eval")
def evaluate(
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
    from visor.hdf5 import require

    _require_use(input_scale, scale_by)
    if target is not None and poisoned is False:
        raise errors.UserError("--clean says that no image aims at a class, --target names it; leave one of them out")
    if out and out.resolve() in [path.resolve() for path in (data, net, vae, scale_by) if path]:
        raise errors.UserError(f"{out} is one of the files to read; name another file by --out")
    require(data, net, vae, *filter(None, [scale_by]))
    from visor.files import write_json
    from visor.judge import court

    jury = court.convene(net, vae, threshold)
    numbers = court.evaluate_data(jury, data, target, poisoned, input_scale, scale_by, _say)
    if out:
        write_json(out, numbers)
    typer.echo("\n".join(f"{name}: {value:.6g}" for name, value in numbers.items()))


@app.command()
def fit_vae(
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
    from visor.judge.pictures import open_data
    from visor.params import Compute

    source = open_data(clean)  # before TensorFlow takes its seconds
    from visor.judge.autoencoder import Settings, fit_autoencoder
    from visor.training import configure

    settings = Settings(latent=latent, width=width, beta=beta, epochs=epochs, batch=batch, learning_rate=learning_rate)
    compute = Compute(threads=threads, deterministic=True)
    configure(compute, seed)
    _say(f"{source.total} images, {epochs} epochs")
    found = fit_autoencoder(source, out, settings, compute, seed, calibration, deviations)
    typer.echo(f"mean: {found.mean:.6g}\nstd: {found.std:.6g}\nthreshold: {found.threshold:.6g}")


def _require_use(input_scale: str, scale_by: Path | None) -> None:
    if scale_by and input_scale != "auto":
        raise errors.UserError("--scale-by is what --input-scale auto decides by; leave one of them out")


def _say(words: str) -> None:
    typer.echo(words, err=True)


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit code 1."""
    errors.run(lambda *words: app(list(words)))
