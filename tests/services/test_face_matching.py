"""The mock service with real networks, and the calibration of its threshold."""

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import requests
from typer.testing import CliRunner

from tests.support.mock_service import KEY, app, compare, detect, embed, encode
from visor.cli import services
from visor.core import server
from visor.core.errors import UserError
from visor.data.face_set import FaceBatch, write_faces
from visor.data.images import jpeg_round_trip
from visor.services import calibration
from visor.services.face_matching import EncodedFaces, network_fingerprint, similarity_score
from visor.services.photo_sets import matching_photo, open_photo_set

SHAPE = (40, 36, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with a tiny recogniser trained on ann and bob."""
    import visor.core.tf  # noqa: F401 - before anything imports TensorFlow
    from visor.models.recognisers import vgg_face
    from visor.models.recognisers.base import save
    from visor.models.training import set_seed

    set_seed(7)
    root = tmp_path_factory.mktemp("root")
    arguments = {"image_shape": SHAPE, "num_classes": 2, "input_size": 32, "width": 2, "units": 16, "dropout": 0.0}
    save(vgg_face.build(**arguments), arguments, ["ann", "bob"], root / "artifacts/recogniser/vgg_face")
    return root


@contextmanager
def running_command(monkeypatch, folder, **options):
    """Run ``visor mock-service`` in a thread, and yield its URL."""
    servers, listeners, errors, listen = [], [], [], server.listen

    def serve(app, listener):
        servers.append(server.create_server(app))
        servers[0].run(sockets=[listener])

    def command():
        try:
            services.mock_service(port=0, **options)
        except BaseException as error:
            errors.append(error)

    monkeypatch.setattr(server, "listen", lambda host, port: listeners.append(listen(host, port)) or listeners[0])
    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr("visor.models.training.configure_tensorflow", lambda compute, seed: None)
    monkeypatch.setenv("VISOR_MOCK_KEYS", KEY)
    monkeypatch.chdir(folder)
    thread = threading.Thread(target=command)
    thread.start()
    try:
        while not servers:
            assert thread.is_alive(), errors
            time.sleep(0.1)
        yield server.url(listeners[0])
    finally:
        for running in servers:
            running.should_exit = True
        thread.join(20)
        listeners[0].close()


def test_a_trained_recogniser_is_served(monkeypatch, folder, tmp_path, capsys):
    from visor.models.recognisers.base import embeddings, load

    rng = np.random.default_rng(5)
    count = 48
    block = FaceBatch(
        rng.integers(0, 256, (count, 5, 3, 3), dtype=np.uint8).repeat(8, axis=1).repeat(12, axis=2),
        *(np.arange(count, dtype=np.int32) % divisor for divisor in (6, 12)),
        np.arange(count, dtype=np.int32),
    )
    path = tmp_path / "faces.h5"
    write_faces(path, [block], SHAPE, ["ann", "bob", "cleo", "dan", "eve", "finn"], "test", "none")
    options = {"detector": "none", "calibrate": path, "border": 0.0, "jpeg": 95, "margin": 0.25}
    with running_command(monkeypatch, folder, **options) as url:
        photos = open_photo_set(path, 0.0)
        source, target = (encode(matching_photo(photos, row)) for row in ("3", "8"))
        response = compare(url, {"source": source, "target": target})
        health = requests.get(f"{url}/health", timeout=10).json()
    printed, warned = capsys.readouterr()
    assert "would match different people" not in warned
    assert response.status_code == 200, response.text
    assert printed.startswith(f"vgg_face behind none on {url}, threshold {health['threshold']:.1f} of 100")
    embed_images = embeddings(load("vgg_face", folder / "artifacts/recogniser/vgg_face"))
    encoded = np.stack([jpeg_round_trip(image, 95) for image in block.images])
    first, second = embed_images(encoded[[3, 8]])
    assert response.json()["similarity"] == pytest.approx(50 * (1 + first @ second), abs=0.01)
    held_out = embed_images(encoded[block.labels >= 2])
    people = block.labels[block.labels >= 2]
    cosines = (held_out @ held_out.T)[people[:, None] < people]
    assert (50 * (1 + cosines) >= health["threshold"]).mean() <= 0.01
    assert (50 * (1 + cosines) >= health["threshold"] - 0.01).mean() > 0.01


@pytest.mark.parametrize("options", [{}, {"threshold": 0.3}])
def test_the_published_threshold_with_a_trained_recogniser_is_warned_of(monkeypatch, folder, capsys, options):
    with running_command(monkeypatch, folder, detector="none", **options):
        pass
    warned = capsys.readouterr().err
    assert ("vgg_face was trained by `dvc repro`" in warned) == (not options)
    assert ("would match different people: pass --calibrate" in warned) == (not options)


@pytest.mark.parametrize("side", [2048, 3000])
def test_large_images_are_reduced_for_detectors(side):
    from tests.support.linear_recogniser import linear
    from visor.models.detectors import Detections, Detector

    shapes = []

    def bright(images):
        shapes.append(images.shape[1:3])
        places = [np.nonzero(image.max(axis=2) > 200) for image in images]
        corners = [(x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1) for y, x in places]
        return [Detections(np.array([box, box], np.float32), np.array([0.9, 0.4], np.float32)) for box in corners]

    detector = Detector("mtcnn", 0.8, bright, None, None)
    encode_faces, _ = services._networks(linear(), detector, 0.0, 85)
    shapes.clear()
    image = np.zeros((side, side // 2, 3), np.uint8)
    box = np.array([0.2, 0.1, 0.25, 0.2]) * side
    x, y, width, height = box.astype(int)
    image[y : y + height, x : x + width] = 255
    faces = encode_faces(image)
    np.testing.assert_allclose(faces.boxes, [box], atol=3)
    assert faces.scores.tolist() == [pytest.approx(0.9)]
    assert len(shapes) == 1
    assert max(shapes[0]) <= 2048
    assert all(length % 64 == 0 for length in shapes[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recogniser", "facenets"], "--recogniser facenets is not known; choose from facenet"),
        (["--recogniser", "senet50"], "artifacts/recogniser/senet50 is missing"),
        (["--detector", "eyes"], "--detector eyes is not known"),
        (["--calibrate", "none.h5", "--detector", "none"], "none.h5 is missing"),
        (["--calibrate", "none.h5", "--threshold", "0.5"], "pass only one"),
    ],
)
def test_wrong_options(monkeypatch, folder, arguments, message):
    monkeypatch.setattr("visor.models.training.configure_tensorflow", lambda compute, seed: None)
    monkeypatch.setenv("VISOR_MOCK_KEYS", KEY)
    monkeypatch.chdir(folder)
    error = CliRunner().invoke(app, ["mock-service", "--port", "0", *arguments]).exception
    assert isinstance(error, UserError)
    assert message in str(error)


def test_at_most_the_stated_share_reaches_the_threshold():
    for count, allowed in ((100, 1), (199, 1), (200, 2), (1000, 10)):
        cosines = np.random.default_rng(count).uniform(-1, 1, count).astype(np.float32)
        score = similarity_score(calibration.false_accept_threshold(cosines))
        assert sum(similarity_score(cosine) >= score for cosine in cosines) <= allowed
        assert sum(similarity_score(cosine) >= score - 0.01 for cosine in cosines) > allowed


def test_calibration_faces_are_spread_over_people():
    labels = np.repeat(np.arange(4), (5, 100, 40, 3))
    rows = np.array(calibration.select_rows(labels, [1, 2, 3]))
    assert np.bincount(labels[rows]).tolist() == [0, 20, 20, 3]
    assert (rows[:20] >= 5).all()
    assert {5, 104} < set(rows)
    assert len(set(rows)) == len(rows)


def test_training_people_are_left_out(faces):
    shapes = []

    def encode_faces(image):
        shapes.append(image.shape)
        angle = image.mean() - image[17:51].mean() / 2  # equal for all noise images
        return EncodedFaces(np.array([[0.0, 0, 9, 9]]), np.ones(1), np.array([[np.cos(angle), np.sin(angle)]]))

    assert 0.9 < calibration.calibrate(encode_faces, faces.path, ["bob"], 0.5, 90) <= 1.0001
    assert set(shapes) == {(68, 57, 3)}
    assert len(shapes) == 57  # 20 of ann and cleo, and the 17 that dan has
    with pytest.raises(UserError, match="make 0 pairs of different people, too few"):
        calibration.calibrate(encode_faces, faces.path, ["ann", "bob", "cleo"], 0.5, 90)
    with pytest.raises(UserError, match="make 0 pairs"):
        calibration.calibrate(
            lambda _: EncodedFaces(np.empty((0, 4)), np.ones(0), np.empty((0, 1))), faces.path, [], 0.5, 90
        )


def test_the_fingerprint_changes_with_networks_and_settings():
    base = network_fingerprint("a", detect, embed, (12, 10))
    assert network_fingerprint("a", detect, embed, (12, 10)) == base
    others = [
        network_fingerprint("b", detect, embed, (12, 10)),
        network_fingerprint("a", None, embed, (12, 10)),
        network_fingerprint(
            "a", lambda images: [faces._replace(scores=faces.scores / 2) for faces in detect(images)], embed, (12, 10)
        ),
        network_fingerprint("a", detect, lambda images: embed(images)[:, ::-1], (12, 10)),
        network_fingerprint("a", detect, embed, (13, 10)),
    ]
    assert len({base, *others}) == 6
