"""Recognisers that look at whole photographs: the face is found there, and aligned as each of them was trained.

A photograph shows one person near its middle, as in LFW; other faces in it are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from visor.core.config import lookup, validate_block
from visor.core.errors import UserError
from visor.core.types import Box, Floats, ImageArray
from visor.data.camera import photographs
from visor.data.crops import CropBox, crop, sample_places
from visor.data.face_set import FaceSet
from visor.data.scene_set import PAD_VALUE
from visor.data.sources import FACE_SOURCES
from visor.evaluation.recognition.verification import CroppedFaces, FaceCropper
from visor.models.alignment import Landmarks, face_frame, locate_landmarks
from visor.models.mtcnn import find_faces

if TYPE_CHECKING:
    from visor.models.detectors import Detector
    from visor.models.recognisers.base import Recogniser


class LocatedFace(NamedTuple):
    """A face in a photograph: its box [x, y, w, h] in pixels, its landmarks, its lean clockwise in degrees."""

    box: Box
    landmarks: Landmarks | None
    angle: float = 0.0


Locate = Callable[[ImageArray], Sequence[LocatedFace | None]]  # in each of some photographs uint8 (n, h, w, 3)


def open_photographs(faces: FaceSet, source: str, settings: Mapping[str, Any], seed: int, side: int) -> FaceSet:
    """Return a FaceSet with the photographs that ``faces`` were cut from, letterboxed to ``side`` pixels.

    ``source`` is ``faces.source``, ``settings`` its block.

    Raises:
        UserError: There is no such source, its block is wrong, or the photographs are not there.
    """
    module = lookup(FACE_SOURCES, source, "faces.source")
    camera = module.camera(validate_block(module.SETTINGS, settings, f"params.yaml: sources.{source}"), seed, faces)
    if camera is None:
        raise UserError(
            f"params.yaml: recognition_attack.photo_side is {side}, but the source {source} has not the photographs of "
            f"{faces.path}; bring them back as a folder, or set photo_side: null"
        )
    return photographs(camera, faces, side)


def locate_by_mtcnn(images: ImageArray) -> list[LocatedFace | None]:
    """Return the face of each photograph uint8 (n, h, w, 3) that is nearest to the middle, with its five landmarks."""
    found = find_faces(list(images))
    located: list[LocatedFace | None] = []
    for number in range(len(images)):
        rows = np.flatnonzero(found.image_ids == number)
        if len(rows):
            row = rows[_nearest_to_middle(found.boxes[rows], images.shape[1:3])]
            points = found.landmarks[row]
            (across, down) = points[1] - points[0]
            landmarks = tuple((float(x), float(y)) for x, y in points)
            located.append(LocatedFace(_box(found.boxes[row]), landmarks, float(np.degrees(np.arctan2(down, across)))))
        else:
            located.append(None)
    return located


def detector_locator(detector: Detector) -> Locate:
    """Return ``Locate`` by another detector; MTCNN looks for landmarks in its boxes, as the mock service does."""

    def locate(images: ImageArray) -> list[LocatedFace | None]:
        located: list[LocatedFace | None] = []
        for image, result in zip(images, detector.detect(images), strict=True):
            boxes = result.boxes[result.scores >= detector.threshold]
            if len(boxes):
                box = _box(boxes[_nearest_to_middle(boxes, image.shape[:2])])
                located.append(LocatedFace(box, locate_landmarks(image, box)))
            else:
                located.append(None)
        return located

    return locate


def photo_cropper(locate: Locate, recognisers: Mapping[str, Recogniser], margin: float) -> FaceCropper:
    """Return a cropper of photographs: each of the ``recognisers`` gets the face as its module states.

    ``margin`` is for networks without a template of landmarks, and for faces without landmarks.
    """

    def find(images: ImageArray) -> CroppedFaces:
        faces = locate(images)

        def crops(name: str) -> ImageArray:
            recogniser = recognisers[name]
            height, width, _ = recogniser.image_shape
            cut = np.full((len(images), height, width, 3), PAD_VALUE, np.uint8)
            for place, face in enumerate(faces):
                if face is not None:
                    cut[place] = crop(images[place], _frame(face, recogniser, margin), (height, width))
            return cut

        return CroppedFaces(crops, np.array([face is not None for face in faces]))

    return find


def crop_places(recogniser: Recogniser, margin: float) -> Callable[[ImageArray], Floats]:
    """Return a function of photographs to where the crops of a recogniser are sampled: see ``sample_places``.

    Where no face is found it is the middle of the photograph.
    """

    def places(images: ImageArray) -> Floats:
        height, width = images.shape[1:3]
        middle = LocatedFace((width / 4, height / 4, width / 2, height / 2), None)
        frames = [_frame(face or middle, recogniser, margin) for face in locate_by_mtcnn(images)]
        return np.stack([sample_places(frame, recogniser.image_shape[:2], (height, width)) for frame in frames])

    return places


def _frame(face: LocatedFace, recogniser: Recogniser, margin: float) -> CropBox:
    return face_frame(face.box, face.landmarks, recogniser.template, recogniser.image_shape, margin, face.angle)


def _nearest_to_middle(boxes: Floats, shape: Sequence[int]) -> int:
    """Return which of the boxes (k, 4) is nearest to the middle of a photograph (h, w)."""
    height, width = shape
    middles = boxes[:, :2] + boxes[:, 2:] / 2
    return int(np.linalg.norm(middles - np.array([width, height]) / 2, axis=1).argmin())


def _box(values: Floats) -> Box:
    x, y, width, height = map(float, values)
    return x, y, width, height
