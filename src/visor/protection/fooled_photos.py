"""Fool a recogniser with a collection of photos, and look at what was written as anybody would: from the file."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visor.faces import Images
from visor.protection.attempts import pursue
from visor.protection.face_choice import Choice, Say, chosen_faces
from visor.protection.face_finding import match
from visor.protection.fooling import VIEWS, Change, Fool, Settings, applied, compile_fool
from visor.protection.photos import Photo, read_photo, read_photos, save_photo, target
from visor.protection.recognising import Known, Onlooker, recognise

TOWARDS = ("impersonate", "target_class")  # goals that want a match; the others want none


class Aim(NamedTuple):
    """What is wanted: a goal, what the search is told of a face, and the similarity from which two are one person."""

    goal: str
    truth: Callable[[Known], Any]
    threshold: float


class Fooled(NamedTuple):
    """A face before, what is made of it after, and whether it is still found; if not, its old place was looked at."""

    number: int
    before: Known
    after: Known
    found: bool
    truth: Any


class Written(NamedTuple):
    """A photo uint8 (h, w, 3), the PNG that was written, what is in that, and its fooled faces."""

    photo: Photo
    path: Path
    clean: Images
    saved: Images
    faces: list[Fooled]


def fool_photos(
    looker: Onlooker,
    settings: Settings,
    aim: Aim,
    attempts: int,
    photos: Sequence[Photo],
    out: Path,
    choice: Choice,
    refuse: Say,
) -> Iterator[Written]:
    """Perturb the faces of each photo and write it; what came of them is what is seen in the PNG, read back.

    A face is searched for up to ``attempts`` changes, until one reaches the aim; else the best is taken.

    Raises:
        UserError: a PNG cannot be written.
    """
    fool = compile_fool(looker.recogniser, aim.goal, settings)
    for photo, image in read_photos(photos, "fool", refuse):
        chosen = chosen_faces(looker.find, photo, image, choice, refuse)
        if not chosen:
            continue
        before = recognise(looker, image, [face for _, face in chosen])
        faces = [
            Fooled(number, known, known, True, aim.truth(known))
            for (number, _), known in zip(chosen, before, strict=True)
        ]
        path = target(photo, out)
        save_photo(_search(looker, fool, settings.eps, aim, attempts, image, faces, choice), path)
        saved = read_photo(path, None)
        yield Written(photo, path, image, saved, _seen(looker, saved, faces, choice))


def _search(
    looker: Onlooker,
    fool: Fool,
    eps: float,
    aim: Aim,
    attempts: int,
    image: Images,
    faces: list[Fooled],
    choice: Choice,
) -> Images:
    """Return the photo with the best change of each face, as the onlooker sees them all in one photo."""

    def tried(left: list[int], attempt: int) -> dict[int, Change]:
        return {number: fool(image, faces[number].before.frame, faces[number].truth, attempt) for number in left}

    def gains(changes: Sequence[Change]) -> list[float]:
        return [
            np.inf if reached(aim.goal, face, aim.threshold) else _gain(aim.goal, face)
            for face in _seen(looker, applied(image, changes, eps), faces, choice)
        ]

    return applied(image, pursue(len(faces), attempts, tried, gains), eps)


def value(goal: str, known: Known, truth: Any) -> float:
    """Return the similarity to an embedding (d,), or the probability of a class."""
    if VIEWS[goal] == "embed":
        return float(known.embedding @ truth)
    return float(known.probabilities[truth])


def verdict(goal: str, face: Fooled, threshold: float) -> str:
    """Return whether the face passes for what it is compared with: ``matched``, ``not matched``, or ``not found``."""
    if not face.found:
        return "not found"
    if VIEWS[goal] == "embed":
        return "matched" if value(goal, face.after, face.truth) >= threshold else "not matched"
    return "matched" if int(face.after.probabilities.argmax()) == int(face.truth) else "not matched"


def reached(goal: str, face: Fooled, threshold: float) -> bool:
    """Return whether the verdict is what the goal wants."""
    return (verdict(goal, face, threshold) == "matched") == (goal in TOWARDS)


def _gain(goal: str, face: Fooled) -> float:
    gain = value(goal, face.after, face.truth)
    return (gain if face.found else gain - 2.0) if goal in TOWARDS else -gain


def _seen(looker: Onlooker, image: Images, faces: Sequence[Fooled], choice: Choice) -> list[Fooled]:
    """Return the faces as they are now in a photo."""
    there = [] if choice.box else looker.find(image)
    places = [match(face.before.face, there) for face in faces]
    now = recognise(looker, image, [place or face.before.face for place, face in zip(places, faces, strict=True)])
    return [
        face._replace(after=known, found=bool(choice.box or place))
        for face, known, place in zip(faces, now, places, strict=True)
    ]
