"""The commands ``visor range`` and ``visor query``: a face-comparison service to practise on, and questions to any."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from visor.cli import common
from visor.core import errors

if TYPE_CHECKING:
    from fastapi import FastAPI

    from visor.models.detectors import Detector
    from visor.models.recognisers.base import Recogniser
    from visor.services.accounts import AccountStore
    from visor.services.photo_sets import PhotoSet

Answers = Annotated[Path, typer.Option(help="Folder of the answers that were paid for; run again and go on.")]
Border = Annotated[float, typer.Option(min=0, max=2, help="Grey around a FaceSet's faces, of their sides.")]
Calibrate = Annotated[
    Path | None, typer.Option(help="FaceSet whose strangers set the threshold: 1 % of their pairs reach it.")
]
Cosine = Annotated[
    float | None, typer.Option(min=-1, max=1, help="Cosine from which on it is one person; else as is usual.")
]
Eyes = Annotated[str, typer.Option(help="mtcnn, ssd, faster_rcnn, cascade, a FILE.pb; none: each picture is a face.")]
Options = Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the published network, say embedding=512.")]
Budget = Annotated[
    int | None, typer.Option(min=0, help="Most queries of this run; retries, at most 4 each, are not counted.")
]
Clean = Annotated[Path, typer.Option(help="The photos before the attack, by the same names; or data/faces.h5.")]
Attacked = Annotated[Path, typer.Option(help="Attacked photos: a photo, a folder, or a FaceSet .h5.")]
Target = Annotated[
    str | None,
    typer.Option(
        help="Whom each photo is compared with: a photo, a folder of photos by the same names; for a FaceSet also a "
        "person's name, or a table FILE.csv of `row` and `target`. Left out, dodging asks for the row's own person."
    ),
]
UNFIT = (
    "is the one that `dvc repro` trained, and the usual threshold is that of published weights: strangers pass; "
    "calibrate it by --calibrate FACES.h5, or name a cosine by --threshold"
)


class MockNetworks(NamedTuple):
    """The networks of a range, and how they are shown faces and pictures."""

    recogniser: "Recogniser"
    detector: "Detector | None"
    margin: float
    border: float
    jpeg: int


def mock_service(
    recogniser: Annotated[str, typer.Option(help="facenet, resnet50, senet50 or vgg_face.")] = "vgg_face",
    weights: Annotated[str | None, typer.Option(help="Published weights, file or URL; else the trained ones.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Checksum of --weights.")] = None,
    option: Options = None,
    detector: Eyes = "mtcnn",
    margin: Annotated[float, typer.Option(min=0, max=1, help="Of a face's sides, cropped with it.")] = 0.1,
    threshold: Cosine = None,
    calibrate: Calibrate = None,
    border: Border = 0.35,
    jpeg: Annotated[int, typer.Option(min=1, max=95, help="Quality that every picture is saved with first.")] = 85,
    budget: Annotated[int, typer.Option(min=0, help="Queries of a key.")] = 1000,
    rate: Annotated[float, typer.Option(min=0.01, help="Queries of a key a second.")] = 10.0,
    host: Annotated[str, typer.Option(help="Address to listen on; only this machine by default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8000,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Serve face comparison on this machine, with networks that an attack never saw; keys in VISOR_RANGE_KEYS."""
    from visor.server import address, listen, serve
    from visor.services.accounts import AccountStore, keys_from_environment

    if calibrate and threshold is not None:
        raise errors.UserError("--calibrate sets the threshold, --threshold names it; leave one of them out")
    ledger = AccountStore(keys_from_environment(), budget, rate)
    listener = listen(host, port)  # before TensorFlow takes its seconds
    common.configure(threads, 1)
    from visor.photos.networks import open_detector, open_recogniser

    known = open_recogniser(recogniser, weights, sha256, None, option or [])
    eyes = None if detector == "none" else open_detector(detector, None, [])
    if not (weights or calibrate) and threshold is None:
        typer.echo(f"{recogniser} {UNFIT}", err=True)
    app, least = _app(MockNetworks(known, eyes, margin, border, jpeg), ledger, threshold, calibrate)
    said = f"{recogniser} behind {detector} on {address(listener)}, threshold {least:.1f} of 100"
    typer.echo(f"{said}; stop with Ctrl-C")
    try:
        serve(app, listener)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


def query(
    service: Annotated[str, typer.Option(help="range, rekognition, or the description FILE.yaml of another.")],
    attacked: Attacked,
    clean: Clean,
    target: Target = None,
    goal: Annotated[Literal["impersonate", "dodge"], typer.Option(help="What the attack wanted.")] = "impersonate",
    url: Annotated[str | None, typer.Option(help="Address of the service, if not its usual one.")] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=100, help="Else the service's own.")] = None,
    budget: Budget = None,
    border: Border = 0.35,
    answers: Answers = Path("answers"),
    out: Annotated[Path | None, typer.Option(help="Also write the numbers as JSON.")] = None,
) -> None:
    """Ask a face-comparison service about clean and attacked photos: does the attack carry over? Sends photos to it."""
    from visor.core.files import write_json
    from visor.services import open_service, transfer
    from visor.services.answer_cache import QueryCounter, cached_compare
    from visor.services.photo_sets import open_photo_set

    changed, before = open_photo_set(attacked, border), open_photo_set(clean, border)
    aim = _target_photos(target, goal, before, changed, border)
    _require_writable(answers, out)
    asked = open_service(service, url)
    least = asked.threshold if threshold is None else threshold
    if least is None:
        raise errors.UserError(f"{service} names no threshold; give one by --threshold")
    meter, refused = QueryCounter(), list[str]()
    compare = cached_compare(asked, answers, budget, meter)
    lines: list[transfer.PhotoResult] = []
    try:
        for line in transfer.compare_all(
            compare, before, changed, aim, lambda words: common.report_error(words, refused)
        ):
            lines.append(line)
    finally:  # interrupted or out of queries: what was answered counts
        numbers = transfer.summarise_transfer(lines, goal, least, meter)
        if lines:
            typer.echo(transfer.table(lines, numbers))
        if out and lines:
            write_json(out, {"service": asked.name, **numbers, "by_photo": transfer.as_json(lines)})
    common.exit_if_failed(refused)


def _app(
    opened: "MockNetworks", ledger: "AccountStore", cosine: float | None, calibrate: Path | None
) -> tuple["FastAPI", float]:
    """Return the application, and the similarity from which on it calls two faces one person."""
    from visor.models.recognisers.base import embeddings
    from visor.photos import networks
    from visor.photos.hide import detect_in_photo
    from visor.services import calibration, face_matching
    from visor.services.mock_service import create_app

    known, eyes, margin, border, jpeg = opened
    detect, found = (
        (lambda images: [detect_in_photo(eyes, image) for image in images], eyes.threshold) if eyes else (None, 0.0)
    )
    raw = eyes.detect if eyes else None  # with all that it is unsure of: noise has nothing else
    embed, shape = embeddings(known), known.image_shape[:2]
    see = face_matching.face_encoder(detect, found, embed, shape, margin)
    if calibrate:
        cosine = calibration.calibrate(see, calibrate, known.class_names, border, jpeg)
    least = face_matching.similarity_score(networks.PUBLISHED_THRESHOLDS[known.name] if cosine is None else cosine)
    version = face_matching.network_fingerprint(
        f"{known.name} {eyes and eyes.name} {found} {margin} {jpeg}", raw, embed, shape
    )
    return create_app(see, ledger, version, least, jpeg), least


def _require_writable(answers: Path, out: Path | None) -> None:
    """Make the folders of what will be written, before anything is paid for."""
    for option, folder in (("--answers", answers), ("--out", out and out.parent)):
        try:
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.UserError(f"{option}: {folder} cannot be made ({error.strerror}); name another") from None
    if out and out.is_dir():
        raise errors.UserError(f"--out {out} is a folder; name the JSON file to write")


def _target_photos(target: str | None, goal: str, clean: "PhotoSet", attacked: "PhotoSet", border: float) -> "PhotoSet":
    """Return the picture that each attacked one is compared with."""
    from visor.services.photo_sets import open_photo_set, person_photos

    of_people = clean.path.suffix == ".h5"
    if target is None:
        if of_people and goal == "dodge":
            return person_photos(clean.path, attacked.names, None, border)
        raise errors.UserError("--target is missing; name the photo of whom the attack impersonates or dodges")
    path = Path(target)
    if of_people and path.suffix == ".csv":
        return person_photos(clean.path, attacked.names, _targets(path), border)
    if of_people and not path.exists():
        return person_photos(clean.path, attacked.names, target, border)
    return open_photo_set(path, border)


def _targets(path: Path) -> dict[str, str]:
    """Return the target of each row, by a table with these columns among others."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {line["row"]: line["target"] for line in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise errors.UserError(f"{path} is no table with columns row and target ({error!r}); name one") from None
