"""What the commands on recognisers do with their options: open a network, find whom is meant, fool, and tell."""

import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from visor.cli import face_tables, terminal
from visor.errors import UserError

if TYPE_CHECKING:
    from visor.protection.fooled_photos import Aim
    from visor.protection.recognising import Onlooker

FAR = 100_000  # pixels: where a box can be
Box = tuple[float, float, float, float]


class Network(NamedTuple):
    """Which recogniser, and how it sees a photo."""

    name: str
    weights: str | None
    sha256: str | None
    labels: str | None
    options: list[str] | None
    margin: float
    threads: int
    seed: int


class Task(NamedTuple):
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


def fool(task: Task, network: Network, gallery: Path | None, whom: str | None) -> None:
    """Fool the recogniser with every photo, say what came of it, and end.

    Raises:
        UserError: an option is wrong, or a PNG cannot be written.
    """
    from visor.protection import photos as files

    eps = terminal.level(task.eps)
    found, area = files.gather(task.photos), box_of(task.box, task.photos)
    files.require_free(found, task.out, task.force)  # before TensorFlow takes its seconds
    looker = onlooker(network)
    from visor.protection import choice, face_choice, fooled_photos, fooling

    people = _people(looker, gallery)
    threshold = task.threshold
    if threshold is None:
        threshold, source = choice.same_person(network.name, network.weights is not None)
        typer.echo(f"threshold {threshold:.3f}: {source}", err=True)
    aim, label = _aim(looker, task.goal, people, whom, threshold)
    settings = fooling.Settings(eps, task.iterations, task.method, network.seed)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # a half-written PNG is deleted on the way
    refused: list[str] = []
    chosen = face_choice.Choice(area, task.face)
    done = fooled_photos.fool_photos(
        looker, settings, aim, task.attempts, found, task.out, chosen, lambda words: terminal.refuse(words, refused)
    )
    scores = _scores(looker, people)
    rows: list[face_tables.Row] = []
    try:
        for one in done:
            rows += [face_tables.row(one, face, aim, label(face.truth), scores) for face in one.faces]
    finally:  # whatever ended it, those that are done are told of
        _tell(rows, task.as_json)
    terminal.end(refused)


def onlooker(network: Network) -> "Onlooker":
    """Start TensorFlow and return the recogniser with the detector of faces before it.

    Raises:
        UserError: there is no such recogniser, or its weights cannot be had.
    """
    terminal.configure(network.threads, network.seed)
    from visor.protection import choice, face_finding, recognising

    found = choice.open_recogniser(network.name, network.weights, network.sha256, network.labels, network.options or [])
    if network.weights is None:
        typer.echo(
            f"{network.name} is the small one that `dvc repro` trained: unless that was on photographs, it knows drawn "
            "faces alone, and what it says of photographs means little; give published weights by --weights",
            err=True,
        )
    return recognising.onlooker(found, face_finding.finder(), network.margin)


def scores_of(looker: "Onlooker", gallery: Path | None) -> face_tables.Scores:
    """Return what ranks names for a face: similarity to the people of a gallery, or else probability of classes.

    Raises:
        UserError: there are neither.
    """
    found = _scores(looker, _people(looker, gallery))
    if found is None:
        name = looker.recogniser.name
        raise UserError(f"--recogniser {name} knows no classes; name people to compare with by --gallery FOLDER")
    return found


def box_of(words: str | None, photos: Sequence[Path]) -> Box | None:
    """Return the box [x, y, w, h] that --box is.

    Raises:
        UserError: it is none, or there are several photos.
    """
    from visor.protection.photos import LEAST

    if words is None:
        return None
    if len(photos) > 1 or photos[0].is_dir():
        raise UserError("--box is about one photo; name that one alone")
    try:
        x, y, width, height = map(float, words.split(","))
    except ValueError:
        raise UserError(f"--box {words} is no box; write x,y,w,h in pixels, say 120,80,90,110") from None
    if not (min(width, height) >= LEAST and max(map(abs, (x, y, width, height))) < FAR):
        raise UserError(f"--box {words} is out of range; give a width and a height of {LEAST} pixels or more")
    return x, y, width, height


def _people(looker: "Onlooker", gallery: Path | None) -> dict[str, Any]:
    from visor.protection import recognising

    return recognising.gallery(looker, gallery, terminal.warn) if gallery else {}


def _scores(looker: "Onlooker", people: dict[str, Any]) -> face_tables.Scores | None:
    import numpy as np

    if people:
        names, means = list(people), np.stack(list(people.values()))
        return lambda known: face_tables.ranked(names, means @ known.embedding)
    names = list(looker.recogniser.names)
    return (lambda known: face_tables.ranked(names, known.probabilities)) if looker.probabilities else None


def _aim(
    looker: "Onlooker", goal: str, people: dict[str, Any], whom: str | None, threshold: float
) -> tuple["Aim", Callable[[Any], str]]:
    """Return the aim at somebody in the gallery, in a photo, or a class by its name, and what its truth is called."""
    from visor.protection.fooled_photos import Aim
    from visor.protection.photos import exists
    from visor.protection.recognising import person

    names = looker.recogniser.names
    if goal == "misclassify":
        if looker.probabilities is None:
            raise UserError(f"--recogniser {looker.recogniser.name} knows no classes; leave --classes out")
        return Aim(goal, lambda known: known.probabilities.argmax().astype("int32"), threshold), lambda at: names[at]
    if whom is None:
        return Aim(goal, lambda known: known.embedding, threshold), lambda _: "itself"
    towards = goal == "impersonate"
    if towards and whom in names and whom not in people and not exists(whom):
        place = names.index(whom)
        return Aim("target_class", lambda _: place, threshold), lambda _: f"class {whom}"
    option = "--target" if towards else "--reference"
    embedding = person(looker, whom, people, names if towards else (), option, terminal.warn)
    return Aim(goal, lambda _: embedding, threshold), lambda _: whom


def _tell(rows: Sequence[face_tables.Row], as_json: bool) -> None:
    if as_json:
        terminal.say(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        terminal.say(face_tables.markdown(rows))
        for row in rows:
            if row["top_before"]:
                terminal.say(f"\n{row['photo']}, face {row['face']}, the likeliest before and after:\n")
                terminal.say(face_tables.ranking(row["top_before"], row["top_after"]))
    missed = sum(not row["reached"] for row in rows)
    if missed:
        typer.echo(f"{missed} of {terminal.count(len(rows))} did not fool it", err=True)
