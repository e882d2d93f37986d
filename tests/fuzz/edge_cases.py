"""Edge cases made by hand: families of files that a reader refuses, or may accept where ``MAY_BE_ACCEPTED`` says so.

Those that are one line of text are in ``corpus/``, with Python's escapes: ``9*x`` is x nine times, and ``~`` begins
what is odd and may be accepted.
"""

import gzip
import io
import json
import os
import pickle
import re
import socket
import struct
import tarfile
import zipfile
import zlib
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from tests.fuzz import readers
from tests.fuzz.readers import CHAIN, archive, config_json, hdf5_file, keras_2, tar
from tests.support.hostile import loop_heap
from tests.support.image_files import chunk, encode
from tests.support.tensor_files import TFLITE_CODES, dlib_tensor, safetensors_file, tflite_file

CORPUS = Path(__file__).with_name("corpus")
PLACES = {  # what is no regular file
    "missing": lambda path: None,
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "loop of links": lambda path: path.symlink_to(path),
    "broken link": lambda path: path.symlink_to("nowhere"),
    "device without end": lambda path: path.symlink_to("/dev/zero"),
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)),
    "sparse terabyte": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 40),
}
CONTENTS = {  # another format, or none
    **{f"nothing but {byte}": byte * (1 << 20) for byte in (b"\0", b"\xff", b"a", b"\x1b", b"\n")},
    **{
        f"signature {start}": start
        for start in (b"", b"\x89", b"\x89HDF\r\n\x1a\n", b"PK\3\4", b"\x93NUMPY\1\0", b"a: \xc3")
    },
    "UTF-16": "a: 1".encode("utf-16"),
    "HTML": b"<!doctype html><html><body>404: not found</body></html>",
    "pickle": pickle.dumps({"a": [1, 2]}),
    "gzip": gzip.compress(bytes(1 << 20)),
    "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "empty zip": b"PK\5\6" + bytes(18),
    "empty HDF5": hdf5_file(lambda root: None),
}


def corpus(name):
    """Return the lines of a file in ``corpus/`` as they are written there → what they stand for."""
    cases = {}
    for line in (CORPUS / f"{name}.txt").read_text().split("\n")[:-1]:
        times, _, text = (line.lstrip("~") if re.match(r"~?\d+\*", line) else f"1*{line.lstrip('~')}").partition("*")
        content = text.encode("latin-1", "backslashreplace").decode("unicode_escape") * int(times)
        cases[line] = content.encode("utf-8", "surrogatepass")
    return cases


def png(width, height, bits=8, kind=2, *chunks, rows=b"\0" * 14):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    body = b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def tiff(*entries):
    """A TIFF file of entries (tag, type, count, value), whose next folder is this one."""
    fields = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + struct.pack("<I", 8)


def photo_edge_cases():
    exif, zeros = b"Exif\0\0" + tiff((0x0112, 3, 0xFFFFFFFF, 8), (0x8769, 4, 1, 8)), zlib.compress(bytes(64 << 20))
    jpeg, bmp = readers.photos()["JPEG"].content, "<IIIIiiHH"
    chunks = {
        "profile that unpacks": [(b"iCCP", b"a\0\0" + zeros)],
        "text that unpacks": [(b"zTXt", b"a\0\0" + zeros)],
        "2000 texts": [(b"tEXt", b"a\0" + b"b" * 999)] * 2000,
        "EXIF": [(b"eXIf", exif[6:])],
        "animation": [(b"acTL", struct.pack(">II", 1 << 31, 0))],
    }
    cases = {f"PNG, {name}": png(2, 2, 8, 2, *(chunk(*part) for part in parts)) for name, parts in chunks.items()}
    for size in ((1 << 31) - 1, 65_535, 50_001):
        cases |= {f"PNG {size}": png(size, size), f"PPM {size}": b"P6 %d %d 255\n" % (size, size)}
        cases[f"BMP {size}"] = b"BM" + struct.pack(bmp, 99, 0, 54, 40, size, -size, 1, 24) + bytes(24)
        cases[f"GIF {size}"] = b"GIF89a" + struct.pack("<HH", size & 0xFFFF, size & 0xFFFF) + b"\0\0\0"
    for header in ((0, 2), (2, 2, 3), (2, 2, 8, 5), (2, 2, 8, 3), (2, 2, 16, 6)):
        cases[f"PNG of {header}"] = png(*header)
    return cases | {
        "PNG whose rows go on": png(2, 2, rows=bytes(64 << 20)),
        "PNG without rows": png(2, 2, rows=b""),
        "TIFF in circles": tiff((256, 4, 1, 2), (257, 4, 1, 2)),
        "TIFF of many tags": b"II*\0" + struct.pack("<IH", 8, 65535),
        "TIFF of a long tag": tiff((256, 4, 1, 2), (257, 4, 1, 2), (273, 4, 0x3FFFFFFF, 8), (258, 3, 1, 8)),
        "TIFF of 64 bits": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1 << 60),
        "TIFF of floats": encode(readers.Image.fromarray(np.ones((3, 3), np.float32)), "TIFF"),
        "JPEG with EXIF": jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:],
        "JPEG of markers alone": b"\xff\xd8" + b"\xff\xe0\0\2" * 90_000,
        "JPEG 65500": re.sub(rb"(\xff\xc0...)....", rb"\1" + b"\xff\xdc" * 2, jpeg, count=1, flags=re.DOTALL),
        "half a JPEG": jpeg[: len(jpeg) // 2],
        "WebP that promises": b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0\x10\0\0\0" + b"\xff" * 6,
        "HEIF that promises": b"\0\0\0\x18ftypheic" + bytes(12) + b"\xff\xff\xff\xffmeta",
        "AVIF in itself": b"\0\0\0\x18ftypavif" + bytes(12) + b"\0\0\0\x08meta" * 999,
        "PPM of comments": b"P6\n" + b"#a\n" * 99_999,
        "PPM of digits": b"P6 " + b"9" * 5000 + b" 2 255\n",
        "PFM": b"PF 2 2 -1.0\n" + bytes(48),
    }


def virtual(root, name, like):
    layout = h5py.VirtualLayout(like.shape, like.dtype)
    layout[:] = h5py.VirtualSource("/etc/passwd", "a", like.shape)
    root.create_virtual_dataset(name, layout)


def create(shape=None, **options):
    """Return what creates a dataset like another; ``shape`` takes the place of its first axis."""
    return lambda root, name, like: root.create_dataset(
        name, like.shape if shape is None else (*shape, *like.shape[1:]), like.dtype, **options
    )


def put(value):
    return lambda root, name, like: root.__setitem__(name, value(like) if callable(value) else value)


DATASETS = {  # what stands in place of a dataset
    "missing": lambda root, name, like: None,
    "a group": lambda root, name, like: root.create_group(name),
    "the root": lambda root, name, like: root.__setitem__(name, root["/"]),
    "an external link": put(h5py.ExternalLink("/etc/passwd", "/")),
    "a link": put(h5py.SoftLink("/nowhere")),
    "another file": create(external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]),
    "virtual": virtual,
    "a type": put(np.dtype("f4")),
    "words": put([b"a"] * 3),
    "words of any length": put(["a", "b" * 9]),
    "pairs": put(lambda like: np.zeros(3, [("a", "f4"), ("b", "f4")])),
    "complex": put(lambda like: np.zeros(like.shape, complex)),
    "truth values": put(lambda like: np.zeros(like.shape, bool)),
    "null": put(h5py.Empty("f4")),
    "one number": put(7),
    "no rows": create((0,)),
    "one axis more": put(lambda like: like[None]),
    "32 axes": put(lambda like: np.zeros((1,) * 32, like.dtype)),
    "a promise": create((1 << 40,), chunks=True),
    "a packed promise": create((1 << 40,), compression="gzip"),
    "lzf": create((9,), compression="lzf"),
    "endless": put(lambda like: np.full(like.shape, np.inf)),
    "negative": put(lambda like: np.full(like.shape, -7, "i2" if like.dtype.kind == "u" else like.dtype)),
}
ATTRIBUTES = {
    "a number": 7,
    "NaN": np.nan,
    "null": h5py.Empty("f4"),
    "deep": "[" * 60_000,
    "words": np.array([b"a"] * 2000),
    "no letters": np.bytes_(b"\xff\xfe["),
    "escapes": "\x1b[2J\n" * 99,
    "null in JSON": "null",
    "numbers in JSON": "[1, 2]",
    "pairs": np.zeros(2, [("a", "f4"), ("b", "f4")]),
    "a reference": h5py.Reference(),
}


def edited(content, change):
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as root:
        change(root)
    return file.getvalue()


def replace(write, name, like, root):
    del root[name]
    write(root, name, like)


def hdf5_edge_cases(content):
    """Each dataset and each attribute of an HDF5 file replaced by each of the above."""
    found = {}
    with h5py.File(io.BytesIO(content)) as root:
        root.visititems(lambda name, item: found.update({name: item[()] if isinstance(item, h5py.Dataset) else None}))
        attributes = [(name, key) for name in ("/", *found) for key in root[name].attrs]
    cases = {
        f"{name} is {kind}": edited(content, partial(replace, write, name, like))
        for name, like in found.items()
        for kind, write in DATASETS.items()
        if like is not None
    }
    for name, key in attributes:
        cases[f"attribute {key} of {name} is missing"] = edited(
            content, lambda root, n=name, k=key: root[n].attrs.pop(k)
        )
        for kind, value in ATTRIBUTES.items():
            change = lambda root, n=name, k=key, v=value: root[n].attrs.__setitem__(k, v)  # noqa: E731
            cases[f"attribute {key} of {name} is {kind}"] = edited(content, change)
    if b"GCOL" in content:
        cases["heap without end"] = loop_heap(content)
    return cases | {f"cut at {end}": content[: len(content) * end // 9] for end in range(1, 9)}


VALUES = ("null", "-1", "1e400", ".nan", "[]", "{}", "true", "'x'", "9" * 400, "[[1]]", "{a: {b: 1}}", '"\\e[2J"')


def yaml_edge_cases(seeds):
    """The corpus alone and behind what is valid, and each key with each of ``VALUES``."""
    (valid,) = (seed.content for seed in seeds.values())
    cases = corpus("yaml")
    cases |= {f"{name}, at the end": valid + b"\n" + content for name, content in cases.items()}
    for key in re.findall(rb"^\w+:", valid, re.MULTILINE):
        pattern = re.compile(rb"^%s.*\n(?:[ #-].*\n|\n)*" % key, re.MULTILINE)
        for value in VALUES:
            line = key + f" {value}\n".encode()
            cases[f"{key.decode()} {value:.9}"] = pattern.sub(lambda _, line=line: line, valid)
    return cases


def tar_header(kind, size):
    """One header of a tar archive, whose size is any text."""
    front = b"Ann/Ann_0001.jpg".ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0") + b"0" * 12
    return readers.with_header_checksums((front + b" " * 8 + kind).ljust(257, b"\0") + b"ustar\x0000".ljust(255, b"\0"))


def tar_edge_cases():
    plain, members = readers.trees()["tar"].content, readers.members()
    sizes = (b"77777777777", b"-0000000001", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x80\0\0\0\x7f" + b"\xff" * 7)
    pax = {"GNU.sparse.size": "9" * 20, "GNU.sparse.map": "1,2," * 400, "size": "-5", "path": "../x"}
    cases = {f"{name:.30}": tar([*members, (content.decode(), b"")]) for name, content in corpus("names").items()}
    cases |= {f"cut at {end}": plain[: len(plain) * end // 9] for end in range(1, 9)}
    cases |= {
        f"{kind} of {size}": tar_header(kind, size) + bytes(2048)
        for kind in (b"0", b"x", b"g", b"L", b"S")
        for size in sizes
    }
    cases |= {f"pax {key}": tar(members[:1], pax_headers={key: value}) for key, value in pax.items()}
    cases |= {f"half a {mode}": readers.trees()[mode].content[:-40] for mode in ("gz", "bz2", "xz")}
    cases |= {f"{kind} in {kind}": tar_header(kind, b"0") * 2000 + plain for kind in (b"x", b"L")}
    return cases | {
        "sea of zeros": gzip.compress(plain[:4096]) + gzip.compress(bytes(1 << 20)) * 300,
        "zip": archive({"../Ann/Ann_1.jpg": b"a"}),
        "links": tar([("Ann/Ann_1.jpg", b"")], type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "devices": tar([("Ann/Ann_1.jpg", b"")], type=tarfile.CHRTYPE),
        "broken photos": tar([(f"Ann/Ann_{number}.jpg", b"no") for number in range(1500)]),
    }


def zip_edge_cases():
    """What no program puts into a ``.keras`` file."""
    valid = {"config.json": CHAIN.encode(), "model.weights.h5": hdf5_file(readers.keras_3_weights)}
    entry, whole = b"PK\1\2\x14\3\x14\0\0", archive(valid)
    cases = {
        "cut": whole[:-30],
        "locked": whole.replace(entry, entry[:-1] + b"\1"),
        "names": archive({f"a{n}": b"" for n in range(70_000)}),
    }
    for name, content in valid.items():
        others = {key: value for key, value in valid.items() if key != name}
        start = whole.rindex(name.encode()) - 22
        promise = whole[:start] + b"\xff\xff\xff\x7f" + whole[start + 4 :]
        cases |= {
            f"{name} missing": archive(others),
            f"{name} empty": archive(others | {name: b""}),
            f"{name} promises": promise,
        }
        cases[f"{name} of zeros"] = archive(others | {name: bytes(8 << 20)}, zipfile.ZIP_DEFLATED)
        for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            packed = bytearray(archive(others | {name: content * 9}, method))
            start = packed.index(name.encode()) + len(name) + 9
            packed[start : start + 21] = b"\xff" * 21
            cases[f"{name}, damaged in method {method}"] = bytes(packed)
    return cases


CHANGES = (None, -1, 0, True, 1 << 40, 10**400, 1e300, float("nan"), "x", [], {}, [[1]], {"class_name": "Lambda"})


def replacements(whole, where, part=None):
    """Yield a name and ``whole`` for each value in it replaced by each of ``CHANGES``."""
    part = whole if part is None else part
    for key in part if isinstance(part, dict) else range(len(part)):
        before = part[key]
        for value in CHANGES:
            part[key] = value
            yield f"{where}.{key} is {value!r:.20}", whole
        part[key] = before
        if isinstance(before, (dict, list)) and before:
            yield from replacements(whole, f"{where}.{key}", before)


def config_edge_cases():
    """Each value in the JSON of a network replaced by each of ``CHANGES``, and layers that are not allowed."""
    kinds = ("Lambda", "TFOpLambda", "TextVectorization", "os.system", "Dense" * 99, "\x1b[2J", "RNN", "Functional")
    cases = {f"layer of class {kind:.20}": config_json((kind, {})) for kind in kinds}
    cases |= {
        "wide": config_json(("Flatten", {}), ("Dense", {"units": 1 << 24})),
        "deep": "[" * 100_000,
        "null": "null",
    }
    cases["1001 layers"] = config_json(*[("ReLU", {})] * 1001)
    cases |= {name: json.dumps(model) for name, model in replacements(json.loads(CHAIN), "model")}
    return {name: keras_2(text) for name, text in cases.items()}


def graph_edge_cases():
    from tensorflow.core.framework import graph_pb2

    valid = readers.graphs()["graph"].content
    kinds = ("ReadFile", "WriteFile", "PyFunc", "ImmutableConst", "RestoreV2", "Nope", "", "\x1b[2J" * 99)

    def changed(change):
        graph = graph_pb2.GraphDef.FromString(valid)
        change(graph, lambda op: next(node for node in graph.node if node.op == op))
        return graph.SerializeToString()

    def huge(graph, of):
        for _ in range(4):
            of("Const").attr["value"].tensor.tensor_shape.dim.add().size = 1 << 20

    changes = {
        f"operation {kind:.20}": lambda graph, of, kind=kind: graph.node.add(name="evil", op=kind) for kind in kinds
    } | {
        "function that reads": lambda graph, of: graph.library.function.add().node_def.add(name="a", op="ReadFile"),
        "huge constant": huge,
        "negative shape": lambda graph, of: of("Const").attr["value"].tensor.tensor_shape.dim.add(size=-5),
        "circle": lambda graph, of: of("Sigmoid").input.__setitem__(0, of("Sigmoid").name),
        "two of a name": lambda graph, of: graph.node.append(of("Sigmoid")),
        "no such input": lambda graph, of: of("Sigmoid").input.__setitem__(0, "nowhere:7"),
        "one input more": lambda graph, of: of("Sigmoid").input.append("ToFloat"),
        "no type": lambda graph, of: of("Cast").attr.pop("DstT"),
        "device": lambda graph, of: setattr(of("Sigmoid"), "device", "/job:evil/gpu:99"),
        "future": lambda graph, of: setattr(graph.versions, "min_consumer", 1 << 30),
        "no stride": lambda graph, of: of("Conv2D").attr["strides"].list.i.__setitem__(1, 0),
        "long stride": lambda graph, of: of("Conv2D").attr["strides"].list.i.__setitem__(1, (1 << 63) - 1),
        "no boxes": lambda graph, of: setattr(graph.node[-1], "name", "x"),
        "empty name": lambda graph, of: setattr(of("Sigmoid"), "name", ""),
    }
    return {name: changed(change) for name, change in changes.items()} | {"deep": b"\x12\xff\xff\x7f" * 5000}


def array_edge_cases():
    headers = {name: text + b"\n" for name, text in corpus("npy").items()}
    arrays = {
        name: b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + bytes(48) for name, text in headers.items()
    }
    return arrays | {"many names": b"a\n" * 9_000_000}


def bundle_edge_cases():
    png, stanza = readers.photos()["PNG"].content, b"-> scrypt " + b"A" * 22 + b" %d\n" + b"A" * 43
    names = (
        "../a.png",
        "/a.png",
        "con.png",
        "a.exe",
        ".a.png",
        "a\n.png",
        "\x1b[2J.png",
        "x" * 300 + ".png",
        "",
        "a.png/",
    )
    cases = {f"name {name!r:.20}": archive({name: png}) for name in names}
    headers = {f"scrypt 2^{work}": [stanza % work] for work in (0, 30, 64, 99999)}
    headers |= {"many stanzas": [stanza % 1] * 20_000, "long stanza": [stanza % 1 + b"A" * (8 << 20)]}
    for name, lines in headers.items():
        cases[name] = b"\n".join([b"age-encryption.org/v1", *lines, b"--- " + b"A" * 43, bytes(99)])
    return cases | {"no PNG": archive({"a.png": b"GIF89a"}), "many": archive({f"{n}.png": b"" for n in range(999)})}


def header_file(header, data=bytes(96), length=None):
    """A file as safetensors, of any header: text, bytes or what JSON can say."""
    text = header if isinstance(header, (bytes, str)) else json.dumps(header)
    content = text.encode() if isinstance(text, str) else text
    return (len(content) if length is None else length).to_bytes(8, "little") + content + data


def entry(shape=(2, 3), offsets=(0, 24), kind="F32"):
    return {"dtype": kind, "shape": shape, "data_offsets": offsets}


def safetensors_edge_cases():
    whole, data = {"a": entry()}, bytes(24)
    lengths = (0, 1, 1 << 20, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
    cases = {f"header of {length} bytes": header_file(whole, data, length) for length in lengths}
    shapes = (
        *([-2, -3], [2, -3], [1 << 63], [1 << 31, 1 << 31, 1 << 31], [0, 1 << 63], [2.5, 3], ["2", 3], [True, 6]),
        *([[2, 3]], [10**400], [1] * 70, [1] * 60_000 + [6], None, 6, "23", {}),
    )
    offsets = (
        *((24, 0), (0, 1 << 63), (-24, 0), (1, 25), (0, 23), (0, 25), (0,), (0, 24, 24), (0.0, 24.0), None, ""),
        *(("0", "24"), (1 << 63, (1 << 63) + 24), (10**400, 10**400 + 24)),
    )
    kinds = ("F64", "BF16", "f32", "F8_E4M3", "O", "U8", "", None, 4, "F32 ")
    entries = {f"shape {shape!s:.20}": entry(shape) for shape in shapes}
    entries |= {f"offsets {place!s:.20}": entry(offsets=place) for place in offsets}
    entries |= {f"type {kind!s:.20}": entry(kind=kind) for kind in kinds}
    entries |= {f"{value!r:.9} alone": value for value in (None, [entry()], {}, "F32", 7)}
    entries["without offsets"] = {"dtype": "F32", "shape": [2, 3]}
    cases |= {name: header_file({"a": value}, data) for name, value in entries.items()}
    pairs = {
        "overlap": (entry(), entry(offsets=(12, 36))),
        "two in one place": (entry(), entry()),
        "gap": (entry(), entry(offsets=(28, 52))),
        "gap in front": (entry(offsets=(4, 28)), entry(offsets=(28, 52))),
        "one inside": (entry((4, 3), (0, 48)), entry(offsets=(24, 48))),
        "one too far": (entry(), entry((1 << 38,), (24, 24 + (1 << 40)))),
    }
    cases |= {name: header_file({"a": first, "b": second}, bytes(48)) for name, (first, second) in pairs.items()}
    one = json.dumps(entry())
    texts = {
        "the same name twice": f'{{"a": {one}, "a": {one}}}',
        "a key twice": f'{{"a": {one[:-1]}, "shape": [6]}}}}',
        "metadata twice": f'{{"__metadata__": {{}}, "__metadata__": {{}}, "a": {one}}}',
        "deep": "[" * 500_000,
        "deep objects": '{"a":' * 100_000,
        "deep metadata": '{"__metadata__": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "no object": "[]",
        "a number": "1" * 9000,
        "comments": f'{{"a": {one}}} // a',
        "two objects": "{}{}",
        "NaN": '{"a": NaN}',
        "UTF-16": json.dumps(whole).encode("utf-16"),
        "no letters": b'{"\xff\xfe": 1}',
        "escapes": json.dumps({"\x1b[2J\n" * 300: 7}),
        "lone surrogate": '{"\\ud800": 7}',
    }
    cases |= {name: header_file(text, data) for name, text in texts.items()}
    numbers = {"infinite": b"\0\0\x80\x7f", "not a number": b"\0\0\xc0\x7f", "minus infinite": b"\0\0\x80\xff"}
    cases |= {name: header_file(whole, bytes(20) + number) for name, number in numbers.items()}
    cases["half infinite"] = header_file({"a": entry((2,), (0, 4), "F16")}, b"\0\x7c\0\0")
    many = {f"t{number}": entry((0,), (0, 0)) for number in range(14_000)}
    return cases | {
        **{f"cut at {end}": header_file(whole, data)[:-end] for end in (1, 12, 24, 25, 60)},
        "bytes behind": header_file(whole, data + b"\0"),
        "~no tensor": header_file({}, b""),
        "~tensors without numbers": header_file(many, b""),
        "~numbers of training steps": header_file({"a": entry((3,), (0, 24), "I64")}, data),
        "~a scalar": header_file({"a": entry((), (0, 4))}, bytes(4)),
        "~name of escapes": header_file({"\x1b[2J": entry()}, data),
    }


def state_dict_edge_cases():
    """Each tensor of a network missing, of another shape, and of numbers that a division by a deviation cannot take."""
    content = next(iter(readers.state_dicts().values())).content
    length = 8 + int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8:length]), content[length:]
    places = {name: each["data_offsets"] for name, each in header.items() if name != "__metadata__"}
    valid = {
        name: np.frombuffer(data[slice(*place)], "<f4").reshape(header[name]["shape"]) for name, place in places.items()
    }
    cases = {}
    for name, values in valid.items():
        others = {key: other for key, other in valid.items() if key != name}
        changed = {
            "of another shape": values[None],
            "one number": np.float32(1).reshape(()),
            "without numbers": values[:0],
            "longer": np.concatenate([values, values]),
            "endless in a side": np.zeros((0, 1 << 39), "<f4"),
        }
        changed |= {"too large": values + np.float32(3e38)} if ".bn" in name or "downsample" in name else {}
        changed |= {"negative": -values} if name.endswith("running_var") else {}
        cases[f"{name} missing"] = safetensors_file(others)
        cases |= {f"{name} {kind}": safetensors_file(others | {name: other}) for kind, other in changed.items()}
    former = {"rpn.head.conv.weight": valid["rpn.head.conv.0.0.weight"]}
    more = {"\x1b[2J": np.ones(3, "<f4")}
    return cases | {
        "under two names": safetensors_file(valid | former),
        "a tensor more": safetensors_file(valid | more),
        "within a key": safetensors_file({f"model.{name}": values for name, values in valid.items()}),
        "~of float16": safetensors_file({name: values.astype("<f2") for name, values in valid.items()}),
    }


def tflite_edge_cases():
    """Changes to the tables of a model, and each word of the file replaced by each of some lengths."""
    content, constant = readers.READERS["tflite"].seeds()["model"].content, np.ones((64, 64), "<f4")

    def tensor(number, **values):
        return lambda model: vars(model.subgraphs[0].tensors[number]).update(values)

    def node(number, **values):
        return lambda model: vars(model.subgraphs[0].operators[number]).update(values)

    def part(name, value):
        return lambda model: setattr(model, name, value(getattr(model, name)))

    def share(model):
        for each in model.subgraphs[0].operators:
            each.inputs = [1] * 300

    sides = ([-4, -1, 2, 3], [-24], [2**31 - 1] * 9, [0, 24], [4, 1, 2], [1] * 90 + [24], [1] * 50_000 + [24], [])
    changes = {
        **{f"shape {shape!s:.30}": tensor(1, shape=shape) for shape in sides},
        **{f"type {kind}": tensor(1, type=kind) for kind in (1, 3, 9, 17, 127, -128)},
        **{f"buffer {number}": tensor(1, buffer=number) for number in (99, 2**31, 2**32 - 1)},
        **{f"inputs {inputs!s:.20}": node(0, inputs=inputs) for inputs in ([-1], [0, 99], [2**31 - 1])},
        **{f"code {number}": node(0, opcodeIndex=number) for number in (99, 2**32 - 1)},
        "no graph": part("subgraphs", lambda graphs: []),
        "nothing": part("subgraphs", lambda graphs: None),
        "two graphs": part("subgraphs", lambda graphs: graphs * 2),
        "no buffers": part("buffers", lambda buffers: []),
        "no codes": part("operatorCodes", lambda codes: []),
        "overlapping tensors": share,
    }
    cases = {name: tflite_file(readers.OPERATORS, change) for name, change in changes.items()}
    for name, value in {"infinite": np.inf, "not a number": np.nan}.items():
        cases[name] = tflite_file((("mul", [np.full(4, value, "<f4")]),))
    cases["large and shared"] = tflite_file((("mul", [constant]),) * 9, share)
    cases["custom operator"] = tflite_file(readers.OPERATORS, codes=TFLITE_CODES | {"mul": 32})
    for identifier in (b"TFL2", b"\0\0\0\0", b"tfl3"):
        cases[f"identifier {identifier}"] = content[:4] + identifier + content[8:]
    cases["begins nowhere"] = b"\xff\xff\xff\xff" + content[4:]
    cases["begins at once"] = bytes(4) + content[4:]
    cases["in itself"] = b"\4\0\0\0TFL3" + b"\4\0\0\0" * 300_000
    for place in range(0, len(content) - 3, 4):
        for value in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
            cases[f"~{value:x} at {place}"] = content[:place] + struct.pack("<I", value) + content[place + 4 :]
    return cases | {f"~cut at {end}": content[:end] for end in range(8, len(content), 24)}


def tfjs_edge_cases():
    """Each value in a manifest replaced by each of ``CHANGES``, which may be one that is as good."""
    manifest = readers.READERS["tfjs"].seeds()["manifest"].content
    groups, (first, second) = json.loads(manifest), json.loads(manifest)[0]["weights"]
    lists = {
        "no group": [],
        "two groups": groups * 2,
        "no tensors": [groups[0] | {"weights": []}],
        "one tensor twice": [groups[0] | {"weights": [first, first, second]}],
        "~the other way round": [groups[0] | {"weights": [second, first]}],
        "no file": [groups[0] | {"paths": []}],
        "a file many times": [groups[0] | {"paths": ["net.bin"] * 20_000}],
        "another file": [groups[0] | {"paths": ["../net.bin"]}],
        "deep": "[" * 100_000,
        "more than all": [groups[0] | {"weights": [first | {"shape": [1 << 62, 1 << 62]}, second]}],
    }
    cases = {name: (value if isinstance(value, str) else json.dumps(value)).encode() for name, value in lists.items()}
    replaced = {f"~{name}": json.dumps(value).encode() for name, value in replacements(groups, "manifest")}
    return cases | replaced | {f"cut at {end}": manifest[:end] for end in range(0, len(manifest), 40)}


def dlib_edge_cases():
    content = readers.dlib_file()
    first = content.index(b"\x01\x02")
    cases = {f"cut at {end}": content[: len(content) * end // 9] for end in range(1, 9)}
    cases |= {f"sizes of {size}": content.replace(b"\x01\x02", b"\x01\x02" + size) for size in (b"\x08", b"\xff" * 9)}
    values = first + len(dlib_tensor(112, 1, 1, 1, values=(np.ones(0),)))
    for name, number in {"infinite": b"\0\0\x80\x7f", "not a number": b"\0\0\xc0\x7f"}.items():
        cases[name] = content[:values] + number + content[values + 4 :]
    return cases | {"headers alone": content[first : first + 9] * 40_000, "~twice": content * 2}


FAMILIES = {
    **dict.fromkeys(("photo", "key"), photo_edge_cases),
    **{
        name: lambda name=name: hdf5_edge_cases(next(iter(readers.READERS[name].seeds().values())).content)
        for name in ("faces", "scenes", "csaw", "data", "autoencoder", "weights")
    },
    **dict.fromkeys(("lfw", "folder"), tar_edge_cases),
    **{
        name: lambda name=name: yaml_edge_cases(readers.READERS[name].seeds())
        for name in ("params", "service", "lock", "pin")
    },
    **dict.fromkeys(("metrics", "saved model"), lambda: corpus("json")),
    "wider face": lambda: corpus("annotations"),
    "bundle": bundle_edge_cases,
    "network": lambda: hdf5_edge_cases(keras_2()) | config_edge_cases() | zip_edge_cases(),
    "graph": graph_edge_cases,
    "class names": array_edge_cases,
    "safetensors": safetensors_edge_cases,
    "state dict": state_dict_edge_cases,
    "tflite": tflite_edge_cases,
    "tfjs": tfjs_edge_cases,
    "dlib": dlib_edge_cases,
}
IN_MEMORY = ("bundle", "tfjs", "dlib")  # what is no file any more when it is read
MAY_BE_ACCEPTED = {
    **dict.fromkeys(("photo", "key"), "animation|texts?|EXIF|go on|16, 6"),
    "faces": "attribute (source|licence)|(videos|rows) is negative",
    "scenes": "attribute (source|licence)|attributes is negative",
    "csaw": "label is one axis more",
    "data": "label is (a type|missing)|data is (negative|endless)",  # compared when they are classified
    **dict.fromkeys(("lfw", "folder"), "cut at [678]"),  # padding
    **dict.fromkeys(("lock", "pin"), r"HTML|UTF-16|^\w+: "),  # YAML that DVC does not write and that does no harm
    **dict.fromkeys(("service", "params"), r"^\w+: "),
    "class names": "PostScript",  # three lines
    "bundle": "empty zip",
    "network": r"^model\.|layer_names|is negative",
    "autoencoder": "attribute (mean|std|threshold)|is negative",
    "weights": "is negative|model_config",
    "metrics": "missing",
    "state dict": "too large",  # where they are still finite when they are folded
}


def edge_cases_of(name):
    """Return the cases of a reader: name → bytes or what makes the thing at a path, and whether it may be taken."""
    loose = re.compile(rf"^~|{MAY_BE_ACCEPTED[name]}" if name in MAY_BE_ACCEPTED else "^~")
    cases = ({} if name in IN_MEMORY else PLACES) | CONTENTS | FAMILIES[name]()
    return {key: (content, bool(loose.search(key))) for key, content in cases.items()}
