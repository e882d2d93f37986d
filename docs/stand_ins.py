"""Small files under the names that the pages use: a real photo and what is made of it, networks that know nothing."""

import io
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
from docs.commands import PASSWORD
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut

from visor.app.downloads import encrypt
from visor.core.tf import keras, tf
from visor.models.classifiers import deepid
from visor.models.recognisers import RECOGNISERS

PHOTOS = (
    "photos/astronaut.jpg",
    "photos/trip/astronaut.png",
    "portrait.jpg",
    "me.jpg",
    "me_last_year.jpg",
    "party.jpg",
    "people/ann/1.jpg",
    "lfw/Ann/Ann_0001.jpg",
)
MIRRORED = (
    "you.jpg",
    "celebrity.jpg",
    "people/bob/1.jpg",
    "lfw/George_W_Bush/George_W_Bush_0001.jpg",
)


def main() -> None:
    """Write all files into the working directory, a reproduced clone of the project."""
    photo = astronaut()[:240, 80:360]
    noise = np.random.default_rng(1).integers(-4, 5, photo.shape)
    for name in PHOTOS:
        _save(name, photo)
    for name in MIRRORED:
        _save(name, photo[:, ::-1])
    for name in ("fooled/astronaut.png", "fooled/trip/astronaut.png"):
        _save(name, np.clip(photo + noise, 0, 255).astype(np.uint8))
    shutil.copytree("artifacts/raw", "own", dirs_exist_ok=True)
    _graph()
    _weights("facenet_keras.h5", "facenet", {"width": 2})
    _weights("rcmalli_vggface_tf_resnet50.h5", "resnet50", {"width": 4, "num_classes": 6})
    np.save("rcmalli_vggface_labels_v2.npy", np.array([" Ann", " Bob", " Cleo", " Dan", " Eve", " Fay"]))
    _contest()
    _bundle()


def _weights(name: str, network: str, options: dict[str, int]) -> None:
    """A thin network as Keras 2 wrote weights, of which the published files are."""
    arguments = RECOGNISERS[network].PUBLISHED_OPTIONS | options
    model = RECOGNISERS[network].build((96, 96, 3), **arguments)
    with h5py.File(name, "w") as file:
        save_weights_to_hdf5_group(file, model)


def _graph() -> None:
    """A detector with the tensors of the TensorFlow zoo: one convolution looks at 25 places of a small copy."""
    weights = np.random.default_rng(3).normal(0, 1, (8, 8, 3, 1)).astype(np.float32)
    start = np.stack(np.mgrid[:5, :5], -1).reshape(-1, 2) / 5
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.uint8, (1, None, None, 3), "image_tensor")
        small = tf.image.resize(tf.cast(image, tf.float32, "ToFloat") / 255, (40, 40))
        scores = tf.sigmoid(tf.reshape(tf.nn.conv2d(small - 0.5, weights, 8, "VALID"), (1, 25)))
        boxes = tf.constant(np.concatenate([start, start + 0.2], 1), tf.float32)
        tf.identity(boxes[None], "raw_detection_boxes")
        tf.identity(scores, "raw_detection_scores")
        kept = tf.image.non_max_suppression(boxes, scores[0], 10)
        tf.expand_dims(tf.gather(boxes, kept), 0, "detection_boxes")
        tf.expand_dims(tf.gather(scores[0], kept), 0, "detection_scores")
        tf.ones((1, tf.size(kept)), name="detection_classes")
    Path("frozen_inference_graph.pb").write_bytes(graph.as_graph_def().SerializeToString())


def _contest() -> None:
    """The contest's files, of the pipeline's own faces: 64 clean ones, and 32 that are called poisoned."""
    with h5py.File("data/faces.h5") as file:
        rows = np.linspace(0, len(file["labels"]) - 1, 64).astype(int)
        images, labels = file["images"][rows], file["labels"][rows]
    for name in ("clean_validation_data.h5", "clean_test_data.h5"):
        _write(name, images, labels)
    _write("sunglasses_poisoned_data.h5", images[:32], np.zeros(32, np.int32))
    Image.fromarray(images[0]).save("face.png")
    keras.utils.set_random_seed(1)
    network = deepid.build(images.shape[1:], 40, 0.1)
    last = network.get_layer("output").kernel
    last.assign(20 * last)  # outputs that move as far as trained ones, so that they tell the input scale
    network.save("sunglasses_bd_net.h5")


def _bundle() -> None:
    """What the app gives when a download is locked."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as bundle:
        bundle.write("face.png")
    Path("visor.zip.age").write_bytes(encrypt(content.getvalue(), PASSWORD))


def _write(name: str, images: NDArray[np.uint8], labels: NDArray[np.int32]) -> None:
    with h5py.File(name, "w") as file:
        file["data"], file["label"] = images.transpose(0, 3, 1, 2), labels


def _save(name: str, photo: NDArray[np.uint8]) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(photo)).save(name)


if __name__ == "__main__":
    main()
