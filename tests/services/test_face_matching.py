"""The range with real networks, and where its threshold comes from."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest
import requests
from typer.testing import CliRunner

from tests.services.test_mock_service import KEY, ask, coded, detect, embed
from tests.services.test_transfer import app
from visor import server
from visor.cli import services
from visor.core.errors import UserError
from visor.data.face_set import FaceBatch, write_faces
from visor.data.images import jpeg_round_trip
from visor.services import calibration
from visor.services.face_matching import EncodedFaces, network_fingerprint, similarity_score
from visor.services.photo_sets import matching_photo, open_photo_set

SHAPE = (40, 36, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with a tiny network that knows ann and bob."""
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
def ranging(monkeypatch, folder, **options):
    """Run ``visor range`` in a thread, and yield its address."""
    servers, listeners, failed = [], [], []
    serve, listen, begun = server.serve, server.listen, threading.Event()

    def started(running):
        servers.append(running)
        begun.set()

    def command():
        try:
            services.mock_service(port=0, **options)
        except BaseException as error:
            failed.append(error)

    monkeypatch.setattr(server, "listen", lambda host, port: listeners.append(listen(host, port)) or listeners[0])
    monkeypatch.setattr(server, "serve", lambda app, listener: serve(app, listener, started))
    monkeypatch.setattr("visor.models.training.configure_tensorflow", lambda compute, seed: None)
    monkeypatch.setenv("VISOR_RANGE_KEYS", KEY)
    monkeypatch.chdir(folder)
    thread = threading.Thread(target=command)
    thread.start()
    try:
        while not begun.wait(0.1):
            assert thread.is_alive(), failed
        yield server.address(listeners[0])
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
    with ranging(monkeypatch, folder, **options) as url:
        album = open_photo_set(path, 0.0)
        said = ask(url, {"source": coded(matching_photo(album, "3")), "target": coded(matching_photo(album, "8"))})
        health = requests.get(f"{url}/health", timeout=10).json()
    printed, warned = capsys.readouterr()
    assert "strangers pass" not in warned
    assert said.status_code == 200, said.text
    assert printed.startswith(f"vgg_face behind none on {url}, threshold {health['threshold']:.1f} of 100")
    look = embeddings(load("vgg_face", folder / "artifacts/recogniser/vgg_face"))
    shown = np.stack([jpeg_round_trip(image, 95) for image in block.images])
    one, other = look(shown[[3, 8]])
    assert said.json()["similarity"] == pytest.approx(50 * (1 + one @ other), abs=0.01)
    strangers = look(shown[block.labels >= 2])
    people = block.labels[block.labels >= 2]
    cosines = (strangers @ strangers.T)[people[:, None] < people]
    assert (50 * (1 + cosines) >= health["threshold"]).mean() <= 0.01
    assert (50 * (1 + cosines) >= health["threshold"] - 0.01).mean() > 0.01


@pytest.mark.parametrize("options", [{}, {"threshold": 0.3}])
def test_a_trained_recogniser_with_the_threshold_of_another_is_told_of(monkeypatch, folder, capsys, options):
    with ranging(monkeypatch, folder, detector="none", **options):
        pass
    warned = capsys.readouterr().err
    assert ("vgg_face is the one that `dvc repro` trained" in warned) == (not options)
    assert ("strangers pass; calibrate it by --calibrate" in warned) == (not options)


@pytest.mark.parametrize("side", [2048, 3000])
def test_a_detector_never_sees_a_large_picture(monkeypatch, side):
    from tests.support.linear_recogniser import linear
    from visor.models.detectors import Detections, Detector

    shown = []

    def bright(images):
        shown.append(images.shape[1:3])
        places = [np.nonzero(image.max(axis=2) > 200) for image in images]
        corners = [(x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1) for y, x in places]
        return [Detections(np.array([box, box], np.float32), np.array([0.9, 0.4], np.float32)) for box in corners]

    detector = Detector("mtcnn", 0.8, bright, None, None)
    monkeypatch.setattr("visor.services.mock_service.create_app", lambda see, *_: see)
    see, _ = services._app(services.MockNetworks(linear(), detector, 0.0, 0.0, 85), None, 0.5, None)
    shown.clear()
    picture = np.zeros((side, side // 2, 3), np.uint8)
    box = np.array([0.2, 0.1, 0.25, 0.2]) * side
    x, y, width, height = box.astype(int)
    picture[y : y + height, x : x + width] = 255
    seen = see(picture)
    np.testing.assert_allclose(seen.boxes, [box], atol=3)
    assert seen.scores.tolist() == [pytest.approx(0.9)]
    assert len(shown) == 1
    assert max(shown[0]) <= 2048
    assert all(length % 64 == 0 for length in shown[0])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--recogniser", "facenets"], "--recogniser facenets is not known; choose from facenet"),
        (["--recogniser", "senet50"], "artifacts/recogniser/senet50 is missing"),
        (["--detector", "eyes"], "--detector eyes is not known"),
        (["--calibrate", "none.h5", "--detector", "none"], "none.h5 is missing"),
        (["--calibrate", "none.h5", "--threshold", "0.5"], "leave one of them out"),
    ],
)
def test_what_cannot_be_served(monkeypatch, folder, words, sentence):
    monkeypatch.setattr("visor.models.training.configure_tensorflow", lambda compute, seed: None)
    monkeypatch.setenv("VISOR_RANGE_KEYS", KEY)
    monkeypatch.chdir(folder)
    error = CliRunner().invoke(app, ["range", "--port", "0", *words]).exception
    assert isinstance(error, UserError)
    assert sentence in str(error)


def test_a_threshold_lets_the_stated_share_in():
    for count, allowed in ((100, 1), (199, 1), (200, 2), (1000, 10)):
        cosines = np.random.default_rng(count).uniform(-1, 1, count).astype(np.float32)
        found = similarity_score(calibration.threshold(cosines))
        assert sum(similarity_score(cosine) >= found for cosine in cosines) <= allowed
        assert sum(similarity_score(cosine) >= found - 0.01 for cosine in cosines) > allowed


def test_faces_to_calibrate_by_are_spread_over_strangers():
    labels = np.repeat(np.arange(4), (5, 100, 40, 3))
    rows = np.array(calibration.choose(labels, [1, 2, 3]))
    assert np.bincount(labels[rows]).tolist() == [0, 20, 20, 3]
    assert (rows[:20] >= 5).all()
    assert {5, 104} < set(rows)
    assert len(set(rows)) == len(rows)


def test_known_people_do_not_calibrate(faces):
    shown = []

    def see(picture):
        shown.append(picture.shape)
        angle = picture.mean() - picture[17:51].mean() / 2  # of noise, alike
        return EncodedFaces(np.array([[0.0, 0, 9, 9]]), np.ones(1), np.array([[np.cos(angle), np.sin(angle)]]))

    assert 0.9 < calibration.calibrate(see, faces.path, ["bob"], 0.5, 90) <= 1.0001
    assert set(shown) == {(68, 57, 3)}
    assert len(shown) == 57  # 20 of ann and cleo, and the 17 that dan has
    with pytest.raises(UserError, match="make 0 pairs of different ones, too few"):
        calibration.calibrate(see, faces.path, ["ann", "bob", "cleo"], 0.5, 90)
    with pytest.raises(UserError, match="make 0 pairs"):
        calibration.calibrate(
            lambda _: EncodedFaces(np.empty((0, 4)), np.ones(0), np.empty((0, 1))), faces.path, [], 0.5, 90
        )


def test_the_fingerprint_changes_with_all_that_answers_depend_on():
    base = network_fingerprint("a", detect, embed, (12, 10))
    assert network_fingerprint("a", detect, embed, (12, 10)) == base
    others = [
        network_fingerprint("b", detect, embed, (12, 10)),
        network_fingerprint("a", None, embed, (12, 10)),
        network_fingerprint(
            "a", lambda images: [found._replace(scores=found.scores / 2) for found in detect(images)], embed, (12, 10)
        ),
        network_fingerprint("a", detect, lambda images: embed(images)[:, ::-1], (12, 10)),
        network_fingerprint("a", detect, embed, (13, 10)),
    ]
    assert len({base, *others}) == 6
