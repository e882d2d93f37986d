"""Recognise faces in photos: a recogniser with a face finder, galleries of people, identification."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from visor.core.errors import UserError
from visor.core.tables import label
from visor.core.types import Floats, ImageArray, MessageCallback
from visor.data.crops import CropBox, crop
from visor.models.alignment import face_frame, locate_landmarks
from visor.models.recognisers.base import Recogniser, embeddings, probabilities
from visor.photos.faces import Face, FaceSelector, FindFacesFn, select_faces
from visor.photos.files import PhotoFile, collect_photos, exists, read_photos

EmbedFn = Callable[[ImageArray], Floats]

MAX_GALLERY_PHOTOS = 10  # of one person: more change the mean little
MAX_SUGGESTIONS = 3  # names that a message about an unknown one offers


class PhotoRecogniser(NamedTuple):
    """A recogniser for whole photos."""

    recogniser: Recogniser
    find: FindFacesFn
    margin: float  # around a face box, as a share of its sides; for a network or a face without landmarks
    embed: EmbedFn  # crops uint8 (n, h, w, 3) → embeddings (n, d) of length 1
    probabilities: EmbedFn | None  # crops → (n, classes); None for a recogniser without classes


class RecognisedFace(NamedTuple):
    """A face in a photo, its crop box, embedding (d,) of length 1, and class probabilities (classes,), maybe (0,)."""

    face: Face
    frame: CropBox
    embedding: Floats
    probabilities: Floats


def photo_recogniser(recogniser: Recogniser, find: FindFacesFn, margin: float) -> PhotoRecogniser:
    """Compile a recogniser for whole photos."""
    classes = probabilities(recogniser) if recogniser.logits is not None else None
    return PhotoRecogniser(recogniser, find, margin, embeddings(recogniser), classes)


def recognise_faces(recogniser: PhotoRecogniser, image: ImageArray, faces: Sequence[Face]) -> list[RecognisedFace]:
    """Crop and recognise these faces of a photo uint8 (h, w, 3)."""
    height, width, _ = recogniser.recogniser.image_shape
    frames = [crop_box(recogniser, image, face) for face in faces]
    crops = [crop(image, frame, (height, width))[np.newaxis] for frame in frames]
    classes = recogniser.probabilities or (lambda images: np.empty((len(images), 0), np.float32))
    return [
        RecognisedFace(face, frame, recogniser.embed(crop)[0], classes(crop)[0])
        for face, frame, crop in zip(faces, frames, crops, strict=True)
    ]


def crop_box(recogniser: PhotoRecogniser, image: ImageArray, face: Face) -> CropBox:
    """Return where a recogniser looks at a face: aligned if it was trained so, else the face's box with the margin.

    Landmarks of a face that was not found by the face finder are searched in the photo uint8 (h, w, 3).
    """
    network, landmarks = recogniser.recogniser, face.landmarks
    if network.template and landmarks is None:
        landmarks = locate_landmarks(image, face.box)
    return face_frame(face.box, landmarks, network.template, network.image_shape, recogniser.margin, face.angle)


def identify_photos(
    recogniser: PhotoRecogniser, photos: Sequence[PhotoFile], selector: FaceSelector, on_error: MessageCallback
) -> Iterator[tuple[PhotoFile, list[tuple[int, RecognisedFace]]]]:
    """Yield each photo that can be read and has selected faces, with these faces and their numbers."""
    for photo, image in read_photos(photos, "identify", on_error):
        if selected := select_faces(recogniser.find, photo, image, selector, on_error):
            numbers, faces = zip(*selected, strict=True)
            yield photo, list(zip(numbers, recognise_faces(recogniser, image, faces), strict=True))


def mean_embedding(
    recogniser: PhotoRecogniser, photos: Path, on_error: MessageCallback, max_photos: int | None = None
) -> Floats | None:
    """Return the mean embedding (d,), of length 1, of the largest face in each photo; None if no face is found.

    ``photos`` is a photo or a folder of photos of one person, of which ``max_photos`` readable ones count.

    Raises:
        UserError: The path does not exist, or is a folder without files.
    """
    total = None
    for _, image in islice(read_photos(collect_photos([photos]), None, on_error), max_photos):
        for known in recognise_faces(recogniser, image, recogniser.find(image)[:1]):
            total = known.embedding if total is None else total + known.embedding
    return None if total is None else np.asarray(total / np.linalg.norm(total), np.float32)


def load_gallery(recogniser: PhotoRecogniser, folder: Path, on_error: MessageCallback) -> dict[str, Floats]:
    """Return the mean embedding of each person, from one sub-folder of photos per person, as in LFW's layout.

    The first ``MAX_GALLERY_PHOTOS`` photos count; people and files that are skipped are reported to ``on_error``.

    Raises:
        UserError: The folder does not exist, or has no person.
    """
    if not (exists(folder) and folder.is_dir()):
        raise UserError(f"--gallery {folder} is not a folder; use a folder with one sub-folder of photos per person")
    people: dict[str, Floats] = {}
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for person in tqdm(folders, desc="gallery", unit="person", disable=None):
        try:
            mean = mean_embedding(recogniser, person, on_error, MAX_GALLERY_PHOTOS)
        except UserError as error:
            on_error(f"{person} was skipped: {error}")
            continue
        if mean is None:
            on_error(f"{person} was skipped: no face found")
        else:
            people[person.name] = mean
    if not people:
        raise UserError(f"--gallery {folder} is empty; use one sub-folder of photos per person")
    return people


def resolve_person(
    recogniser: PhotoRecogniser,
    text: str,
    people: Mapping[str, Floats],
    classes: Sequence[str],
    option: str,
    on_error: MessageCallback,
) -> Floats:
    """Return the embedding (d,) of a person of the gallery, of a photo, or of a folder of photos of one person.

    ``classes`` are further names to suggest for an unknown one; ``option`` is named in messages.

    Raises:
        UserError: There is no such photo or name, or no face in a photo that can be read.
    """
    if text in people:
        return people[text]
    if not exists(text):
        suggestions = ", ".join(similar_names(text, [*people, *classes]))
        hint = f"; similar names: {suggestions}" if suggestions else ""
        raise UserError(f"{option} {text} is neither a photo nor a known name; choose another name or photo{hint}")
    embedding = mean_embedding(recogniser, Path(text), on_error)
    if embedding is None:
        raise UserError(f"{option} {text} shows no face; choose another photo")
    return embedding


def similar_names(name: str, names: Sequence[str]) -> list[str]:
    """Return names like this one, whatever their capitals, spaces and underscores."""
    by_plain_name = {label(other).casefold(): other for other in names}
    return [by_plain_name[match] for match in get_close_matches(label(name).casefold(), by_plain_name, MAX_SUGGESTIONS)]
