"""Who is in a photo: the whole way from its pixels to what a recogniser makes of each face."""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from visor.crops import Frame, cut, enlarge
from visor.errors import UserError
from visor.faces import Images
from visor.protection.face_choice import Choice, Say, chosen_faces
from visor.protection.face_finding import Face, Find
from visor.protection.photos import Photo, exists, gather, read_photos
from visor.recognisers.recogniser import Recogniser, embeddings, probabilities

Floats = NDArray[np.float32]
View = Callable[[Images], Floats]

MOST_PHOTOS = 10  # of one person in a gallery: more change the mean little
NEAR = 3  # names that a message about an unknown one offers


class Onlooker(NamedTuple):
    """A recogniser with what comes before it: ``find``, and frames that are larger than a face by ``margin`` of its
    sides at each end. ``probabilities`` is None where the recogniser knows no classes.
    """

    recogniser: Recogniser
    find: Find
    margin: float
    embed: View
    probabilities: View | None


class Known(NamedTuple):
    """A face in a photo, where its crop lies, its embedding (d,) of length 1, and class probabilities (classes,).

    These are (0,) where the recogniser knows no classes.
    """

    face: Face
    frame: Frame
    embedding: Floats
    probabilities: Floats


def onlooker(recogniser: Recogniser, find: Find, margin: float) -> Onlooker:
    """Return a recogniser that looks at whole photos."""
    classes = probabilities(recogniser) if recogniser.logits is not None else None
    return Onlooker(recogniser, find, margin, embeddings(recogniser), classes)


def recognise(looker: Onlooker, image: Images, faces: Sequence[Face]) -> list[Known]:
    """Return what is made of these faces of a photo uint8 (h, w, 3)."""
    height, width, _ = looker.recogniser.image_shape
    frames = [enlarge(face.box, looker.margin, height / width, face.angle) for face in faces]
    crops = [cut(image, frame, (height, width))[np.newaxis] for frame in frames]
    classes = looker.probabilities or (lambda images: np.empty((len(images), 0), np.float32))
    return [
        Known(face, frame, looker.embed(crop)[0], classes(crop)[0])
        for face, frame, crop in zip(faces, frames, crops, strict=True)
    ]


def look(
    looker: Onlooker, photos: Sequence[Photo], choice: Choice, refuse: Say
) -> Iterator[tuple[Photo, list[tuple[int, Known]]]]:
    """Yield each photo that can be read and has such faces, with the number of each and what is made of it."""
    for photo, image in read_photos(photos, "identify", refuse):
        if faces := chosen_faces(looker.find, photo, image, choice, refuse):
            numbers, own = zip(*faces, strict=True)
            yield photo, list(zip(numbers, recognise(looker, image, own), strict=True))


def meet(looker: Onlooker, photos: Path, say: Say, most: int | None = None) -> Floats | None:
    """Return the mean embedding (d,), of length 1, of the largest face in each photo that has one, None of none.

    ``say`` is told of files that cannot be read; of the others, ``most`` count.

    Raises:
        UserError: the path does not exist, or is a folder without files.
    """
    total = None
    for _, image in islice(read_photos(gather([photos]), None, say), most):
        for known in recognise(looker, image, looker.find(image)[:1]):
            total = known.embedding if total is None else total + known.embedding
    return None if total is None else np.asarray(total / np.linalg.norm(total), np.float32)


def gallery(looker: Onlooker, folder: Path, say: Say) -> dict[str, Floats]:
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
            mean = meet(looker, person, say, MOST_PHOTOS)
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


def person(
    looker: Onlooker, words: str, people: Mapping[str, Floats], classes: Sequence[str], option: str, say: Say
) -> Floats:
    """Return the embedding (d,) of a photo, of a folder of photos of one person, or of somebody in the gallery.

    ``classes`` are further names that the message about an unknown one offers; ``say`` is told of broken photos.

    Raises:
        UserError: there is no such photo or name, or no face in a photo that can be read.
    """
    if words in people:
        return people[words]
    if not exists(words):
        close = near(words, [*people, *classes])
        known = f"; names like it: {', '.join(close)}" if close else ""
        raise UserError(
            f"{option} {words} is neither a photo nor a name that is known; choose another name or photo{known}"
        )
    found = meet(looker, Path(words), say)
    if found is None:
        raise UserError(f"{option} {words} shows no face; choose another photo")
    return found


def near(name: str, names: Sequence[str]) -> list[str]:
    """Return names like this one, whatever their capitals, spaces and underscores."""
    plain = {_plain(other): other for other in names}
    return [plain[other] for other in get_close_matches(_plain(name), plain, NEAR)]


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()
