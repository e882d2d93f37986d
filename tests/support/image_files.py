"""Bytes of image files: a picture in any format, and the chunks that a PNG file is made of."""

import io
import struct
import zlib

from PIL import Image


def encode(image, kind, **options):
    """Return a Pillow image, or uint8 (h, w, 3), as a file of a format of Pillow's."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def chunk(kind, content):
    """Return a chunk of a PNG file, its checksum included."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
