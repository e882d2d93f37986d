"""The commands ``visor detect`` and ``visor protect``, on people's own photos."""

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from visor.cli import common

if TYPE_CHECKING:
    from visor.photos.hide import DetectedFace, HiddenPhoto

Name = Annotated[str, typer.Option("--detector", help="mtcnn, ssd, faster_rcnn, cascade, or a frozen graph FILE.pb.")]
Threshold = Annotated[
    float | None, typer.Option(min=0, max=1, help="Score from which on a box is a face; else the detector's own.")
]
Options = Annotated[list[str] | None, typer.Option("--option", help="NAME=VALUE for the detector; can be repeated.")]
Mask = Annotated[
    Literal["faces", "none"], typer.Option(help="faces: perturb inside their boxes, enlarged, alone; none: everywhere.")
]
Objective = Annotated[
    Literal["suppress", "near_faces", "near_faces_by_area", "training_loss"],
    typer.Option(help="What the attack maximises."),
]


def detect(
    photos: common.Photos,
    detector: Name = "mtcnn",
    threshold: Threshold = None,
    option: Options = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: file → boxes [x, y, w, h] and scores.")] = False,
    threads: common.Threads = 2,
) -> None:
    """Find the faces in photos: a line a face, with its box in pixels and its score."""
    from visor.photos.files import collect_photos

    found = collect_photos(photos)  # before TensorFlow takes its seconds
    common.configure(threads, 1)
    from visor.photos import hide, networks

    refused: list[str] = []
    eyes = networks.open_detector(detector, threshold, option or [])
    faces = hide.detect_photos(eyes, found, lambda words: common.report_error(words, refused))
    if as_json:
        common.echo(json.dumps(hide.as_json(faces), indent=2, ensure_ascii=False))
    for file, own in faces.items() if not as_json else ():
        common.echo(f"{file}: {common.format_face_count(len(own))}")
        for face in own:
            common.echo(f"  {common.format_box(face.box)}  score {face.score:.3f}")
    common.exit_if_failed(refused)


def protect(
    photos: common.Photos,
    out: Annotated[Path, typer.Option(help="Folder for the protected photos, as PNG.")],
    detector: Name = "mtcnn",
    eps: common.Eps = "8/255",
    iterations: Annotated[int, typer.Option(min=1, help="Gradient steps.")] = 40,
    mask: Mask = "none",
    side: Annotated[int, typer.Option(min=64, max=2048, help="Longer side of the copy that is attacked.")] = 1024,
    attempts: Annotated[int, typer.Option(min=1, help="Searches that a photo is worth.")] = 2,
    threshold: Threshold = None,
    option: Options = None,
    objective: Objective = "suppress",
    force: common.Force = False,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    threads: common.Threads = 2,
) -> None:
    """Hide the faces in photos from a detector; say what became of each, by the PNG that was written."""
    from visor.photos import files

    bound = common.parse_eps(eps)
    found = files.collect_photos(photos)
    common.configure(threads, seed)
    from visor.photos import hide, networks
    from visor.photos.hide import HideSettings

    files.check_outputs(found, out, force)
    eyes = networks.open_detector(detector, threshold, option or [])
    settings = HideSettings(bound, iterations, objective, mask, side=side, attempts=attempts, seed=seed)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # a half-written PNG is deleted on the way
    refused: list[str] = []
    done = hide.protect_photos(eyes, found, out, settings, lambda words: common.report_error(words, refused))
    ends = [face.outcome for one in done for face in _told(one)]
    if left := len(ends) - ends.count("vanished"):
        typer.echo(f"{left} of {common.format_face_count(len(ends))} still found", err=True)
    common.exit_if_failed(refused)


def _told(done: "HiddenPhoto") -> list["DetectedFace"]:
    """Say what became of a photo and its faces, and return these."""
    boxes = f", {done.new} new box{'es' if done.new > 1 else ''}" if done.new else ""
    common.echo(f"{done.photo.path} → {done.path}: {common.format_face_count(len(done.faces))}{boxes}")
    for face in done.faces:
        common.echo(f"  {common.format_box(face.box)}  score {face.score:.3f}  {face.outcome}")
    return done.faces
