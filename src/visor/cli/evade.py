"""What the commands on recognisers share: groups of options, and the run of an evasion attack."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from visor.cli import common, face_table
from visor.core.errors import UserError

if TYPE_CHECKING:
    from visor.photos.identify import PhotoRecogniser, RecognisedFace
    from visor.photos.outcome import AttackGoal

MAX_COORDINATE = 100_000  # pixels


class RecogniserOptions(NamedTuple):
    """Options for the recogniser."""

    recogniser: Annotated[
        str,
        typer.Option(
            help="facenet, resnet50, senet50, vgg_face, dlib_resnet, faceres, or a MobileFaceNet FILE.tflite."
        ),
    ] = "facenet"
    weights: Annotated[str | None, typer.Option(help="Published weights, file or URL. Default: trained ones.")] = None
    sha256: Annotated[str | None, typer.Option(help="Checksum of --weights.")] = None
    labels: Annotated[str | None, typer.Option(help="Class names of --weights: .npy, or one name per line.")] = None
    option: Annotated[list[str] | None, typer.Option(help="Recogniser option NAME=VALUE; can be repeated.")] = None
    gallery: Annotated[Path | None, typer.Option(help="People to compare with: one folder of photos each.")] = None
    threads: common.Threads = 2


class FaceOptions(NamedTuple):
    """Options for the faces of a photo."""

    box: Annotated[str | None, typer.Option(help="Box of the face: x,y,w,h in pixels of the upright photo.")] = None
    face: Annotated[int | None, typer.Option(min=1, help="Only this face; 1 is the largest.")] = None
    margin: Annotated[
        float | None,
        typer.Option(
            min=0, max=2, help="Margin around the face box, as a share of its sides. Default: 0.2, for faceres 0.1."
        ),
    ] = None


class EvasionOptions(NamedTuple):
    """Options for the attack."""

    out: Annotated[Path, typer.Option(help="Folder for the changed photos, as PNG.")]
    eps: common.Eps = "8/255"
    iterations: Annotated[int, typer.Option(min=1, help="Gradient steps.")] = 40
    method: Annotated[
        Literal["robust", "pgd"],
        typer.Option(help="robust: PGD with momentum and random crops, zooms and noise; pgd: plain PGD."),
    ] = "robust"
    attempts: Annotated[int, typer.Option(min=1, help="Maximum number of restarts per face.")] = 3
    threshold: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Cosine similarity at or above which two faces count as the same person."),
    ] = None
    force: common.Force = False
    as_json: common.AsJson = False
    seed: common.Seed = 1


def run_evasion(
    goal: str,
    target: str | None,
    photos: list[Path],
    attack: EvasionOptions,
    network: RecogniserOptions,
    faces: FaceOptions,
) -> None:
    """Attack the faces of all photos and print the results."""
    from visor.photos.files import check_outputs, collect_photos

    eps, files, box = common.parse_eps(attack.eps), collect_photos(photos), parse_box(faces.box, photos)
    check_outputs(files, attack.out, attack.force)  # Check arguments first: importing TensorFlow takes seconds.
    recogniser = load_photo_recogniser(network, faces.margin, attack.seed)
    from visor.photos import evade, networks
    from visor.photos.faces import FaceSelector

    people = load_people(recogniser, network.gallery)
    threshold = attack.threshold
    if threshold is None:
        threshold, source = networks.verification_threshold(network.recogniser, network.weights is not None)
        typer.echo(f"threshold {threshold:.3f}: {source}", err=True)
    goal_fn = _resolve_goal(recogniser, goal, people, target, threshold)
    settings = evade.EvadeSettings(eps, attack.iterations, attack.method, attack.seed, attack.attempts)
    common.exit_on_sigterm()
    errors: list[str] = []
    selector = FaceSelector(box, faces.face)
    results = evade.evade_photos(
        recogniser, goal_fn, settings, files, attack.out, selector, lambda text: common.report_error(text, errors)
    )
    rank = rank_fn(recogniser, people)
    rows: list[face_table.FaceRow] = []
    try:
        for result in results:
            rows += [face_table.face_row(result, number, rank) for number in result.faces]
    finally:  # Print the photos that are done, whatever ends the command.
        _print_rows(rows, attack.as_json)
    common.exit_if_failed(errors)


def load_photo_recogniser(network: RecogniserOptions, margin: float | None, seed: int) -> "PhotoRecogniser":
    """Start TensorFlow and load a recogniser and the face finder."""
    common.configure(network.threads, seed)
    from visor.models.recognisers import RECOGNISERS
    from visor.photos import faces, identify, networks

    name, weights = network.recogniser, network.weights
    recogniser = networks.open_recogniser(name, weights, network.sha256, network.labels, network.option or [])
    if weights is None and name in RECOGNISERS:
        typer.echo(
            f"{name} is the small network trained by `dvc repro`; by default it was trained on rendered faces only, so "
            "results on photographs are unreliable: pass published weights with --weights",
            err=True,
        )
    margin = networks.crop_margin(name) if margin is None else margin
    return identify.photo_recogniser(recogniser, faces.face_finder(), margin)


def parse_box(text: str | None, photos: Sequence[Path]) -> tuple[float, float, float, float] | None:
    """Parse --box, which is for a single photo."""
    from visor.photos.files import MIN_FACE_SIDE

    if text is None:
        return None
    if len(photos) > 1 or photos[0].is_dir():
        raise UserError("--box works with a single photo; pass only one")
    try:
        x, y, width, height = map(float, text.split(","))
    except ValueError:
        raise UserError(f"--box {text} is not a box; use x,y,w,h in pixels, e.g. 120,80,90,110") from None
    if not (min(width, height) >= MIN_FACE_SIDE and max(map(abs, (x, y, width, height))) < MAX_COORDINATE):
        raise UserError(f"--box {text} is out of range; use a width and a height of {MIN_FACE_SIDE} pixels or more")
    return x, y, width, height


def load_people(recogniser: "PhotoRecogniser", gallery: Path | None) -> dict[str, Any]:
    """Return the mean embedding of each person of a gallery, if there is one."""
    from visor.photos.identify import load_gallery

    return load_gallery(recogniser, gallery, common.warn) if gallery else {}


def rank_fn(recogniser: "PhotoRecogniser", people: dict[str, Any]) -> face_table.RankFn | None:
    """Return a function that ranks people by similarity to a face, or else classes by probability; None if neither."""
    import numpy as np

    if people:
        names, means = list(people), np.stack(list(people.values()))
        return lambda face: face_table.rank_names(names, means @ face.embedding)
    classes = recogniser.recogniser.class_names
    return (lambda face: face_table.rank_names(classes, face.probabilities)) if recogniser.probabilities else None


def _resolve_goal(
    recogniser: "PhotoRecogniser", goal: str, people: dict[str, Any], target: str | None, threshold: float
) -> Callable[["RecognisedFace"], "AttackGoal"]:
    """Return a function from a face to its goal."""
    from visor.photos.files import exists
    from visor.photos.identify import resolve_person
    from visor.photos.outcome import AttackGoal

    classes, is_targeted = recogniser.recogniser.class_names, goal == "impersonate"
    if goal == "misclassify":
        if recogniser.probabilities is None:
            raise UserError(f"--recogniser {recogniser.recogniser.name} has no classes; omit --classes")

        def top_class(face: "RecognisedFace") -> AttackGoal:
            number = face.probabilities.argmax().astype("int32")
            return AttackGoal(goal, number, threshold, classes[number])

        return top_class
    if target is None:
        return lambda face: AttackGoal(goal, face.embedding, threshold)
    if is_targeted and target in classes and target not in people and not exists(target):
        return lambda face: AttackGoal("target_class", classes.index(target), threshold, f"class {target}")
    option = "--target" if is_targeted else "--reference"
    embedding = resolve_person(recogniser, target, people, classes if is_targeted else (), option, common.warn)
    return lambda face: AttackGoal(goal, embedding, threshold, target)


def _print_rows(rows: Sequence[face_table.FaceRow], as_json: bool) -> None:
    if as_json:
        common.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        common.echo(face_table.face_table(rows))
        for row in rows:
            if row["top_before"]:
                common.echo(f"\n{row['photo']}, face {row['face']}, top names before and after:\n")
                common.echo(face_table.ranking_table(row["top_before"], row["top_after"]))
    missed = sum(not row["reached"] for row in rows)
    if missed:
        typer.echo(f"{missed} of {common.format_face_count(len(rows))}: attack failed", err=True)
