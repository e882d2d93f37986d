"""The commands ``visor identify``, ``visor impersonate`` and ``visor dodge``, on people's own photos."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from visor.cli import common, face_table
from visor.cli.evade import EvasionOptions, RecogniserOptions, load_photo_recogniser, parse_box, ranking_fn, run_evasion
from visor.core.errors import UserError

Name = Annotated[str, typer.Option("--recogniser", help="facenet, resnet50, senet50 or vgg_face.")]
Weights = Annotated[str | None, typer.Option(help="Published weights, a file or a URL; else the trained ones.")]
Sha256 = Annotated[str | None, typer.Option(help="Checksum of --weights.")]
Labels = Annotated[str | None, typer.Option(help="Names of the classes of --weights, .npy or a name a line.")]
Options = Annotated[
    list[str] | None, typer.Option("--option", help="NAME=VALUE for the published network, say embedding=512.")
]
Gallery = Annotated[Path | None, typer.Option(help="People to compare with: a folder of photos for each, NAME/….jpg.")]
Box = Annotated[str | None, typer.Option(help="Where the face is, by hand: x,y,w,h in pixels of the upright photo.")]
Number = Annotated[int | None, typer.Option("--face", min=1, help="This face alone, the largest being 1; else all.")]
Margin = Annotated[float, typer.Option(min=0, max=2, help="Added to a face at each end, of its sides.")]
Out = Annotated[Path, typer.Option(help="Folder for the changed photos, as PNG.")]
Iterations = Annotated[int, typer.Option(min=1, help="Gradient steps.")]
Method = Annotated[
    Literal["robust", "pgd"],
    typer.Option(help="robust: momentum, and random crops, zooms and noise to survive; pgd: plain."),
]
Attempts = Annotated[int, typer.Option(min=1, help="Searches that a face is worth.")]
Threshold = Annotated[float | None, typer.Option(min=-1, max=1, help="Similarity from which two faces are one person.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seed = Annotated[int, typer.Option(min=0)]


def crop(
    photos: common.Photos,
    out: Annotated[Path, typer.Option(help="Folder for the faces, as PNG; folders below PHOTO are kept.")],
    height: Annotated[int, typer.Option(min=12, max=2048, help="Pixels of a face's crop.")] = 160,
    width: Annotated[int, typer.Option(min=12, max=2048)] = 160,
    box: Box = None,
    face: Number = None,
    margin: Margin = 0.2,
    force: common.Force = False,
    threads: common.Threads = 2,
) -> None:
    """Cut the faces out of photos, upright and of one size, as recognisers are trained on them."""
    from visor.photos import files

    found, area = files.collect_photos(photos), parse_box(box, photos)
    files.check_outputs(found, out, force)  # before TensorFlow takes its seconds
    common.configure(threads, 1)
    from visor.photos.faces import FaceSelector, crop_photos, face_finder

    refused: list[str] = []
    chosen = FaceSelector(area, face)
    made = crop_photos(
        face_finder(),
        found,
        out,
        (height, width),
        margin,
        chosen,
        force,
        lambda words: common.report_error(words, refused),
    )
    for photo, path in made:
        common.echo(f"{photo.path} → {path}")
    common.exit_if_failed(refused)


def identify(
    photos: common.Photos,
    top: Annotated[int, typer.Option(min=1, help="How many names of each face.")] = 5,
    gallery: Gallery = None,
    recogniser: Name = "facenet",
    weights: Weights = None,
    sha256: Sha256 = None,
    labels: Labels = None,
    option: Options = None,
    box: Box = None,
    face: Number = None,
    margin: Margin = 0.2,
    as_json: AsJson = False,
    threads: common.Threads = 2,
) -> None:
    """Say who is in photos: the likeliest classes of a recogniser, or, of a gallery, the most similar people."""
    from visor.photos.files import collect_photos

    found, area = collect_photos(photos), parse_box(box, photos)  # before TensorFlow takes its seconds
    looker = load_photo_recogniser(RecogniserOptions(recogniser, weights, sha256, labels, option, margin, threads, 1))
    from visor.photos.faces import FaceSelector
    from visor.photos.identify import identify_photos

    refused: list[str] = []
    scores = ranking_fn(looker, gallery)
    seen = identify_photos(looker, found, FaceSelector(area, face), lambda words: common.report_error(words, refused))
    rows = [
        {"photo": str(photo.path), "face": number, **face_table.location(known), "top": scores(known)[:top]}
        for photo, faces in seen
        for number, known in faces
    ]
    if as_json:
        common.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    for row in rows if not as_json else ():
        common.echo(f"{row['photo']}, face {row['face']}, {common.format_box(row['box'])}")
        for place, (name, value) in enumerate(row["top"], start=1):
            common.echo(f"  {place}. {name}  {value:.3f}")
    common.exit_if_failed(refused)


def impersonate(
    photos: common.Photos,
    out: Out,
    target: Annotated[str, typer.Option(help="Whom to be taken for: a photo, or a name in --gallery or of a class.")],
    gallery: Gallery = None,
    recogniser: Name = "facenet",
    weights: Weights = None,
    sha256: Sha256 = None,
    labels: Labels = None,
    option: Options = None,
    eps: common.Eps = "8/255",
    iterations: Iterations = 40,
    method: Method = "robust",
    attempts: Attempts = 3,
    box: Box = None,
    face: Number = None,
    threshold: Threshold = None,
    margin: Margin = 0.2,
    force: common.Force = False,
    as_json: AsJson = False,
    seed: Seed = 1,
    threads: common.Threads = 2,
) -> None:
    """Make a recogniser take the faces in photos for somebody else; say what it makes of the PNGs."""
    task = EvasionOptions(
        "impersonate", photos, out, eps, iterations, method, attempts, box, face, threshold, force, as_json
    )
    network = RecogniserOptions(recogniser, weights, sha256, labels, option, margin, threads, seed)
    run_evasion(task, network, gallery, target)


def dodge(
    photos: common.Photos,
    out: Out,
    reference: Annotated[
        str | None, typer.Option(help="The same person: another photo, or a name in --gallery; else the photo itself.")
    ] = None,
    classes: Annotated[bool, typer.Option("--classes", help="Lead away from the likeliest class instead.")] = False,
    gallery: Gallery = None,
    recogniser: Name = "facenet",
    weights: Weights = None,
    sha256: Sha256 = None,
    labels: Labels = None,
    option: Options = None,
    eps: common.Eps = "8/255",
    iterations: Iterations = 40,
    method: Method = "robust",
    attempts: Attempts = 3,
    box: Box = None,
    face: Number = None,
    threshold: Threshold = None,
    margin: Margin = 0.2,
    force: common.Force = False,
    as_json: AsJson = False,
    seed: Seed = 1,
    threads: common.Threads = 2,
) -> None:
    """Make a recogniser take the faces in photos for nobody it knows; say what it makes of the PNGs."""
    if classes and reference:
        raise UserError("--reference is a person, --classes leads away from a class; leave one of them out")
    goal = "misclassify" if classes else "dodge"
    task = EvasionOptions(goal, photos, out, eps, iterations, method, attempts, box, face, threshold, force, as_json)
    network = RecogniserOptions(recogniser, weights, sha256, labels, option, margin, threads, seed)
    run_evasion(task, network, gallery, reference)
