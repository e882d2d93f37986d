"""The commands ``visor mock-service``, a face-comparison service to attack, and ``visor query``, which queries any."""

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from visor.cli import common
from visor.core import errors

if TYPE_CHECKING:
    from visor.models.detectors import Detector
    from visor.models.recognisers.base import Recogniser
    from visor.services.face_matching import EncodeFacesFn
    from visor.services.photo_sets import PhotoSet

Border = Annotated[
    float, typer.Option(min=0, max=2, help="Grey border around FaceSet faces, as a share of their size.")
]


def mock_service(
    recogniser: Annotated[
        str, typer.Option(help="facenet, resnet50, senet50, vgg_face, or one that `visor networks` lists.")
    ] = "vgg_face",
    weights: Annotated[str | None, typer.Option(help="Published weights, file or URL. Default: trained ones.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Checksum of --weights.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="Option of --weights: NAME=VALUE; can be repeated.")] = None,
    detector: Annotated[str, typer.Option(help="mtcnn, ssd, faster_rcnn, cascade, FILE.pb, or none.")] = "mtcnn",
    margin: Annotated[float, typer.Option(min=0, max=1, help="Margin around faces, as a share of their size.")] = 0.1,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=-1, max=1, help='Cosine similarity threshold for "same person". Default: the published value.'
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="FaceSet used to set the threshold at 1 % false accepts, on people outside the training set."
        ),
    ] = None,
    border: Border = 0.35,
    jpeg: Annotated[
        int, typer.Option(min=1, max=95, help="JPEG quality each image is re-encoded with before comparison.")
    ] = 85,
    budget: Annotated[int, typer.Option(min=0, help="Maximum number of queries per key.")] = 1000,
    rate: Annotated[float, typer.Option(min=0.01, help="Maximum number of queries per second and key.")] = 10.0,
    host: Annotated[
        str, typer.Option(help="Address to listen on. The default accepts connections from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8000,
    threads: common.Threads = 2,
) -> None:
    """Run a mock face-comparison service with networks the attack did not use. API keys: VISOR_MOCK_KEYS."""
    from visor.core.server import listen, serve, url
    from visor.services.accounts import KEYS_VARIABLE, AccountStore
    from visor.services.http import keys_from_environment

    if calibrate and threshold is not None:
        raise errors.UserError("--calibrate and --threshold both set the threshold; pass only one")
    keys = keys_from_environment(KEYS_VARIABLE, "a comma-separated list of API keys", ",")
    accounts = AccountStore(keys, budget, rate)
    listener = listen(host, port)  # Check arguments first: importing TensorFlow takes seconds.
    common.configure(threads, 1)
    from visor.models.recognisers import RECOGNISERS
    from visor.photos.networks import open_detector, open_recogniser, verification_threshold
    from visor.services import calibration, face_matching
    from visor.services.mock_service import create_app

    network = open_recogniser(recogniser, weights, sha256, None, option or [])
    finder = None if detector == "none" else open_detector(detector, None, [])
    encode_faces, version = _networks(network, finder, margin, jpeg)
    if calibrate:
        threshold = calibration.calibrate(encode_faces, calibrate, network.class_names, border, jpeg)
    elif threshold is None:
        threshold, _ = verification_threshold(recogniser, published=True)
        unaligned = network.template is not None and finder is None
        if unaligned or (recogniser in RECOGNISERS and not weights):
            reason = "is shown whole images, not aligned faces" if unaligned else "was trained by `dvc repro`"
            problem = f"{reason}; the published threshold would match different people"
            typer.echo(f"{recogniser} {problem}: pass --calibrate FACES.h5 or --threshold", err=True)
    score = face_matching.similarity_score(threshold)
    app = create_app(encode_faces, accounts, version, score, jpeg)
    typer.echo(f"{recogniser} behind {detector} on {url(listener)}, threshold {score:.1f} of 100; stop with Ctrl-C")
    try:
        serve(app, listener)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


def query(
    service: Annotated[str, typer.Option(help="mock, rekognition, or the description FILE.yaml of another service.")],
    attacked: Annotated[Path, typer.Option(help="Attacked photos: a photo, a folder, or a FaceSet .h5.")],
    clean: Annotated[Path, typer.Option(help="The photos before the attack, with the same names; or data/faces.h5.")],
    target: Annotated[
        str | None,
        typer.Option(
            help="Who to compare with: a photo, or a folder of photos with the same names; for a FaceSet also a name "
            "or a FILE.csv with columns `row` and `target`. Default for dodging with a FaceSet: each row's own person."
        ),
    ] = None,
    goal: Annotated[Literal["impersonate", "dodge"], typer.Option(help="Goal of the attack.")] = "impersonate",
    url: Annotated[str | None, typer.Option(help="Address of the service. Default: its usual one.")] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=100, help="Default: the service's own.")] = None,
    budget: Annotated[
        int | None,
        typer.Option(min=0, help="Maximum number of queries in this run. Retries (up to 4 each) are not counted."),
    ] = None,
    border: Border = 0.35,
    answers: Annotated[
        Path, typer.Option(help="Folder that caches the service's answers, so an interrupted run can continue.")
    ] = Path("answers"),
    out: Annotated[Path | None, typer.Option(help="Also write the metrics to this JSON file.")] = None,
    force: common.ForceFile = False,
) -> None:
    """Measure whether an attack transfers to a face-comparison service. Uploads clean and attacked photos to it."""
    from visor.core.files import write_json
    from visor.services import open_service, transfer
    from visor.services.answer_cache import QueryCounter, cached_compare
    from visor.services.photo_sets import open_photo_set

    attacked_photos, clean_photos = open_photo_set(attacked, border), open_photo_set(clean, border)
    targets = _target_photos(target, goal, clean_photos, attacked_photos, border)
    _check_writable(answers, out, force)
    opened = open_service(service, url)
    threshold = opened.threshold if threshold is None else threshold
    if threshold is None:
        raise errors.UserError(f"{service} has no threshold of its own; pass --threshold")
    counter, failed = QueryCounter(), list[str]()
    compare = cached_compare(opened, answers, budget, counter)
    results: list[transfer.PhotoResult] = []
    try:
        for result in transfer.compare_all(
            compare, clean_photos, attacked_photos, targets, lambda message: common.report_error(message, failed)
        ):
            results.append(result)
    finally:  # Report what was answered before an interruption or the end of the budget.
        if results:
            metrics = transfer.summarise_transfer(results, goal, threshold, counter)
            typer.echo(transfer.transfer_table(results, metrics))
            if out:
                by_photo = transfer.similarities_by_photo(results)
                write_json(out, {"service": opened.name, **metrics, "by_photo": by_photo})
    common.exit_if_failed(failed)


def _networks(
    recogniser: "Recogniser", detector: "Detector | None", margin: float, jpeg: int
) -> tuple["EncodeFacesFn", str]:
    """Return the face encoder of these networks, and the version of the service."""
    from visor.models.recognisers.base import embeddings
    from visor.photos.hide import detect_in_photo
    from visor.services.face_matching import face_encoder, network_fingerprint

    embed, shape = embeddings(recogniser), recogniser.image_shape[:2]
    detect = partial(detect_in_photo, detector) if detector else None
    # Similarities of aligned faces are others: a cached answer must not be taken for one of them.
    cut = "aligned" if recogniser.template else margin
    settings = f"{recogniser.name} {detector and detector.name} {detector.threshold if detector else 0.0} {cut} {jpeg}"
    # The fingerprint takes the detector without its threshold: noise has no confident detections.
    version = network_fingerprint(settings, detector.detect if detector else None, embed, shape)
    return face_encoder(detect, embed, shape, margin, recogniser.template), version


def _check_writable(answers: Path, out: Path | None, force: bool) -> None:
    """Check all output, and create its folders, before a query is paid for."""
    from visor.core.files import check_output

    for option, folder in (("--answers", answers), ("--out", out and out.parent)):
        try:
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.UserError(f"{option}: {folder} cannot be created ({error.strerror}); pass another") from None
    if out:
        check_output(out, "--out", force)


def _target_photos(target: str | None, goal: str, clean: "PhotoSet", attacked: "PhotoSet", border: float) -> "PhotoSet":
    """Return the photos that the attacked ones are compared with."""
    from visor.services.photo_sets import open_photo_set, person_photos

    is_face_set = clean.path.suffix == ".h5"
    if target is None:
        if not (is_face_set and goal == "dodge"):
            raise errors.UserError("--target is missing; pass the photo of the person to impersonate or dodge")
        return person_photos(clean.path, attacked.names, None, border)
    path = Path(target)
    if is_face_set and (path.suffix == ".csv" or not path.exists()):
        people = _read_targets(path, attacked.names) if path.suffix == ".csv" else target
        return person_photos(clean.path, attacked.names, people, border)
    return open_photo_set(path, border)


def _read_targets(path: Path, rows: Sequence[str]) -> dict[str, str]:
    """Return the target of each of the rows from a table with at least the columns ``row`` and ``target``."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            targets = {line["row"]: line["target"] for line in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise errors.UserError(f"{path} is not a table with columns row and target ({error!r}); pass one") from None
    for row in rows:
        if row not in targets:
            raise errors.UserError(f"{path} has no line for row {row}; add it")
    return targets
