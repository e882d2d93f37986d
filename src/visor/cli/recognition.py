"""The commands ``visor identify``, ``visor impersonate`` and ``visor dodge``, on people's own photos."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from visor.cli import face_tables, terminal
from visor.cli.fooling import Network, Task, box_of, fool, onlooker, scores_of
from visor.errors import UserError

Name = Annotated[str, typer.Option("--recogniser", help="facenet, resnet50, senet50 or vgg16.")]
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
    photos: terminal.Photos,
    out: Annotated[Path, typer.Option(help="Folder for the faces, as PNG; folders below PHOTO are kept.")],
    height: Annotated[int, typer.Option(min=12, max=2048, help="Pixels of a face's crop.")] = 160,
    width: Annotated[int, typer.Option(min=12, max=2048)] = 160,
    box: Box = None,
    face: Number = None,
    margin: Margin = 0.2,
    force: terminal.Force = False,
    threads: terminal.Threads = 2,
) -> None:
    """Cut the faces out of photos, upright and of one size, as recognisers are trained on them."""
    from visor.protection import photos as files

    found, area = files.gather(photos), box_of(box, photos)
    files.require_free(found, out, force)  # before TensorFlow takes its seconds
    terminal.configure(threads, 1)
    from visor.protection.face_choice import Choice, crop_photos
    from visor.protection.face_finding import finder

    refused: list[str] = []
    chosen = Choice(area, face)
    made = crop_photos(
        finder(), found, out, (height, width), margin, chosen, force, lambda words: terminal.refuse(words, refused)
    )
    for photo, path in made:
        terminal.say(f"{photo.path} → {path}")
    terminal.end(refused)


def identify(
    photos: terminal.Photos,
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
    threads: terminal.Threads = 2,
) -> None:
    """Say who is in photos: the likeliest classes of a recogniser, or, of a gallery, the most similar people."""
    from visor.protection.photos import gather

    found, area = gather(photos), box_of(box, photos)  # before TensorFlow takes its seconds
    looker = onlooker(Network(recogniser, weights, sha256, labels, option, margin, threads, 1))
    from visor.protection.face_choice import Choice
    from visor.protection.recognising import look

    refused: list[str] = []
    scores = scores_of(looker, gallery)
    seen = look(looker, found, Choice(area, face), lambda words: terminal.refuse(words, refused))
    rows = [
        {"photo": str(photo.path), "face": number, **face_tables.place(known), "top": scores(known)[:top]}
        for photo, faces in seen
        for number, known in faces
    ]
    if as_json:
        terminal.say(json.dumps(rows, indent=2, ensure_ascii=False))
    for row in rows if not as_json else ():
        terminal.say(f"{row['photo']}, face {row['face']}, {terminal.place(row['box'])}")
        for place, (name, value) in enumerate(row["top"], start=1):
            terminal.say(f"  {place}. {name}  {value:.3f}")
    terminal.end(refused)


def impersonate(
    photos: terminal.Photos,
    out: Out,
    target: Annotated[str, typer.Option(help="Whom to be taken for: a photo, or a name in --gallery or of a class.")],
    gallery: Gallery = None,
    recogniser: Name = "facenet",
    weights: Weights = None,
    sha256: Sha256 = None,
    labels: Labels = None,
    option: Options = None,
    eps: terminal.Eps = "8/255",
    iterations: Iterations = 40,
    method: Method = "robust",
    attempts: Attempts = 3,
    box: Box = None,
    face: Number = None,
    threshold: Threshold = None,
    margin: Margin = 0.2,
    force: terminal.Force = False,
    as_json: AsJson = False,
    seed: Seed = 1,
    threads: terminal.Threads = 2,
) -> None:
    """Make a recogniser take the faces in photos for somebody else; say what it makes of the PNGs."""
    task = Task("impersonate", photos, out, eps, iterations, method, attempts, box, face, threshold, force, as_json)
    network = Network(recogniser, weights, sha256, labels, option, margin, threads, seed)
    fool(task, network, gallery, target)


def dodge(
    photos: terminal.Photos,
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
    eps: terminal.Eps = "8/255",
    iterations: Iterations = 40,
    method: Method = "robust",
    attempts: Attempts = 3,
    box: Box = None,
    face: Number = None,
    threshold: Threshold = None,
    margin: Margin = 0.2,
    force: terminal.Force = False,
    as_json: AsJson = False,
    seed: Seed = 1,
    threads: terminal.Threads = 2,
) -> None:
    """Make a recogniser take the faces in photos for nobody it knows; say what it makes of the PNGs."""
    if classes and reference:
        raise UserError("--reference is a person, --classes leads away from a class; leave one of them out")
    goal = "misclassify" if classes else "dodge"
    task = Task(goal, photos, out, eps, iterations, method, attempts, box, face, threshold, force, as_json)
    network = Network(recogniser, weights, sha256, labels, option, margin, threads, seed)
    fool(task, network, gallery, reference)
