"""The commands ``visor crop``, ``identify``, ``impersonate`` and ``dodge``: recognisers on people's own photos."""

import json
from pathlib import Path
from typing import Annotated

import typer

from visor.cli import common, evade, face_table
from visor.cli.evade import EvasionOptions, FaceOptions, RecogniserOptions
from visor.core.errors import UserError


@common.expand_options
def crop(
    photos: common.Photos,
    out: Annotated[Path, typer.Option(help="Folder for the faces, as PNG; folders below PHOTO are kept.")],
    faces: FaceOptions,
    height: Annotated[int, typer.Option(min=12, max=2048, help="Height of a crop in pixels.")] = 160,
    width: Annotated[int, typer.Option(min=12, max=2048, help="Width of a crop in pixels.")] = 160,
    align: Annotated[
        str | None, typer.Option(help="Align faces for this published recogniser, instead of using --margin.")
    ] = None,
    force: common.Force = False,
    threads: common.Threads = 2,
) -> None:
    """Cut the faces out of photos, upright and of one size, as recognisers are trained on them."""
    from visor.photos.files import check_outputs, collect_photos

    files, box = collect_photos(photos), evade.parse_box(faces.box, photos)
    check_outputs(files, out, force)  # Check arguments first: importing TensorFlow takes seconds.
    common.configure(threads, 1)
    from visor.photos.faces import FaceSelector, crop_photos, face_finder
    from visor.photos.networks import DEFAULT_MARGIN, alignment_template

    template = alignment_template(align) if align else None
    margin = DEFAULT_MARGIN if faces.margin is None else faces.margin
    errors: list[str] = []
    find, shape, selector = face_finder(), (height, width), FaceSelector(box, faces.face)

    def report(message: str) -> None:
        common.report_error(message, errors)

    for photo, path in crop_photos(find, files, out, shape, margin, selector, force, report, template):
        common.echo(f"{photo.path} → {path}")
    common.exit_if_failed(errors)


@common.expand_options
def identify(
    photos: common.Photos,
    network: RecogniserOptions,
    faces: FaceOptions,
    top: Annotated[int, typer.Option(min=1, help="Number of names per face.")] = 5,
    as_json: common.AsJson = False,
) -> None:
    """Identify the people in photos: top classes of a recogniser, or most similar people of a gallery."""
    from visor.photos.files import collect_photos

    # Check arguments first: importing TensorFlow takes seconds.
    files, box = collect_photos(photos), evade.parse_box(faces.box, photos)
    recogniser = evade.load_photo_recogniser(network, faces.margin, 1)
    from visor.photos.faces import FaceSelector
    from visor.photos.identify import identify_photos

    errors: list[str] = []
    rank = evade.rank_fn(recogniser, evade.load_people(recogniser, network.gallery))
    if rank is None:
        raise UserError(
            f"--recogniser {network.recogniser} has no classes; pass people to compare with: --gallery FOLDER"
        )
    selector = FaceSelector(box, faces.face)
    results = identify_photos(recogniser, files, selector, lambda message: common.report_error(message, errors))
    rows = [
        {"photo": str(photo.path), "face": number, **face_table.location(face), "top": rank(face)[:top]}
        for photo, recognised in results
        for number, face in recognised
    ]
    if as_json:
        common.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    for row in rows if not as_json else ():
        common.echo(f"{row['photo']}, face {row['face']}, {common.format_box(row['box'])}")
        for place, (name, score) in enumerate(row["top"], start=1):
            common.echo(f"  {place}. {name}  {score:.3f}")
    common.exit_if_failed(errors)


@common.expand_options
def impersonate(
    photos: common.Photos,
    attack: EvasionOptions,
    target: Annotated[str, typer.Option(help="Person to impersonate: a photo, a name in --gallery, or a class name.")],
    network: RecogniserOptions,
    faces: FaceOptions,
) -> None:
    """Make a recogniser match the faces in photos with someone else, and report the result on the saved PNGs."""
    evade.run_evasion("impersonate", target, photos, attack, network, faces)


@common.expand_options
def dodge(
    photos: common.Photos,
    attack: EvasionOptions,
    network: RecogniserOptions,
    faces: FaceOptions,
    reference: Annotated[
        str | None, typer.Option(help="The same person: another photo, or a name in --gallery. Default: the photo.")
    ] = None,
    classes: Annotated[
        bool, typer.Option("--classes", help="Evade the top predicted class instead of a person.")
    ] = False,
) -> None:
    """Stop a recogniser from matching the faces in photos, and report the result on the saved PNGs."""
    if classes and reference:
        raise UserError("--reference and --classes cannot be combined; leave one of them out")
    evade.run_evasion("misclassify" if classes else "dodge", reference, photos, attack, network, faces)
