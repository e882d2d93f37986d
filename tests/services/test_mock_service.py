"""The black-box range over real HTTP: what it answers, what it refuses, and that it stays up after each refusal."""

import base64
import io
import re
import socket
import threading
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pytest
import requests
from PIL import Image

from visor.core.errors import UserError
from visor.server import address, listen, serve
from visor.services.accounts import KEYS_VARIABLE, AccountStore, ApiError, keys_from_environment
from visor.services.face_matching import face_encoder
from visor.services.mock_service import RequestLimits, create_app

KEY = "a-key-of-the-tests"
OTHER = "another-key"
RED, GREEN, BLUE, MIXED = (250, 0, 0), (0, 240, 0), (0, 0, 230), (180, 180, 0)
MAX_BODY = 400_000


class Found(NamedTuple):
    boxes: np.ndarray
    scores: np.ndarray


def detect(images):
    """Bright columns are faces, from the picture's top down to its last bright row."""
    found = []
    for image in images:
        bright = image.max(axis=2) > 90
        edges = np.flatnonzero(np.diff(np.pad(bright.any(axis=0), 1).astype(int)))
        runs = edges.reshape(-1, 2)
        heights = [np.flatnonzero(bright[:, a:b].any(axis=1))[-1] + 1 for a, b in runs]
        boxes = [[a, 0, b - a, height] for (a, b), height in zip(runs, heights, strict=True)]
        found.append(Found(np.array(boxes, np.float32).reshape(-1, 4), np.linspace(0.9, 0.6, len(runs))))
    return found


def embed(images):
    colours = images.reshape(len(images), -1, 3).mean(axis=1)
    return colours / np.linalg.norm(colours, axis=1, keepdims=True)


see = face_encoder(detect, 0.5, embed, (12, 10), 0.0)


def painting(*faces, file_format="PNG"):
    """A file of rectangles side by side on black: (colour, width, height), in pixels that JPEG keeps apart."""
    canvas = np.zeros((64, 32 + sum(width + 32 for _, width, _ in faces), 3), np.uint8)
    left = 32
    for colour, width, height in faces:
        canvas[:height, left : left + width] = colour
        left += width + 32
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, file_format)
    return file.getvalue()


def coded(content):
    return base64.b64encode(content).decode()


ONE, TWO = painting((RED, 32, 48)), painting((GREEN, 16, 32), (MIXED, 48, 64))
BODY = {"source": coded(ONE), "target": coded(TWO)}


@contextmanager
def running(look=see, budget=500, rate=1000.0, keys=(KEY, OTHER), **limits):
    """Yield the address of a range on a free port."""
    ledger = AccountStore(keys, budget, rate)
    app = create_app(look, ledger, "v1", 75.0, 85, RequestLimits(**{"body_bytes": MAX_BODY} | limits))
    listener, servers = listen("127.0.0.1", 0), []
    thread = threading.Thread(target=serve, args=(app, listener, servers.append))
    thread.start()
    try:
        yield address(listener)
    finally:
        servers[0].should_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive()


def ask(url, body=BODY, key=KEY, **more):
    return requests.post(f"{url}/v1/compare", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=10, **more)


def usage(url, key=KEY):
    return requests.get(f"{url}/v1/usage", headers={"Authorization": f"Bearer {key}"}, timeout=10).json()


@pytest.fixture(scope="module")
def url():
    with running() as found:
        yield found


def test_the_likest_face_of_the_target_comes_first(url):
    said = ask(url)
    assert said.status_code == 200
    answer = said.json()
    wanted = [50 * (1 + 180 / np.hypot(180, 180)), 50.0]
    assert [face["similarity"] for face in answer["faces"]] == pytest.approx(wanted, abs=2)  # JPEG lets colours run
    assert answer["similarity"] == answer["faces"][0]["similarity"]
    boxes = [face["box"] for face in answer["faces"]]
    np.testing.assert_allclose(boxes, [[80, 0, 48, 64], [32, 0, 16, 32]], atol=1)
    np.testing.assert_allclose(answer["source"]["box"], [32, 0, 32, 48], atol=1)
    assert [face["score"] for face in answer["faces"]] == [0.6, 0.9]


def test_the_largest_face_of_the_source_counts(url):
    source = painting((GREEN, 16, 32), (BLUE, 64, 48), (RED, 32, 48))
    answer = ask(url, {"source": coded(source), "target": coded(painting((BLUE, 16, 16)))}).json()
    assert answer["similarity"] == pytest.approx(100, abs=0.2)
    np.testing.assert_allclose(answer["source"]["box"], [80, 0, 64, 48], atol=1)


def test_pictures_are_seen_through_jpeg():
    shown = []

    def look(picture):
        shown.append(picture)
        return see(picture)

    with running(look) as url:
        assert ask(url).status_code == 200
    for picture, content in zip(shown, (ONE, TWO), strict=True):
        file = io.BytesIO()
        Image.open(io.BytesIO(content)).save(file, "JPEG", quality=85)
        np.testing.assert_array_equal(picture, np.asarray(Image.open(file)))


def flat(width, height):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return coded(file.getvalue())


CUT = coded(ONE[: len(ONE) // 2])
TEXT = coded(b"no picture at all")
BLACK = coded(painting())
REFUSED = [
    ({"key": "wrong"}, 401, "key is wrong"),
    ({"key": ""}, 401, "key is wrong"),
    ({"body": BODY | {"target": CUT}}, 400, "target cannot be read as an image"),
    ({"body": BODY | {"source": TEXT}}, 415, r"source cannot be read as an image \(not an image\)"),
    ({"body": BODY | {"source": flat(65_501, 2)}}, 400, "^source has more than 65,500 pixels a side; send a smaller"),
    ({"body": BODY | {"target": flat(3, 70_000)}}, 400, "^target has more than 65,500 pixels a side; send a smaller"),
    ({"body": BODY | {"source": flat(65_500, 2)}}, 422, "no face in the source"),
    ({"body": BODY | {"source": "§§§"}}, 400, "source is not base64"),
    ({"body": BODY | {"target": 7}}, 400, "target is not base64"),
    ({"body": [1, 2]}, 400, "other keys than the two wanted"),
    ({"body": BODY | {"more": 1}}, 400, "other keys than the two wanted"),
    ({"body": BODY | {"target": "A" * MAX_BODY}}, 413, "more than 400,000 bytes"),
    ({"body": BODY | {"source": BLACK}}, 422, "no face in the source"),
    ({"body": BODY | {"target": BLACK}}, 422, "no face in the target"),
]


@pytest.mark.parametrize(("changes", "status", "sentence"), REFUSED)
def test_refuses_with_one_sentence_and_stays_up(url, changes, status, sentence):
    before = usage(url)["used"]
    said = ask(url, **changes)
    assert said.status_code == status
    assert said.json().keys() <= {"error", "missing"}
    assert said.json().get("missing") in (None, "source", "target")
    assert re.search(sentence, said.json()["error"])
    assert "\n" not in said.json()["error"]
    assert usage(url)["used"] == before + (status == 422)  # looking costs, being refused does not
    assert ask(url).status_code == 200


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[" * 200_000, "application/json", 400),
        (b"\xff\xfe\xfd", "application/json", 400),
        (b"", "application/json", 400),
        (b"{}", "text/plain", 415),
    ],
)
def test_refuses_what_is_not_json(url, content, kind, status):
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": kind}
    said = requests.post(f"{url}/v1/compare", data=content, headers=headers, timeout=10)
    assert said.status_code == status
    assert "JSON" in said.json()["error"]
    assert ask(url).status_code == 200


def test_other_addresses_and_methods(url):
    assert requests.get(f"{url}/health", timeout=10).json() == {"status": "ok", "version": "v1", "threshold": 75.0}
    for method, path, status in (("GET", "/v2", 404), ("GET", "/v1/compare", 405), ("GET", "/docs", 404)):
        said = requests.request(method, url + path, timeout=10)
        assert said.status_code == status
        assert "POST /v1/compare" in said.json()["error"]
    assert requests.get(f"{url}/v1/usage", timeout=10).status_code == 401


def test_large_bodies_of_strangers_are_not_held(url):
    """A client that sends on meanwhile gets the answer, no broken connection."""
    large = BODY | {"target": "A" * 8_000_000}
    assert ask(url, large, key="wrong").status_code == 401
    assert ask(url, large).status_code == 413
    assert ask(url).status_code == 200


def raw(url, *pieces):
    """Send pieces of a request, never its end, and return what comes back."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return connection.recv(4096).decode()


HEAD = f"POST /v1/compare HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {KEY}\r\n"


def test_the_limit_holds_while_the_body_is_read(url):
    declared = HEAD + f"Content-Length: {MAX_BODY + 1}\r\n\r\n"
    assert raw(url, declared.encode()).startswith("HTTP/1.1 413")
    chunk = b"10000\r\n" + b"A" * 65_536 + b"\r\n"
    chunked = HEAD + "Transfer-Encoding: chunked\r\n\r\n"
    assert raw(url, chunked.encode(), chunk * (MAX_BODY // 65_536 + 1)).startswith("HTTP/1.1 413")
    assert ask(url).status_code == 200


def test_slow_bodies_and_broken_connections():
    with running(body_seconds=0.2, held=1) as url:
        begun = HEAD + "Content-Length: 1000\r\n\r\n{"
        assert raw(url, begun.encode()).startswith("HTTP/1.1 408")
        host, port = url.removeprefix("http://").split(":")
        for _ in range(3):
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                connection.sendall(begun.encode())
        deadline = threading.Event()
        statuses = []
        while 200 not in statuses and len(statuses) < 50:  # the places of those who left are free again
            statuses.append(ask(url).status_code)
            deadline.wait(0.02)
        assert statuses[-1] == 200


def test_over_budget():
    with running(budget=2) as url:
        assert [ask(url).status_code for _ in range(2)] == [200, 200]
        said = ask(url)
        assert said.status_code == 402
        assert said.json()["error"].startswith("all 2 queries of this key are used up")
        assert usage(url) == {"used": 2, "budget": 2, "rate": 1000.0}
        assert ask(url, key=OTHER).status_code == 200
        assert requests.get(f"{url}/health", timeout=10).status_code == 200


def test_too_fast():
    with running(rate=0.5) as url:
        assert ask(url).status_code == 200
        said = ask(url)
        assert said.status_code == 429
        assert said.headers["Retry-After"] == "2"
        assert "more than 0.5 queries a second" in said.json()["error"]
        assert ask(url, key=OTHER).status_code == 200
        assert usage(url)["used"] == 1


def test_tokens_come_back_at_the_rate_and_no_faster():
    now = [100.0]
    ledger = AccountStore(["k"], 9, 2.0, lambda: now[0])
    account, taken = ledger.account("Bearer k"), []
    for step in (0, 0, 0, 0.25, 0.25, 100, 0, 0):
        now[0] += step
        try:
            ledger.take_token(account)
            taken.append(0.0)
        except ApiError as denied:
            taken.append(denied.wait)
    assert taken == [0, 0, 0.5, 0.25, 0, 0, 0, 0.5]


def at_once(count, call):
    """Return what ``call`` gives in threads at once."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(call())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return found


def test_two_clients_at_once():
    together = threading.Barrier(2, timeout=5)

    def look(picture):
        together.wait()  # passes only if both are worked on at the same time
        return see(picture)

    with running(look) as url:
        statuses = at_once(2, lambda: ask(url).status_code)
        assert statuses == [200, 200]


def test_work_and_waiting_are_bounded():
    inside, most, gate = [], [], threading.Event()

    def look(picture):
        inside.append(1)
        most.append(len(inside))
        gate.wait(5)
        inside.pop()
        return see(picture)

    with running(look, workers=2, held=5) as url:
        threading.Timer(1.0, gate.set).start()
        statuses = at_once(8, lambda: (lambda said: (said.status_code, said.headers.get("Retry-After")))(ask(url)))
        assert sorted(statuses, key=str) == [(200, None)] * 5 + [(503, "1")] * 3
        assert max(most) == 2
        assert ask(url).status_code == 200


def test_the_last_query_is_answered_once():
    with running(budget=1) as url:
        statuses = at_once(6, lambda: ask(url).status_code)
        assert sorted(statuses) == [200] + [402] * 5


def test_a_bug_is_an_answer_too_and_nothing_that_was_sent_is_logged(capfd, caplog):
    def look(picture):
        raise RuntimeError("the detector broke")

    with running(look) as url:
        said = ask(url)
        assert said.status_code == 500
        assert "others go on" in said.json()["error"]
        ask(url, key="wrong")
        assert requests.get(f"{url}/health", timeout=10).status_code == 200
    logged = "".join([*capfd.readouterr(), caplog.text])
    assert "the detector broke" in logged
    for secret in (KEY, coded(ONE)[:24], coded(TWO)[:24], "wrong"):
        assert secret not in logged


def test_keys_come_from_the_environment(monkeypatch):
    monkeypatch.setenv(KEYS_VARIABLE, " one, two ,,")
    assert keys_from_environment() == ["one", "two"]
    monkeypatch.setenv(KEYS_VARIABLE, " , ")
    with pytest.raises(UserError, match=f"{KEYS_VARIABLE} is not set"):
        keys_from_environment()
    for wrong in ("one,cléf", "one,t\two"):
        monkeypatch.setenv(KEYS_VARIABLE, wrong)
        with pytest.raises(UserError, match=f"{KEYS_VARIABLE} holds characters that no key has") as caught:
            keys_from_environment()
        assert "one" not in str(caught.value)


def test_a_taken_port_is_one_sentence():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"127.0.0.1:{port} cannot be listened on \(Address already in use\); choose"
        ):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match=r"^no\.such\.invalid:0 cannot be listened on \(no such address\); choose"):
        listen("no.such.invalid", 0)


def test_without_a_detector_the_picture_is_the_face():
    image = np.random.default_rng(3).integers(0, 256, (12, 10, 3), np.uint8)
    shown = []

    def keep(images):
        shown.append(images)
        return embed(images)

    seen = face_encoder(None, 0.5, keep, (12, 10), 0.3)(image)
    np.testing.assert_array_equal(shown[0], image[np.newaxis])
    np.testing.assert_array_equal(seen.boxes, [[0, 0, 10, 12]])
    face_encoder(None, 0.5, keep, (12, 10), 0.3)(np.full((45, 31, 3), 9, np.uint8))
    assert shown[1].shape == (1, 12, 10, 3)


def test_faces_below_the_threshold_are_none():
    picture = np.asarray(Image.open(io.BytesIO(TWO)))
    seen = face_encoder(detect, 0.7, embed, (12, 10), 0.0)(picture)
    np.testing.assert_array_equal(seen.boxes, [[32, 0, 16, 32]])
    assert len(face_encoder(detect, 0.95, embed, (12, 10), 0.0)(picture).embeddings) == 0


def test_crops_have_the_margin():
    crops = []

    def keep(images):
        crops.append(images)
        return embed(images)

    picture = np.zeros((64, 80, 3), np.uint8)
    picture[:40, 32:64] = RED
    face_encoder(detect, 0.5, keep, (40, 32), 0.0)(picture)
    assert (crops[0][0][1:-1, 1:-1].reshape(-1, 3) == RED).all()  # the outermost samples lie between two colours
    face_encoder(detect, 0.5, keep, (40, 32), 0.5)(picture)
    red = (crops[1][0][..., 0] > 125).mean()
    assert red == pytest.approx(0.5 * 0.75, abs=0.03)  # past the picture's top its first row goes on
