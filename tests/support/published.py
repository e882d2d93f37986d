"""Published networks without their files: catalogues and archives made here, weights drawn from names, pictures."""

import hashlib
import io
import tarfile
import zlib

import numpy as np
from ruamel.yaml import YAML

from visor.core.tf import tf
from visor.data.rendering.camera import expose
from visor.data.rendering.frames import draw_frames
from visor.data.rendering.identity import draw_identity
from visor.data.rendering.scene import light_field

LICENCE = b"Do what you like.\n"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def archive_of(entries, mode="w:gz"):
    """The bytes of a tar archive of {name: bytes}, or of {name: path that a symbolic link points to}."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def row(archive, files, file="net-1.2.tar.gz", package="net", client="pip", licence_doubt=None, folder="net-1.2/"):
    """A row of the catalogue for an archive (bytes) that holds {file name: bytes} in a folder."""
    return {
        "title": "a network",
        "role": "recogniser",
        "licence": "CC0 1.0",
        "licence_doubt": licence_doubt,
        "source": "https://example.org/net",
        "package": package,
        "version": "1.2",
        "client": client,
        "archive": {"file": file, "bytes": len(archive), "sha256": sha256(archive)},
        "licence_file": f"{folder}LICENSE",
        "members": [
            {"path": f"{folder}{name}", "bytes": len(content), "sha256": sha256(content)}
            for name, content in files.items()
        ],
    }


def write_catalogue(path, rows):
    with path.open("w") as file:
        YAML(typ="safe").dump(rows, file)


def drawn(name, *shape):
    """Numbers that only depend on a name; kernels (out, in, h, w) keep the size of the signal."""
    values = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)
    return values * np.float32((2 / np.prod(shape[1:])) ** 0.5) if len(shape) == 4 else values


def reference_pictures(references, side, share=1.0):
    """The synthetic pictures that the references were made with, uint8 (side, side, 3), if their digests agree.

    ``share`` is the part of the side that the drawn face takes, on grey.
    """
    images = {}
    for seed, size in ((0, 5), (1, 17)):
        noise = np.random.default_rng(seed).integers(0, 256, (side - 1 + size, side - 1 + size, 3))
        sums = np.lib.stride_tricks.sliding_window_view(noise, (size, size), (0, 1)).sum((-1, -2))
        images[f"noise{seed}"] = ((sums - sums.min()) * 255 // (sums.max() - sums.min())).astype(np.uint8)
    frames, part = draw_frames(np.random.default_rng([20260, 3, 1]), 1, 0.0), round(share * side)
    images["face"], start = np.full((side, side, 3), 127, np.uint8), (side - part) // 2
    # The references were made with light that was not rounded to 8 bits before the camera.
    light = light_field(draw_identity(np.random.default_rng([20260, 3])), frames, part, part)
    images["face"][start : start + part, start : start + part] = expose(light, frames)[0]
    for name, image in images.items():
        assert hashlib.sha256(image.tobytes()).hexdigest() == str(references[f"sha256_{name}"])
    return images


def check_pixel_gradients(value, image, step=2e-3):
    """The gradient of value, images (n, h, w, 3) → (n,), is the numerical one at the 20 pixels that matter most."""
    pixels = image[None] / np.float32(255)
    with tf.GradientTape() as tape:
        images = tf.constant(pixels)
        tape.watch(images)
        output = value(images)
    gradient = tape.gradient(output, images).numpy()[0]
    assert np.isfinite(gradient).all()
    assert gradient.any()
    places = np.unravel_index(np.argsort(-np.abs(gradient), axis=None)[:20], gradient.shape)
    both = np.repeat(pixels, 40, axis=0)
    both[(np.arange(20), *places)] += np.float32(step)
    both[(np.arange(20, 40), *places)] -= np.float32(step)
    values = np.concatenate([value(tf.constant(part)).numpy() for part in np.split(both, 4)]).astype(float)
    numerical = (values[:20] - values[20:]) / (2 * step)
    assert np.abs(numerical - gradient[places]).max() < 0.05 * np.abs(gradient).max()
