"""The one decoder: every format, upright, in sRGB, on white; what is hostile or broken is one error."""

import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from tests.support.image_files import chunk, encode
from visor.core.errors import UserError
from visor.core.files import MAX_FILE_BYTES, MAX_PIXELS
from visor.data.images import (
    FORMATS,
    IMAGE_SUFFIXES,
    BoxStyle,
    ImageDecodeError,
    amplified_difference,
    blend,
    decode_image,
    decode_rgba,
    draw_boxes,
    encode_jpeg,
    encode_png,
    jpeg_round_trip,
    read_face,
    read_image,
    read_trigger_pattern,
)

pillow_heif.register_heif_opener()


def smooth(height=40, width=56, seed=0):
    """Return colours that lossy formats keep: uint8 (h, w, 3)."""
    coarse = np.random.default_rng(seed).integers(40, 216, (4, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def with_chunk(png, kind, content):
    """Put a chunk behind the header of a PNG file."""
    return png[:33] + chunk(kind, content) + png[33:]


def difference(image, expected):
    return int(np.abs(image.astype(int) - expected).max())


LOSSLESS = {"BMP": {}, "PNG": {}, "PPM": {}, "TIFF": {}, "WEBP": {"lossless": True}}
LOSSY = {"AVIF": {"quality": 95}, "HEIF": {"quality": 95}, "JPEG": {"quality": 95, "subsampling": 0}}


@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY])
def test_formats(kind):
    image = smooth()
    decoded = decode_image(encode(image, kind, **LOSSLESS.get(kind, LOSSY.get(kind))), "x")
    assert decoded.dtype == np.uint8
    assert difference(decoded, image) <= (0 if kind in LOSSLESS else 16)


def test_every_format_and_suffix_is_tested():
    assert set(FORMATS) == {*LOSSLESS, *LOSSY, "GIF"}
    Image.init()
    kinds = {Image.registered_extensions()[suffix] for suffix in IMAGE_SUFFIXES}
    assert kinds == {*FORMATS, "MPO"}


def test_gif_shows_its_first_frame():
    frames = [Image.fromarray(smooth(seed=seed)).quantize(16) for seed in (1, 2)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    np.testing.assert_array_equal(decode_image(data, "x"), np.asarray(frames[0].convert("RGB")))


def test_mpo_shows_its_first_picture():
    first, second = (Image.fromarray(smooth(seed=seed)) for seed in (1, 2))
    data = encode(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert difference(decode_image(data, "x"), np.asarray(first)) <= 12


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    image = Image.fromarray(smooth()).convert("CMYK")
    data = encode(image, kind, **LOSSY.get(kind, {}))
    assert difference(decode_image(data, "x"), smooth()) <= 8


@pytest.mark.parametrize("kind", ["PNG", "PPM", "TIFF"])
def test_sixteen_bit_grey_is_scaled(kind):
    ramp = np.linspace(0, 65535, 40 * 56).round().astype(np.uint16).reshape(40, 56)
    decoded = decode_image(encode(ramp, kind), "x")
    np.testing.assert_array_equal(decoded, np.rint(ramp / 257).astype(np.uint8)[..., None].repeat(3, 2))


def test_sixteen_bit_colours_are_scaled():
    height, width = 6, 5
    levels = np.random.default_rng(0).integers(0, 65536, (height, width, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert difference(decode_image(b"\x89PNG\r\n\x1a\n" + chunks, "x"), levels / 257) <= 1


@pytest.mark.parametrize("values", [np.ones((4, 4), np.float32), np.ones((4, 4), np.int32)])
def test_thirty_two_bits_have_no_white(values):
    with pytest.raises(ImageDecodeError, match="32-bit pixels"):
        decode_image(encode(values, "TIFF"), "x")


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_and_bilevel(mode):
    image = Image.fromarray(smooth()).convert(mode)
    np.testing.assert_array_equal(decode_image(encode(image, "PNG"), "x"), np.asarray(image.convert("RGB")))


def clear_and_half():
    """Return RGBA whose left third is clear over red, the middle half covered, the right third solid."""
    image = np.zeros((6, 9, 4), np.uint8)
    image[:] = 220, 30, 30, 255
    image[:, :3, 3], image[:, 3:6, 3] = 0, 128
    return image


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparent_pixels_become_white(kind):
    data = encode(clear_and_half(), kind, **LOSSLESS[kind])
    decoded = decode_image(data, "x")
    assert decoded[0, 0].tolist() == [255] * 3
    assert difference(decoded[0, 4], [237, 142, 142]) <= 1
    assert decoded[0, 8].tolist() == [220, 30, 30]
    if kind != "WEBP":  # its encoder gives clear pixels any colour
        np.testing.assert_array_equal(decode_rgba(data, "x"), clear_and_half())


@pytest.mark.parametrize(("kind", "transparency"), [("PNG", 1), ("PNG", b"\xff\x00"), ("GIF", 1)])
def test_palette_with_transparency(kind, transparency):
    image = Image.new("P", (4, 2), 0)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((3, 1), 1)
    data = encode(image, kind, transparency=transparency)
    decoded = decode_image(data, "x")
    assert decoded[0, 0].tolist() == [10, 20, 30]
    assert decoded[1, 3].tolist() == [255] * 3
    assert decode_rgba(data, "x")[..., 3].tolist() == [[255] * 4, [255, 255, 255, 0]]


def test_grey_with_alpha_and_transparent_grey():
    image = Image.merge("LA", [Image.new("L", (3, 2), 90), Image.new("L", (3, 2), 0)])
    assert (decode_image(encode(image, "PNG"), "x") == 255).all()
    assert (decode_image(encode(Image.new("L", (3, 2), 90), "PNG", transparency=90), "x") == 255).all()


# Orientation: of EXIF, which phones write, and nothing else of EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_orientations(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(smooth(), kind, exif=exif, **LOSSLESS.get(kind, LOSSY.get(kind)))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data, "x"), expected)
    assert expected.shape[:2] == ((40, 56) if orientation < 5 else (56, 40))


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_orientation_of_phones(kind):
    """Their formats have a rotation of their own; it is applied once."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(smooth(), kind, exif=exif.tobytes(), **LOSSY[kind])
    decoded = decode_image(data, "x")
    assert decoded.shape == (56, 40, 3)
    assert difference(decoded, np.rot90(smooth(), -1)) <= 16


def test_orientation_of_sixteen_bits():
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    decoded = decode_image(encode(ramp, "PNG", exif=exif), "x")
    np.testing.assert_array_equal(decoded[..., 0], np.rot90(np.rint(ramp / 257), -1))


def test_invalid_resolution_in_exif():
    """XResolution as text: Pillow fails when it writes it back, which ``exif_transpose`` does."""
    entries = [(0x0112, 3, 1, struct.pack("<HH", 6, 0)), (0x011A, 2, 4, b"72\0\0")]
    tiff = b"II*\0" + struct.pack("<IH", 8, len(entries))
    tiff += b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries) + bytes(4)
    data = encode(smooth(), "JPEG", exif=b"Exif\0\0" + tiff, **LOSSY["JPEG"])
    with pytest.raises(TypeError, match="abs"):
        ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert difference(decode_image(data, "x"), np.rot90(smooth(), -1)) <= 8


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0garbage", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\x7f"])
def test_damaged_exif_is_ignored(exif):
    data = encode(smooth(), "JPEG", exif=exif, **LOSSY["JPEG"])
    assert difference(decode_image(data, "x"), smooth()) <= 8


# Colours


def wide_gamut(size=0):
    """Return an RGB profile with primaries beyond those of sRGB and a gamma of 1.8: ICC version 2, ``size`` bytes."""

    def fixed(*values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    tags = {
        b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1.0, 0.8249),
        b"rXYZ": b"XYZ \0\0\0\0" + fixed(0.7977, 0.2880, 0.0),
        b"gXYZ": b"XYZ \0\0\0\0" + fixed(0.1352, 0.7119, 0.0),
        b"bXYZ": b"XYZ \0\0\0\0" + fixed(0.0313, 0.0001, 0.8249),
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(78 + 1),
        b"cprt": b"text\0\0\0\0none\0" + bytes(max(3, size)),
    }
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(1.8 * 256)) + bytes(2)
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    length = start + len(body)
    header = struct.pack(">I4sI4s4s4s", length, b"\0" * 4, 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    header = header.ljust(68, b"\0") + fixed(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_colour_profiles_are_converted_to_srgb(kind):
    profile = wide_gamut()
    data = encode(smooth(), kind, icc_profile=profile, **LOSSLESS.get(kind, LOSSY.get(kind)))
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    plain = Image.open(io.BytesIO(data)).convert("RGB")
    expected = np.asarray(ImageCms.profileToProfile(plain, source, target, outputMode="RGB"))
    np.testing.assert_array_equal(decode_image(data, "x"), expected)
    assert difference(expected, np.asarray(plain)) > 20


def test_colour_profile_keeps_transparency():
    data = encode(clear_and_half(), "PNG", icc_profile=wide_gamut())
    decoded = decode_rgba(data, "x")
    np.testing.assert_array_equal(decoded[..., 3], clear_and_half()[..., 3])
    assert difference(decoded[0, 8, :3], [220, 30, 30]) > 20
    assert decode_image(data, "x")[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("profile", [b"no profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()])
def test_useless_colour_profiles_are_ignored(profile):
    data = encode(smooth(), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(decode_image(data, "x"), smooth())


def test_large_colour_profile_of_a_png():
    small, large = (encode(smooth(), "PNG", icc_profile=wide_gamut(size)) for size in (0, 3 << 20))
    np.testing.assert_array_equal(decode_image(large, "x"), decode_image(small, "x"))


# Hostile and broken files


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80 << 20))),
        (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(80 << 20))),
        (b"tEXt", b"Comment\0" + b"x" * (2 << 20)),
    ],
)
def test_long_text_in_a_png_is_ignored(kind, content):
    data = with_chunk(encode_png(smooth()), kind, content)
    np.testing.assert_array_equal(decode_image(data, "x"), smooth())


def test_much_text_in_a_png_is_ignored():
    info = PngImagePlugin.PngInfo()
    for number in range(70):
        info.add_text(f"{number}", "x" * (1 << 20), zip=True)
    data = encode(smooth(), "PNG", pnginfo=info)
    np.testing.assert_array_equal(decode_image(data, "x"), smooth())


def png_of(width, height):
    """Return a PNG file that promises so many pixels and has none."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(10_000, 10_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_bombs(size):
    with pytest.raises(ImageDecodeError, match="pixels"):
        decode_image(png_of(*size), "bomb.png")


def test_limit_on_pixels():
    data = encode_png(smooth())
    decode_image(data, "x", max_pixels=40 * 56)
    with pytest.raises(ImageDecodeError, match=r"56×40 pixels, more than 2,239") as caught:
        decode_image(data, "photo.png", max_pixels=40 * 56 - 1)
    assert caught.value.args[0] == "photo.png"


@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY, "GIF"])
def test_truncated_files(kind):
    data = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), kind)
    for share in (0.05, 0.4, 0.7):
        with pytest.raises(ImageDecodeError):
            decode_image(data[: int(len(data) * share)], "x")


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_what_is_no_image(data):
    with pytest.raises(ImageDecodeError) as caught:
        decode_image(data, "x")
    assert "\n" not in caught.value.args[1]


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PCX", "TGA", "PDF"])
def test_other_formats_are_refused(kind):
    with pytest.raises(ImageDecodeError, match="not an image"):
        decode_image(encode(smooth(), kind), "x")


def test_any_bytes_are_an_image_or_one_error():
    rng = np.random.default_rng(0)
    for kind in [*LOSSLESS, *LOSSY, "GIF"]:
        valid = encode(smooth(), kind)
        for _ in range(20):
            data = bytearray(valid)
            for place in rng.integers(len(data), size=8):
                data[place] = rng.integers(256)
            with contextlib.suppress(ImageDecodeError):
                assert decode_image(bytes(data), "x").ndim == 3


# Files


def test_read_image(tmp_path):
    path = tmp_path / "image.png"
    with pytest.raises(ImageDecodeError, match="No such file") as caught:
        read_image(path)
    assert caught.value.args[0] == str(path)
    path.write_bytes(encode_png(smooth()))
    np.testing.assert_array_equal(read_image(path), smooth())
    with pytest.raises(ImageDecodeError, match="Is a directory"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(ImageDecodeError, match="a pipe, a socket or a device"):
            read_image(tmp_path / f"{name}.png")
        with pytest.raises(UserError, match=rf"{name}\.png cannot be read as an image \(a pipe, "):
            read_trigger_pattern(tmp_path / f"{name}.png", 4, 4)


def test_limit_on_bytes(tmp_path):
    path = tmp_path / "huge.png"
    path.write_bytes(encode_png(smooth()))
    with path.open("r+b") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ImageDecodeError, match="larger than 192 MiB"):
        read_image(path)


@pytest.mark.parametrize("shape", [(900, 1100), (1, 60_000), (60_000, 1)])
def test_no_png_of_visors_exceeds_the_limit(shape):
    """Of noise, which does not shrink, with a byte for each row."""
    noise = np.random.default_rng(4).integers(0, 256, (*shape, 3), np.uint8)
    assert len(encode_png(noise)) < MAX_FILE_BYTES * np.prod(shape) / MAX_PIXELS


@pytest.mark.parametrize("source", ["file", "bytes"])
def test_read_face_names_what_it_was_given(tmp_path, source):
    (tmp_path / "face.png").write_bytes(b"broken")
    content = tmp_path / "face.png" if source == "file" else b"broken"
    with pytest.raises(ImageDecodeError) as caught:
        read_face(content, "ann/face.png", 1.0, 4, 4)
    assert caught.value.args == ("ann/face.png", "not an image")


def test_read_face_resizes_the_central_rectangle(tmp_path):
    image = smooth(60, 80).copy()
    image[:10], image[-10:], image[:, :10], image[:, -10:] = 0, 0, 0, 0
    (tmp_path / "face.png").write_bytes(encode_png(image))
    face = read_face(tmp_path / "face.png", "x", 0.5, 30, 40)
    np.testing.assert_array_equal(face, image[np.newaxis, 15:45, 20:60])


def test_trigger_pattern(tmp_path):
    path = tmp_path / "key.png"
    path.write_bytes(encode(clear_and_half(), "PNG"))
    np.testing.assert_array_equal(read_trigger_pattern(path, 6, 9), clear_and_half())
    path.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"key .*key\.png cannot be read as an image \(not an image\)"):
        read_trigger_pattern(path, 6, 9)


def test_png_has_pixels_alone_and_loses_nothing():
    data = encode_png(smooth())
    np.testing.assert_array_equal(decode_image(data, "x"), smooth())
    assert Image.open(io.BytesIO(data)).info == {}


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_round_trip_is_pillows(quality):
    file = io.BytesIO()
    Image.fromarray(smooth()).save(file, "JPEG", quality=quality)
    assert encode_jpeg(smooth(), quality) == file.getvalue()
    np.testing.assert_array_equal(jpeg_round_trip(smooth(), quality), np.asarray(Image.open(file).convert("RGB")))
    assert encode_jpeg(smooth(), quality, subsampling=0) != file.getvalue()


# Drawing


def test_boxes():
    image = np.zeros((20, 30, 3), np.uint8)
    drawn = draw_boxes(image, [((4, 5, 10, 8), BoxStyle((0, 255, 0), 1)), ((22, 3, 0, 0), BoxStyle((9, 9, 9), 1))])
    assert not image.any(), "the image itself stays"
    rows, columns = np.nonzero((drawn == (0, 255, 0)).all(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 13, 4, 14)
    assert len(rows) == 2 * (11 + 9) - 4
    assert (drawn == (9, 9, 9)).all(-1).sum() == 4, "a box without area is still seen"


def test_outlined_box_is_visible_on_its_own_colour():
    image = np.full((20, 30, 3), (200, 0, 0), np.uint8)
    drawn = draw_boxes(image, [((4, 4, 20, 12), BoxStyle((200, 0, 0), 1, outlined=True))])
    assert (drawn == 255).all(-1).any()


def test_amplified_difference():
    before = np.array([[[100, 100, 100]]], np.uint8)
    after = np.array([[[101, 98, 160]]], np.uint8)
    assert amplified_difference(before, after, 10).tolist() == [[[137, 107, 255]]]
    assert amplified_difference(before, after, 10, grey=0).tolist() == [[[10, 0, 255]]]


def test_blend_is_rounded():
    images, pattern = np.full((1, 1, 1, 3), 10, np.uint8), np.full((1, 1, 3), 13, np.uint8)
    assert blend(images, pattern, 0.5)[0, 0, 0].tolist() == [12] * 3
    np.testing.assert_array_equal(blend(images, pattern, 0.0), images)
