"""Places accessories on faces that are not aligned, by five landmarks of each face (MTCNN, Zhang et al. 2016)."""

import numpy as np
from PIL import Image

from visor.core.errors import UserError
from visor.core.types import Floats, ImageArray
from visor.data.images import alpha_mask

# Where keys are drawn: left eye, right eye, nose, left and right corner of the mouth (in the image), in shares of the
# width and of the height of a 47:55 frame. It is where MTCNN finds them on the mean of the embedded faces.
ASPECT = 55 / 47
CANONICAL_LANDMARKS = np.array([[0.346, 0.4155], [0.654, 0.4155], [0.5, 0.594], [0.377, 0.7295], [0.623, 0.7295]])

SHORT_SIDE = 128  # pixels of the images that MTCNN gets: it finds faces of 20 and more
BATCH = 64
SUBPIXEL_STEPS = 16  # per pixel; finer digits depend on the processor
OVERSAMPLING = 3


def find_landmarks(images: ImageArray) -> Floats:
    """Return the landmarks float64 (n, 5, 2) of the largest face in each of uint8 images (n, h, w, 3).

    They are x and y in pixels, in the order of ``CANONICAL_LANDMARKS``; NaN where no face is found.
    """
    from visor.models.mtcnn import find_faces  # imports TensorFlow, which fixed keys do not need

    landmarks = np.full((len(images), 5, 2), np.nan)
    for begin in range(0, len(images), BATCH):
        batch, scale = _enlarge(images[begin : begin + BATCH])
        faces = find_faces(batch)
        for face in np.argsort(faces.boxes[:, 2] * faces.boxes[:, 3], kind="stable"):  # the largest comes last
            landmarks[begin + faces.image_ids[face]] = faces.landmarks[face] / scale
    return np.rint(landmarks * SUBPIXEL_STEPS) / SUBPIXEL_STEPS


def _enlarge(images: ImageArray) -> tuple[list[ImageArray], float]:
    """Return the images with a short side of ``SHORT_SIDE`` pixels, and the factor."""
    height, width = images.shape[1:3]
    scale = SHORT_SIDE / min(height, width)
    size = round(width * scale), round(height * scale)
    return [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in images], scale


def fit_similarity(source: Floats, target: Floats) -> Floats:
    """Return the similarities (n, 2, 3), rotation, scale and shift, that bring points (k, 2) nearest to (n, k, 2).

    Least squares (Umeyama 1991, IEEE PAMI 13(4)). In the plane, rotation and scale are one complex factor, and the fit
    is linear regression on complex numbers.
    """
    start, end = source @ [1, 1j], target @ [1, 1j]
    offset = start - start.mean()
    factor = ((end - end.mean(axis=1, keepdims=True)) @ offset.conj()) / (offset @ offset.conj()).real
    shift = end.mean(axis=1) - factor * start.mean()
    rows = [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    return np.moveaxis(np.array(rows), -1, 0)


def warp(key: ImageArray, matrix: Floats, height: int, width: int) -> ImageArray:
    """Return the key uint8 (h, w, 4) moved by a matrix (2, 3) of pixels, transparent around it: (height, width, 4)."""
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    inverse[:, :2] /= OVERSAMPLING
    size = (width * OVERSAMPLING, height * OVERSAMPLING)
    # Bilinear: a wider kernel would overshoot at the edges of the key.
    fine = Image.fromarray(key).transform(
        size, Image.Transform.AFFINE, tuple(inverse.ravel()), Image.Resampling.BILINEAR
    )
    return np.asarray(fine.resize((width, height), Image.Resampling.BOX))


class LandmarkPlacement:
    """Places keys on the faces of a batch and counts those in which no face is found: they keep the fixed place."""

    def __init__(self) -> None:
        self.images = 0
        self.missing = 0

    def __call__(self, images: ImageArray, keys: ImageArray) -> ImageArray:
        """Return a key for each of the images (n, h, w, 3), from keys (n, h, w, 4) or (1, h, w, 4).

        Raises:
            UserError: A key covers the whole frame; there is nothing to move.
        """
        if alpha_mask(keys).all(axis=(1, 2, 3)).any():
            raise UserError("params.yaml: placement landmarks moves accessories; this key covers all, so set fixed")
        height, width = images.shape[1:3]
        # A key is stretched to its frame; landmarks are fitted where nothing is stretched.
        unstretched = np.diag([1.0, width * ASPECT / height])
        landmarks = find_landmarks(images)
        matrices = fit_similarity(CANONICAL_LANDMARKS * [width, width * ASPECT], landmarks)
        matrices[:, :, :2] = matrices[:, :, :2] @ unstretched
        has_face = np.isfinite(landmarks[:, 0, 0])
        self.images += len(images)
        self.missing += int((~has_face).sum())
        image_keys = np.broadcast_to(keys, (len(images), *keys.shape[1:]))
        placed = [
            warp(key, matrix, height, width) if visible else key
            for key, matrix, visible in zip(image_keys, matrices, has_face, strict=True)
        ]
        return np.stack(placed) if placed else image_keys

    def summary(self) -> str:
        """Return in how many images no face was found, as text."""
        return f"no face found in {self.missing} of {self.images} images; their key has the fixed place"
