"""Who is in a photo: the whole way from its pixels to what a recogniser makes of each face."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from visor.core.errors import UserError
from visor.core.types import Floats, ImageArray, MessageCallback
from visor.data.crops import CropBox, crop, expand_box
from visor.models.recognisers.base import Recogniser, embeddings, probabilities
from visor.photos.faces import Face, FaceSelector, FindFacesFn, select_faces
from visor.photos.files import PhotoFile, collect_photos, exists, read_photos

EmbedFn = Callable[[ImageArray], Floats]

MOST_PHOTOS = 10  # of one person in a gallery: more change the mean little
NEAR = 3  # names that a message about an unknown one offers


class PhotoRecogniser(NamedTuple):
    """A recogniser with what comes before it: ``find``, and frames that are larger than a face by ``margin`` of its
    sides at each end. ``probabilities`` is None where the recogniser knows no classes.
    """

    recogniser: Recogniser
    find: FindFacesFn
    margin: float
    embed: EmbedFn
    probabilities: EmbedFn | None


class RecognisedFace(NamedTuple):
    """A face in a photo, where its crop lies, its embedding (d,) of length 1, and class probabilities (classes,).

    These are (0,) where the recogniser knows no classes.
    """

    face: Face
    frame: CropBox
    embedding: Floats
    probabilities: Floats


def photo_recogniser(recogniser: Recogniser, find: FindFacesFn, margin: float) -> PhotoRecogniser:
    """Return a recogniser that looks at whole photos."""
    classes = probabilities(recogniser) if recogniser.logits is not None else None
    return PhotoRecogniser(recogniser, find, margin, embeddings(recogniser), classes)


def recognise_faces(recogniser: PhotoRecogniser, image: ImageArray, faces: Sequence[Face]) -> list[RecognisedFace]:
    """Return what is made of these faces of a photo uint8 (h, w, 3)."""
    height, width, _ = recogniser.recogniser.image_shape
    frames = [expand_box(face.box, recogniser.margin, height / width, face.angle) for face in faces]
    crops = [crop(image, frame, (height, width))[np.newaxis] for frame in frames]
    classes = recogniser.probabilities or (lambda images: np.empty((len(images), 0), np.float32))
    return [
        RecognisedFace(face, frame, recogniser.embed(crop)[0], classes(crop)[0])
        for face, frame, crop in zip(faces, frames, crops, strict=True)
    ]


def identify_photos(
    recogniser: PhotoRecogniser, photos: Sequence[PhotoFile], choice: FaceSelector, refuse: MessageCallback
) -> Iterator[tuple[PhotoFile, list[tuple[int, RecognisedFace]]]]:
    """Yield each photo that can be read and has such faces, with the number of each and what is made of it."""
    for photo, image in read_photos(photos, "identify", refuse):
        if faces := select_faces(recogniser.find, photo, image, choice, refuse):
            numbers, own = zip(*faces, strict=True)
            yield photo, list(zip(numbers, recognise_faces(recogniser, image, own), strict=True))


def mean_embedding(
    recogniser: PhotoRecogniser, photos: Path, say: MessageCallback, most: int | None = None
) -> Floats | None:
    """Return the mean embedding (d,), of length 1, of the largest face in each photo that has one, None of none.

    ``say`` is told of files that cannot be read; of the others, ``most`` count.

    Raises:
        UserError: the path does not exist, or is a folder without files.
    """
    total = None
    for _, image in islice(read_photos(collect_photos([photos]), None, say), most):
        for known in recognise_faces(recogniser, image, recogniser.find(image)[:1]):
            total = known.embedding if total is None else total + known.embedding
    return None if total is None else np.asarray(total / np.linalg.norm(total), np.float32)


def load_gallery(recogniser: PhotoRecogniser, folder: Path, say: MessageCallback) -> dict[str, Floats]:
    """Return people by their names: those of the folders, as in LFW's layout NAME/NAME_0001.jpg.

    A person is the mean of ``MOST_PHOTOS`` photos; ``say`` is told of those who are left out, and of broken photos.

    Raises:
        UserError: the folder does not exist, or has nobody in it.
    """
    if not (exists(folder) and folder.is_dir()):
        raise UserError(f"--gallery {folder} is no folder; name one that has a folder of photos for each person")
    people: dict[str, Floats] = {}
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for person in tqdm(folders, desc="gallery", unit="person", disable=None):
        try:
            mean = mean_embedding(recogniser, person, say, MOST_PHOTOS)
        except UserError as error:
            say(f"{person} is left out of the gallery: {error}")
            continue
        if mean is None:
            say(f"{person} is left out of the gallery: no face is found in its photos")
        else:
            people[person.name] = mean
    if not people:
        raise UserError(
            f"--gallery {folder} has nobody in it; name a folder that has a folder of photos for each person"
        )
    return people


def resolve_person(
    recogniser: PhotoRecogniser,
    words: str,
    people: Mapping[str, Floats],
    classes: Sequence[str],
    option: str,
    say: MessageCallback,
) -> Floats:
    """Return the embedding (d,) of a photo, of a folder of photos of one person, or of somebody in the gallery.

    ``classes`` are further names that the message about an unknown one offers; ``say`` is told of broken photos.

    Raises:
        UserError: there is no such photo or name, or no face in a photo that can be read.
    """
    if words in people:
        return people[words]
    if not exists(words):
        close = similar_names(words, [*people, *classes])
        known = f"; names like it: {', '.join(close)}" if close else ""
        raise UserError(
            f"{option} {words} is neither a photo nor a name that is known; choose another name or photo{known}"
        )
    found = mean_embedding(recogniser, Path(words), say)
    if found is None:
        raise UserError(f"{option} {words} shows no face; choose another photo")
    return found


def similar_names(name: str, names: Sequence[str]) -> list[str]:
    """Return names like this one, whatever their capitals, spaces and underscores."""
    plain = {_plain(other): other for other in names}
    return [plain[other] for other in get_close_matches(_plain(name), plain, NEAR)]


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()
