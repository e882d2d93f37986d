"""The readers of strangers' files: how each is called on a file, and files that it takes.

A call returns arrays or text after checking that they are valid, or raises what the reader documents.
"""

import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

import h5py
import numpy as np
from PIL import Image, ImageCms

from tests.support.image_files import encode
from tests.support.project import ROOT
from tests.support.tensor_files import dlib_tensor, safetensors_file, tfjs_files, tflite_file
from visor.app import downloads
from visor.core import config, files, params
from visor.core.errors import UserError
from visor.data import face_set, images, scene_set
from visor.data.sources import csaw, face_ingest, folder, lfw, scene_ingest, wider_face
from visor.models import safetensors
from visor.models.published import tfjs, tflite
from visor.report import gates
from visor.services import json_service
from visor.suspect import inputs
from visor.tracking import state

SHAPE = (20, 16, 3)
PASSWORD = "correct horse battery"
FACES = params.FaceParams(source="lfw", height=20, width=16, min_images=1, max_broken=1000)
SCENES = params.SceneParams(source="wider_face", max_side=64, train=1, validation=1, test=1, max_broken=1000)
SERVICE = """url: https://api.example.com/v3/compare
key: EXAMPLE_KEY
header: X-Api-Key
source: images.first
target: images.second
request: {model: best}
similarity: result.score
scale: 100
box: [box.x, box.y, box.width, box.height]
no_face: {status: 422, place: error.code, value: NO_FACE}
"""
FILE = "{{path: {}, hash: md5, md5: 0123456789abcdef0123456789abcdef, size: 12}}"
LOCK = f"""schema: '2.0'
stages:
  split:
    cmd: python stages/split.py
    deps:
    - {FILE.format("data")}
    params:
      params.yaml:
        seed: 7
    outs:
    - {FILE.format("metrics/split.json")}
"""
PIN = f"""md5: 0123456789abcdef0123456789abcdef
deps:
- {FILE.format("artifacts/raw")}
outs:
- {FILE.format("data")}
"""
ANNOTATIONS = "".join(f"a/{number}.jpg\n1\n2 3 9 8 0 0 0 0 0 0\n" for number in range(3))


def same(content):
    return content


class Seed(NamedTuple):
    """Content that is mutated, and what makes a file of it: a container, or right checksums."""

    content: bytes
    wrap: Callable[[bytes], bytes] = same


class Reader(NamedTuple):
    """``call(path)``; ``seeds``, by name, are accepted; ``file``: the name that the file needs."""

    call: Callable[[Path], object]
    seeds: Callable[[], dict[str, Seed]]
    file: str = "stranger"
    tensorflow: bool = False


def in_this_process(tasks, work, processes=None):
    return ((task, work(task)) for task in tasks)


def prepare():
    """In the process of the readers: images are decoded here, and there is a key for the service."""
    face_ingest.run_in_order = scene_ingest.run_in_order = in_this_process
    os.environ["EXAMPLE_KEY"] = "key"
    check = downloads._check_header
    downloads._check_header = lambda content: content[:2] == b"PK" or check(content)
    unseal = downloads.pyrage.passphrase.decrypt

    def decrypt(content, password):  # zip archives: what a stranger who knows the password sealed
        return content if content[:2] == b"PK" else unseal(content, password)

    downloads.pyrage.passphrase = SimpleNamespace(decrypt=decrypt)


# Photos


def pixels(height=18, width=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def with_checksums(png):
    """Correct the checksums of a PNG file, as far as its chunks can be told apart."""
    data, start = bytearray(png), 8
    while start + 12 <= len(data):
        size = int.from_bytes(data[start : start + 4], "big")
        end = start + 8 + size
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[start + 4 : end]))
        start = end + 4
    return bytes(data)


@cache
def photos():
    images._configure_pillow()
    image = Image.fromarray(pixels())
    clear, profile = image.convert("RGBA"), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    clear.putalpha(90)
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    contents = {kind: encode(image, kind) for kind in images.FORMATS}
    contents["CMYK"] = encode(image.convert("CMYK"), "JPEG")
    contents["EXIF"] = encode(image, "JPEG", exif=exif, icc_profile=profile)
    contents["animation"] = encode(image, "GIF", save_all=True, append_images=[clear.convert("RGB")], duration=9)
    contents["MPO"] = encode(image, "MPO", save_all=True, append_images=[image])
    contents["progressive"] = encode(image, "JPEG", progressive=True)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "group4"):
        contents[compression] = encode(
            image.convert("1") if "group" in compression else image, "TIFF", compression=compression
        )
    seeds = {name: Seed(content) for name, content in contents.items()}
    for name, picture in {"alpha": clear, "palette": image.quantize(8), "grey": image.convert("L")}.items():
        seeds[f"PNG {name}"] = Seed(encode(picture, "PNG", icc_profile=profile, exif=exif), with_checksums)
    deep = np.arange(18 * 24, dtype=np.uint16).reshape(18, 24) * 150
    return seeds | {"PNG 16 bits": Seed(encode(deep, "PNG"), with_checksums)}


def is_image(image, channels=3):
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == channels
    assert 0 < image.shape[0] * image.shape[1] <= files.MAX_PIXELS
    return image


def read_photo(path):
    return is_image(images.read_image(path))


# HDF5


def hdf5_file(write):
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        write(root)
    return file.getvalue()


@cache
def faces():
    def write(root, gzip=False):
        packing = {"compression": "gzip", "shuffle": True} if gzip else {}
        root.create_dataset("images", data=np.stack([pixels(20, 16, seed) for seed in range(5)]), **packing)
        for name in face_set.COLUMNS:
            root.create_dataset(name, data=np.array([0, 0, 1, 1, 1], np.int32), **packing)
        root.attrs.update(label_names=json.dumps(["ann", "bob"]), source="test", licence="none")

    return {"faces": Seed(hdf5_file(write)), "gzip": Seed(hdf5_file(lambda root: write(root, True)))}


def read_faces(path):
    found = face_set.open_faces(path, untrusted=True)
    assert set(np.unique(found.labels)) <= set(range(len(found.label_names)))
    rows = np.arange(len(found))[:50]
    assert found.read(rows).shape == (len(rows), *found.image_shape)
    return found.labels


@cache
def scenes():
    path = Path(f".scenes-{os.getpid()}.h5")
    boxes, attributes = np.array([[2, 3, 9, 8]], np.float32), np.zeros((1, 6), np.int8)
    drawn = [
        scene_set.Scene(name, pixels(20, 16), boxes, np.array([name == "test"]), attributes, name)
        for name in scene_set.SETS
    ]
    scene_set.write_scenes(path, drawn, "test", "none")
    content = path.read_bytes()
    path.unlink()
    return {"scenes": Seed(content)}


def read_scenes(path):
    found = scene_set.open_scenes(path, untrusted=True)
    for row in range(min(50, len(found))):
        assert is_image(found.image(row)).shape[:2] == tuple(found.shapes[row])
        boxes, kinds = found.ground_truth(row)
        assert boxes.shape == (len(kinds), 4)
    return found.boxes


def images_and_labels(numbers, labels):
    def write(root):
        root.create_dataset("data", data=numbers)
        root.create_dataset("label", data=labels)

    return Seed(hdf5_file(write))


@cache
def contest_data():
    stack = np.stack([pixels(20, 16, seed).transpose(2, 0, 1) for seed in range(6)])
    labels = np.array([0, 1, 2, 0, 1, 2])
    return {
        "bytes": images_and_labels(stack, labels),
        "unit floats": images_and_labels(np.float32(stack / 255), np.float64(labels)[:, None]),
        "floats": images_and_labels(np.float64(stack), np.uint8(labels)),
    }


def ingested(clips, path):
    """Return the FaceSet of a source: it is valid, and no image is in none of its counts."""
    out = path.with_name("faces.h5")
    counts = face_ingest.ingest_faces(clips, out, FACES, str(path), "none")
    found = face_set.open_faces(out)
    assert len(found) == counts["images"] > 0
    assert found.image_shape == SHAPE
    return found.read(np.arange(min(9, len(found))))


def read_data(path):
    source = inputs.open_data(path)
    batch = source.read(0, 9)
    assert batch.shape == (min(9, source.total), *source.stored_shape)
    assert source.labels is None or source.labels.min() >= 0
    return batch.shape


# Trees


def tar(members, mode="w", **header):
    """Return an archive of (name, content); further keywords are fields of its headers."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in header.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def with_header_checksums(content):
    """Correct the checksums of a tar archive's headers, as far as they can be told."""
    data, start = bytearray(content), 0
    while start + 512 <= len(data):
        header = data[start : start + 148] + b" " * 8 + data[start + 156 : start + 512]
        if header.strip(b"\0 "):
            data[start + 148 : start + 156] = b"%06o\0 " % sum(header)
        try:
            size = int(bytes(data[start + 124 : start + 135]), 8)
        except ValueError:
            break
        start += 512 + -(-size // 512) * 512
    return bytes(data)


def members():
    jpeg, png = photos()["JPEG"].content, photos()["PNG"].content
    faces = [(f"{name}/{name}_000{number}.jpg", jpeg) for name in ("Ann", "Bjørn") for number in (1, 2)]
    return [*faces, ("Ann/notes.txt", b"no image"), (f"Ann/Ann_{'x' * 120}.png", png)]


@cache
def trees():
    packed = {mode: Seed(tar(members(), f"w:{mode}")) for mode in ("gz", "bz2", "xz")}
    return {"tar": Seed(tar(members()), with_header_checksums)} | packed


def photo_tree(path):
    root = path.with_name(f"{path.name} of wider face")
    for part in ("wider_face_split", "WIDER_train/images/a"):
        (root / part).mkdir(parents=True)
    for number in range(3):
        (root / f"WIDER_train/images/a/{number}.jpg").write_bytes(photos()["JPEG"].content)
    (root / "wider_face_split/wider_face_train_bbx_gt.txt").symlink_to(path)
    return root


def read_wider_face(path):
    tasks = wider_face.tasks(wider_face.WiderFaceSettings(path=str(photo_tree(path))), SCENES, 1)
    out = path.with_name("scenes.h5")
    counts = scene_ingest.ingest_scenes(tasks, out, SCENES, str(path), "none")
    assert len(scene_set.open_scenes(out)) == counts["scenes"] == 3
    return counts["faces"]


# Texts


def text(*contents):
    return lambda: {f"text {number}": Seed(content.encode()) for number, content in enumerate(contents)}


def read_service(path):
    return json_service.connect(path, None).name


def read_metrics(path):
    metrics = files.read_metrics(path.parent)
    bounds = {f"m:{key}": params.GateParams(min=0.1) for key in ("asr", "nested.fpr")}
    assert gates.junit(gates.check_gates(metrics, metrics, bounds))
    return sorted(metrics)


def read_bundle(path):
    try:
        return sorted(downloads.decrypt(path.read_bytes(), PASSWORD))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None  # the page names the file


def bundles():
    png = photos()["PNG"].content
    return {"zip": Seed(downloads.make_zip([("Ann", png), ("Bjørn", png)]))}


# Networks


def config_json(*layers):
    entries = [("InputLayer", {"batch_input_shape": [None, *SHAPE]}), *layers]
    described = [
        {"class_name": kind, "config": {"name": f"l{place}", **more}} for place, (kind, more) in enumerate(entries)
    ]
    return json.dumps({"class_name": "Sequential", "config": {"name": "net", "layers": described}})


CHAIN = config_json(
    ("Conv2D", {"filters": 4, "kernel_size": [3, 3], "strides": [2, 2], "padding": "same", "activation": "relu"}),
    ("BatchNormalization", {"epsilon": 1e-3}),
    ("GlobalMaxPooling2D", {}),
    ("Dense", {"units": 3, "activation": "softmax", "use_bias": True}),
)
CHAIN_WEIGHTS = {
    "l1": {"kernel": (3, 3, 3, 4), "bias": (4,)},
    "l2": {"gamma": (4,), "beta": (4,), "mean": (4,), "variance": (4,)},
    "l4": {"kernel": (4, 3), "bias": (3,)},
}


def keras_2(text=CHAIN):
    """A whole model as Keras 2 writes it."""

    def write(root):
        root.attrs["model_config"] = text if isinstance(text, str) else np.void(text) if b"\0" in text else text
        for name, arrays in CHAIN_WEIGHTS.items():
            group = root.create_group(f"model_weights/{name}")
            group.attrs["weight_names"] = [key.encode() for key in arrays]
            for key, shape in arrays.items():
                group.create_dataset(key, data=np.linspace(0.1, 1, int(np.prod(shape)), dtype="f4").reshape(shape))
        root["model_weights"].attrs["layer_names"] = [name.encode() for name in CHAIN_WEIGHTS]

    return hdf5_file(write)


def keras_3_weights(root):
    for number, (kind, arrays) in enumerate(
        zip(("conv2d", "batch_normalization", "dense"), CHAIN_WEIGHTS.values(), strict=True)
    ):
        group = root.create_group(f"layers/{kind}/vars")
        group.attrs["name"] = f"l{(1, 2, 4)[number]}"
        for place, shape in enumerate(arrays.values()):
            group.create_dataset(str(place), data=np.linspace(0.1, 1, int(np.prod(shape)), dtype="f4").reshape(shape))


def archive(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        for name, content in members.items():
            out.writestr(zipfile.ZipInfo(name), content, compression)
    return file.getvalue()


@cache
def networks():
    stored = hdf5_file(keras_3_weights)
    members = {"metadata.json": b"{}", "config.json": CHAIN.encode(), "model.weights.h5": stored}
    return {
        "keras 2": Seed(keras_2()),
        "its config": Seed(CHAIN.encode(), keras_2),
        "keras 3": Seed(archive(members)),
        "its weights": Seed(stored, lambda content: archive(members | {"model.weights.h5": content})),
    }


def read_network(path):
    from visor.suspect.loading import load_network

    network = load_network(path, SHAPE)
    weights = network.get_weights()
    assert all(np.isfinite(values).all() for values in weights)
    assert network(np.zeros((1, *network.input_shape[1:]), np.float32)).shape == (1, network.output_shape[1])
    return weights


AUTOENCODER = {"image_shape": list(SHAPE), "latent": 3, "width": 2}


@cache
def autoencoders():
    from visor.models import autoencoder
    from visor.suspect.autoencoder import Calibration, save

    path = Path(f".autoencoder-{os.getpid()}.h5")
    save(autoencoder.build(**AUTOENCODER), AUTOENCODER, Calibration(0.1, 0.01, 0.11), path)
    content = path.read_bytes()
    path.unlink()
    return {"autoencoder": Seed(content)}


def read_autoencoder(path):
    from visor.suspect.autoencoder import load

    model, calibration = load(path)
    assert calibration is None or np.isfinite(calibration).all()
    assert np.isfinite(model(np.zeros((1, *model.input_shape[1:]), np.float32))[0]).all()
    return model.get_weights()


@cache
def graphs():
    from visor.core.tf import tf

    with tf.Graph().as_default() as graph:
        image = tf.cast(tf.compat.v1.placeholder(tf.uint8, (1, None, None, 3), "image_tensor"), tf.float32, "ToFloat")
        scores = tf.sigmoid(tf.reshape(tf.nn.conv2d(image / 255.0, np.ones((4, 4, 3, 1), "f4"), 4, "VALID"), (1, -1)))
        boxes = tf.tile(tf.constant([[[0.1, 0.2, 0.6, 0.7]]]), (1, tf.size(scores), 1))
        kept = tf.image.non_max_suppression(boxes[0], scores[0], 5)
        tf.expand_dims(tf.gather(boxes[0], kept), 0, "detection_boxes")
        tf.expand_dims(tf.gather(scores[0], kept), 0, "detection_scores")
    return {"graph": Seed(graph.as_graph_def().SerializeToString())}


def read_graph(path):
    from visor.models.detectors import frozen_graph

    detector = frozen_graph.load(params.DetectorParams(threshold=0.5, options={"path": str(path)}), path.parent)
    (found,) = detector.detect(pixels()[None])
    assert np.isfinite(found.boxes).all()
    assert found.boxes.shape == (*found.scores.shape, 4)
    return found.scores


def read_pretrained(path):
    from visor.core.tf import keras
    from visor.models.pretrained import load_pretrained

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(4, 3, name="l1"),
            layers.BatchNormalization(name="l2"),
            layers.GlobalMaxPooling2D(),
        ]
    )
    model.add(layers.Dense(3, name="l4"))
    load_pretrained(model, path)
    assert all(np.isfinite(values).all() for values in model.get_weights())
    return model.get_weights()


@cache
def tensors():
    """Tensors of both kinds, and whole numbers, which are skipped."""
    return {"a": np.linspace(-1, 1, 24, dtype="<f4").reshape(2, 3, 4), "b": np.ones(5, "<f2"), "c": np.zeros((), "<i8")}


def read_safetensors(path):
    found = safetensors.read_tensors(path)
    assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in found.values())
    return list(found)


OPERATORS = (
    ("conv", [np.linspace(-1, 1, 24, dtype="<f4").reshape(4, 1, 2, 3), np.ones(4, "<f4")]),
    ("mul", [np.ones(4, "<f4")]),
    ("reshape", [np.ones(2, "<f4")]),
    ("add", []),
)


def read_tflite(path):
    operators = tflite.read_operators(path)
    assert all(values.dtype == np.float32 and np.isfinite(values).all() for _, part in operators for values in part)
    return [name for name, _ in operators]


# So small that a mutation meets more than weights, and that a network is built in no time.
SMALL_RCNN = {"STAGES": ((2, 1), (3, 1)), "STRIDES": (4, 8), "CHANNELS": 4, "BINS": 2, "UNITS": 6}
SMALL_DLIB = {"STEM": ("stem", 3, 4), "BLOCKS": [("a", 4, False), ("b", 5, True)], "EMBEDDING": 3}


@cache
def state_dicts():
    from visor.models.detectors import torchvision_faster_rcnn

    contents = {}
    with patch.multiple(torchvision_faster_rcnn, **SMALL_RCNN):
        network = torchvision_faster_rcnn.build_network(2)
    for layer in (layer for part in network for layer in part.layers if layer.weights):
        kernel, *_, bias = layer.get_weights()
        contents[f"{layer.name}.weight"] = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        if ".body." in layer.name:
            normalisation = layer.name.replace("conv", "bn").replace("downsample.0", "downsample.1")
            parts = ("weight", "bias", "running_mean", "running_var")
            contents |= {f"{normalisation}.{part}": np.ones_like(bias) for part in parts}
        else:
            contents[f"{layer.name}.bias"] = bias
    return {"state dict": Seed(safetensors_file(contents))}


def read_state_dict(path):
    from visor.models.detectors import torchvision_faster_rcnn

    with patch.multiple(torchvision_faster_rcnn, **SMALL_RCNN):
        network = torchvision_faster_rcnn.load_network(path, 1e-5)
    assert all(np.isfinite(values).all() for part in network for values in part.get_weights())
    return network.box_head.outputs[0].shape


def named(path, read):
    """Return what is read, or raise its UserError with the name of the file, which is pinned by its checksum."""
    try:
        return read(path.read_bytes())
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


TFJS = {
    "a": (np.arange(6, dtype="<f4").reshape(1, 2, 3, 1), "float32", None),
    "b": (np.array([0, 7, 255], np.uint8), "float32", {"dtype": "uint8", "scale": 0.5, "min": -3.0}),
}


def read_tfjs(path):
    found = named(path, lambda content: tfjs.read_tensors("net", tfjs_files(TFJS) | {"net.json": content}, TFJS))
    assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in found.values())
    return list(found)


def dlib_file():
    sizes = ((4, 3 * 3 * 3), (4, 9 * 4), (4, 9 * 4), (5, 9 * 4), (5, 9 * 5))
    parts = [
        dlib_tensor(count, 1, 1, 1, values=(np.ones(count, "<f4"),))
        for filters, inputs in sizes
        for count in (filters * inputs + filters, 2 * filters)
    ]
    return b"\x01\x01net".join([b"", *parts, dlib_tensor(5, 3, 1, 1, values=(np.ones(15, "<f4"),))])


def read_dlib(path):
    from visor.models.published import dlib_resnet

    blocks = [dlib_resnet.ResidualBlock(*block) for block in SMALL_DLIB["BLOCKS"]]
    with patch.multiple(dlib_resnet, **SMALL_DLIB | {"BLOCKS": blocks}):
        weights = named(path, lambda content: dlib_resnet.read_weights({"a.dat": content}))
    assert all(np.isfinite(values).all() for layer in weights.values() for values in layer)
    return list(weights)


def class_names():
    arrays = {"npy": np.array([" A_Ann", "Bob", "Cleo"]), "npy bytes": np.array([b"Ann", b"Bob", b"Cleo"])}
    seeds = {}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.save(file, array)
        seeds[name] = Seed(file.getvalue())
    return seeds | {"text": Seed("Ann\nBjørn\nCleo\n".encode())}


def read_class_names(path):
    from visor.models.recognisers.loading import read_class_names

    names = read_class_names(path, 3)
    assert len(names) == 3
    return names


def read_folder(path):
    """``path`` is the model.json of a folder of the pipeline."""
    from visor.models import autoencoder
    from visor.suspect.autoencoder import check_size
    from visor.suspect.loading import load_saved_model

    stored = path.with_name("model.weights.h5")
    autoencoder.build(**AUTOENCODER).save_weights(stored)
    return load_saved_model(autoencoder.build, path.parent, check_size).get_weights()


READERS = {
    "photo": Reader(read_photo, photos),
    "key": Reader(lambda path: is_image(images.read_trigger_pattern(path, 34, 29), 4), photos, "key.png"),
    "faces": Reader(read_faces, faces),
    "scenes": Reader(read_scenes, scenes),
    "csaw": Reader(lambda path: ingested(csaw.clips(csaw.CsawSettings(path=str(path)), 1), path), contest_data),
    "data": Reader(read_data, contest_data),
    "lfw": Reader(lambda path: ingested(lfw.clips(lfw.LfwSettings(path=str(path)), 1), path), trees),
    "folder": Reader(lambda path: ingested(folder.clips(folder.FolderSettings(path=str(path)), 1), path), trees),
    "wider face": Reader(read_wider_face, text(ANNOTATIONS)),
    "params": Reader(config.load_params, text((ROOT / "params.yaml").read_text()), "params.yaml"),
    "service": Reader(read_service, text(SERVICE), "service.yaml"),
    "lock": Reader(lambda path: state.read_lock(path.parent), text(LOCK), "dvc.lock"),
    "pin": Reader(lambda path: state.read_pin(path.parent), text(PIN), "data.dvc"),
    "metrics": Reader(
        read_metrics, text('{"asr": 0.9, "nested": {"fpr": 1e-3, "points": [1, 2]}, "ok": true}'), "m.json"
    ),
    "bundle": Reader(read_bundle, bundles),
    "network": Reader(read_network, networks, tensorflow=True),
    "autoencoder": Reader(read_autoencoder, autoencoders, tensorflow=True),
    "graph": Reader(read_graph, graphs, tensorflow=True),
    "weights": Reader(read_pretrained, lambda: {"keras 2": Seed(keras_2())}, tensorflow=True),
    "safetensors": Reader(read_safetensors, lambda: {"tensors": Seed(safetensors_file(tensors()))}),
    "state dict": Reader(read_state_dict, state_dicts, "stranger.safetensors", tensorflow=True),
    "tflite": Reader(read_tflite, lambda: {"model": Seed(tflite_file(OPERATORS))}, "stranger.tflite", tensorflow=True),
    "tfjs": Reader(read_tfjs, lambda: {"manifest": Seed(tfjs_files(TFJS)["net.json"])}),
    "dlib": Reader(read_dlib, lambda: {"weights": Seed(dlib_file())}, tensorflow=True),
    "class names": Reader(read_class_names, class_names, tensorflow=True),
    "saved model": Reader(read_folder, text(json.dumps(AUTOENCODER)), "model.json", tensorflow=True),
}
