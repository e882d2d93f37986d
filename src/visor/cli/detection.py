"""The commands ``visor detect`` and ``visor protect``: detectors on people's own photos."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from visor.cli import common

Name = Annotated[
    str,
    typer.Option(
        "--detector",
        help="mtcnn, ssd, faster_rcnn, cascade, one that `visor networks` lists, or a FILE.pb or FILE.safetensors.",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Minimum score for a detection. Default: the detector's own threshold."),
]
Options = Annotated[list[str] | None, typer.Option("--option", help="Detector option NAME=VALUE; can be repeated.")]
Mask = Annotated[
    Literal["faces", "none"], typer.Option(help="faces: perturb only the face boxes, enlarged; none: the whole photo.")
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
    """Find the faces in photos: one line per face, with its box in pixels and its score."""
    from visor.photos.files import collect_photos

    files = collect_photos(photos)  # Check arguments first: importing TensorFlow takes seconds.
    common.configure(threads, 1)
    from visor.photos import hide, networks

    errors: list[str] = []
    network = networks.open_detector(detector, threshold, option or [])
    faces = hide.detect_photos(network, files, lambda message: common.report_error(message, errors))
    if as_json:
        common.echo(json.dumps(faces, indent=2, ensure_ascii=False))
    for file, rows in faces.items() if not as_json else ():
        common.echo(f"{file}: {common.format_face_count(len(rows))}")
        for row in rows:
            common.echo(f"  {common.format_box(row['box'])}  score {row['score']:.3f}")
    common.exit_if_failed(errors)


def protect(
    photos: common.Photos,
    out: Annotated[Path, typer.Option(help="Folder for the protected photos, as PNG.")],
    detector: Name = "mtcnn",
    eps: common.Eps = "8/255",
    iterations: Annotated[int, typer.Option(min=1, help="Gradient steps.")] = 40,
    mask: Mask = "none",
    side: Annotated[
        int, typer.Option(min=64, max=2048, help="Longer side, in pixels, of the copy the attack is computed on.")
    ] = 1024,
    attempts: Annotated[int, typer.Option(min=1, help="Maximum number of restarts per photo.")] = 2,
    threshold: Threshold = None,
    option: Options = None,
    objective: Objective = "suppress",
    force: common.Force = False,
    seed: common.Seed = 1,
    threads: common.Threads = 2,
) -> None:
    """Hide faces in photos from a detector and report the result for each face, measured on the saved PNG."""
    from visor.photos.files import check_outputs, collect_photos

    bound, files = common.parse_eps(eps), collect_photos(photos)
    common.configure(threads, seed)
    from visor.photos import hide, networks

    check_outputs(files, out, force)
    network = networks.open_detector(detector, threshold, option or [])
    settings = hide.HideSettings(bound, iterations, objective, mask, side=side, attempts=attempts, seed=seed)
    common.exit_on_sigterm()
    errors: list[str] = []
    total = missed = 0
    for result in hide.hide_photos(network, files, out, settings, lambda text: common.report_error(text, errors)):
        added = f", {result.new_boxes} new box{'es' if result.new_boxes > 1 else ''}" if result.new_boxes else ""
        count = common.format_face_count(len(result.outcomes))
        common.echo(f"{result.photo.path} → {result.path}: {count}{added}")
        for row, outcome in zip(hide.detection_rows(result.before), result.outcomes, strict=True):
            common.echo(f"  {common.format_box(row['box'])}  score {row['score']:.3f}  {outcome.label}")
            total, missed = total + 1, missed + bool(outcome.after)
    if missed:
        typer.echo(f"{missed} of {common.format_face_count(total)} still found", err=True)
    common.exit_if_failed(errors)
