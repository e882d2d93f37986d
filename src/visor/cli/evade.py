"""What the commands on recognisers do with their options: open a network, find whom is meant, fool, and tell."""

import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from visor.cli import common, face_table
from visor.core.errors import UserError
from visor.core.types import Box

if TYPE_CHECKING:
    from visor.photos.evade import AttackGoal
    from visor.photos.identify import PhotoRecogniser

MAX_COORDINATE = 100_000  # pixels: where a box can be


class RecogniserOptions(NamedTuple):
    """Which recogniser, and how it sees a photo."""

    name: str
    weights: str | None
    sha256: str | None
    labels: str | None
    options: list[str] | None
    margin: float
    threads: int
    seed: int


class EvasionOptions(NamedTuple):
    """What to do to which photos."""

    goal: str
    photos: list[Path]
    out: Path
    eps: str
    iterations: int
    method: str
    attempts: int
    box: str | None
    face: int | None
    threshold: float | None
    force: bool
    as_json: bool


def run_evasion(task: EvasionOptions, network: RecogniserOptions, gallery: Path | None, target: str | None) -> None:
    """Fool the recogniser with every photo, say what came of it, and end.

    Raises:
        UserError: an option is wrong, or a PNG cannot be written.
    """
    from visor.photos import files

    eps = common.parse_eps(task.eps)
    found, area = files.collect_photos(task.photos), parse_box(task.box, task.photos)
    files.check_outputs(found, task.out, task.force)  # before TensorFlow takes its seconds
    looker = load_photo_recogniser(network)
    from visor.photos import evade, faces, networks

    people = _people(looker, gallery)
    threshold = task.threshold
    if threshold is None:
        threshold, source = networks.verification_threshold(network.name, network.weights is not None)
        typer.echo(f"threshold {threshold:.3f}: {source}", err=True)
    aim, label = _aim(looker, task.goal, people, target, threshold)
    settings = evade.EvadeSettings(eps, task.iterations, task.method, network.seed)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # a half-written PNG is deleted on the way
    refused: list[str] = []
    chosen = faces.FaceSelector(area, task.face)
    done = evade.evade_photos(
        looker, settings, aim, task.attempts, found, task.out, chosen, lambda words: common.report_error(words, refused)
    )
    scores = _scores(looker, people)
    rows: list[face_table.Row] = []
    try:
        for one in done:
            rows += [face_table.face_row(one, face, aim, label(face.truth), scores) for face in one.faces]
    finally:  # whatever ended it, those that are done are told of
        _print_rows(rows, task.as_json)
    common.exit_if_failed(refused)


def load_photo_recogniser(network: RecogniserOptions) -> "PhotoRecogniser":
    """Start TensorFlow and return the recogniser with the detector of faces before it.

    Raises:
        UserError: there is no such recogniser, or its weights cannot be had.
    """
    common.configure(network.threads, network.seed)
    from visor.photos import faces, identify, networks

    found = networks.open_recogniser(
        network.name, network.weights, network.sha256, network.labels, network.options or []
    )
    if network.weights is None:
        typer.echo(
            f"{network.name} is the small one that `dvc repro` trained: unless that was on photographs, it knows drawn "
            "faces alone, and what it says of photographs means little; give published weights by --weights",
            err=True,
        )
    return identify.photo_recogniser(found, faces.face_finder(), network.margin)


def ranking_fn(looker: "PhotoRecogniser", gallery: Path | None) -> face_table.Scores:
    """Return what ranks names for a face: similarity to the people of a gallery, or else probability of classes.

    Raises:
        UserError: there are neither.
    """
    found = _scores(looker, _people(looker, gallery))
    if found is None:
        name = looker.recogniser.name
        raise UserError(f"--recogniser {name} knows no classes; name people to compare with by --gallery FOLDER")
    return found


def parse_box(words: str | None, photos: Sequence[Path]) -> Box | None:
    """Return the box [x, y, w, h] that --box is.

    Raises:
        UserError: it is none, or there are several photos.
    """
    from visor.photos.files import MIN_FACE_SIDE

    if words is None:
        return None
    if len(photos) > 1 or photos[0].is_dir():
        raise UserError("--box is about one photo; name that one alone")
    try:
        x, y, width, height = map(float, words.split(","))
    except ValueError:
        raise UserError(f"--box {words} is no box; write x,y,w,h in pixels, say 120,80,90,110") from None
    if not (min(width, height) >= MIN_FACE_SIDE and max(map(abs, (x, y, width, height))) < MAX_COORDINATE):
        raise UserError(f"--box {words} is out of range; give a width and a height of {MIN_FACE_SIDE} pixels or more")
    return x, y, width, height


def _people(looker: "PhotoRecogniser", gallery: Path | None) -> dict[str, Any]:
    from visor.photos import identify

    return identify.load_gallery(looker, gallery, common.warn) if gallery else {}


def _scores(looker: "PhotoRecogniser", people: dict[str, Any]) -> face_table.Scores | None:
    import numpy as np

    if people:
        names, means = list(people), np.stack(list(people.values()))
        return lambda known: face_table.rank_names(names, means @ known.embedding)
    names = list(looker.recogniser.class_names)
    return (lambda known: face_table.rank_names(names, known.probabilities)) if looker.probabilities else None


def _aim(
    looker: "PhotoRecogniser", goal: str, people: dict[str, Any], target: str | None, threshold: float
) -> tuple["AttackGoal", Callable[[Any], str]]:
    """Return the aim at somebody in the gallery, in a photo, or a class by its name, and what its truth is called."""
    from visor.photos.evade import AttackGoal
    from visor.photos.files import exists
    from visor.photos.identify import resolve_person

    names = looker.recogniser.class_names
    if goal == "misclassify":
        if looker.probabilities is None:
            raise UserError(f"--recogniser {looker.recogniser.name} knows no classes; leave --classes out")
        return AttackGoal(
            goal, lambda known: known.probabilities.argmax().astype("int32"), threshold
        ), lambda at: names[at]
    if target is None:
        return AttackGoal(goal, lambda known: known.embedding, threshold), lambda _: "itself"
    towards = goal == "impersonate"
    if towards and target in names and target not in people and not exists(target):
        place = names.index(target)
        return AttackGoal("target_class", lambda _: place, threshold), lambda _: f"class {target}"
    option = "--target" if towards else "--reference"
    embedding = resolve_person(looker, target, people, names if towards else (), option, common.warn)
    return AttackGoal(goal, lambda _: embedding, threshold), lambda _: target


def _print_rows(rows: Sequence[face_table.Row], as_json: bool) -> None:
    if as_json:
        common.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        common.echo(face_table.face_table(rows))
        for row in rows:
            if row["top_before"]:
                common.echo(f"\n{row['photo']}, face {row['face']}, the likeliest before and after:\n")
                common.echo(face_table.ranking(row["top_before"], row["top_after"]))
    missed = sum(not row["reached"] for row in rows)
    if missed:
        typer.echo(f"{missed} of {common.format_face_count(len(rows))} did not fool it", err=True)
