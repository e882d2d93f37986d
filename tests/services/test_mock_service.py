"""The mock service over real HTTP: its answers, its error messages, and that it stays up after each error."""

import io
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

import h11
import numpy as np
import pytest
import requests
from PIL import Image

from tests.support.mock_service import (
    BLUE,
    BODY,
    GREEN,
    KEY,
    MAX_BODY,
    ONE,
    OTHER_KEY,
    RED,
    TWO,
    compare,
    detect_one,
    draw_faces,
    embed,
    encode,
    encode_faces,
    running,
)
from visor.core.errors import UserError
from visor.core.server import DeadlineProtocol, listen
from visor.core.server import url as url_of
from visor.data import isolated_images
from visor.data.crops import CropBox, crop
from visor.models.detectors import Detections
from visor.services.accounts import KEYS_VARIABLE, AccountStore, ApiError
from visor.services.face_matching import face_encoder
from visor.services.http import keys_from_environment


def get_usage(url, key=KEY):
    return requests.get(f"{url}/v1/usage", headers={"Authorization": f"Bearer {key}"}, timeout=10).json()


@pytest.fixture(scope="module")
def url():
    with running() as address:
        yield address


def test_the_most_similar_face_of_the_target_comes_first(url):
    response = compare(url)
    assert response.status_code == 200
    answer = response.json()
    expected = [50 * (1 + 180 / np.hypot(180, 180)), 50.0]
    assert [face["similarity"] for face in answer["faces"]] == pytest.approx(expected, abs=2)  # JPEG blurs colours
    assert answer["similarity"] == answer["faces"][0]["similarity"]
    boxes = [face["box"] for face in answer["faces"]]
    np.testing.assert_allclose(boxes, [[80, 0, 48, 64], [32, 0, 16, 32]], atol=1)
    np.testing.assert_allclose(answer["source"]["box"], [32, 0, 32, 48], atol=1)
    assert [face["score"] for face in answer["faces"]] == [0.6, 0.9]


def test_the_largest_face_of_the_source_counts(url):
    source = draw_faces((GREEN, 16, 32), (BLUE, 64, 48), (RED, 32, 48))
    answer = compare(url, {"source": encode(source), "target": encode(draw_faces((BLUE, 16, 16)))}).json()
    assert answer["similarity"] == pytest.approx(100, abs=0.2)
    np.testing.assert_allclose(answer["source"]["box"], [80, 0, 64, 48], atol=1)


def test_images_are_re_encoded_as_jpeg():
    encoded = []

    def encoder(image):
        encoded.append(image)
        return encode_faces(image)

    with running(encoder) as url:
        assert compare(url).status_code == 200
    for image, content in zip(encoded, (ONE, TWO), strict=True):
        file = io.BytesIO()
        Image.open(io.BytesIO(content)).save(file, "JPEG", quality=85)
        np.testing.assert_array_equal(image, np.asarray(Image.open(file)))


def black_png(width, height):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return encode(file.getvalue())


CUT = encode(ONE[: len(ONE) // 2])
TEXT = encode(b"not an image")
BLACK = encode(draw_faces())
REJECTED = [
    ({"key": "wrong"}, 401, "invalid API key"),
    ({"key": ""}, 401, "invalid API key"),
    ({"body": BODY | {"target": CUT}}, 400, "target cannot be read as an image"),
    ({"body": BODY | {"source": TEXT}}, 415, r"source cannot be read as an image \(not an image\)"),
    (
        {"body": BODY | {"source": black_png(65_501, 2)}},
        400,
        "^source has more than 65,500 pixels a side; send a smaller",
    ),
    (
        {"body": BODY | {"target": black_png(3, 70_000)}},
        400,
        "^target has more than 65,500 pixels a side; send a smaller",
    ),
    ({"body": BODY | {"source": black_png(65_500, 2)}}, 422, "no face found in the source image"),
    ({"body": BODY | {"source": "§§§"}}, 400, "source is not base64"),
    ({"body": BODY | {"target": 7}}, 400, "target is not base64"),
    ({"body": [1, 2]}, 400, "other keys than source and target"),
    ({"body": BODY | {"more": 1}}, 400, "other keys than source and target"),
    ({"body": BODY | {"target": "A" * MAX_BODY}}, 413, "more than 400,000 bytes"),
    ({"body": BODY | {"source": BLACK}}, 422, "no face found in the source image"),
    ({"body": BODY | {"target": BLACK}}, 422, "no face found in the target image"),
]


@pytest.mark.parametrize(("changes", "status", "message"), REJECTED)
def test_an_invalid_request_is_rejected_with_one_sentence(url, changes, status, message):
    before = get_usage(url)["used"]
    response = compare(url, **changes)
    assert response.status_code == status
    assert response.json().keys() <= {"error", "missing"}
    assert response.json().get("missing") in (None, "source", "target")
    assert re.search(message, response.json()["error"])
    assert "\n" not in response.json()["error"]
    assert get_usage(url)["used"] == before + (status == 422)  # detection is charged, a rejection is not
    assert compare(url).status_code == 200


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[" * 200_000, "application/json", 400),
        (b"\xff\xfe\xfd", "application/json", 400),
        (b"", "application/json", 400),
        (b"{}", "text/plain", 415),
    ],
)
def test_a_body_that_is_not_json_is_rejected(url, content, content_type, status):
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": content_type}
    response = requests.post(f"{url}/v1/compare", data=content, headers=headers, timeout=10)
    assert response.status_code == status
    assert "JSON" in response.json()["error"]
    assert compare(url).status_code == 200


def test_unknown_paths_and_methods(url):
    assert requests.get(f"{url}/health", timeout=10).json() == {"status": "ok", "version": "v1", "threshold": 75.0}
    for method, path, status in (("GET", "/v2", 404), ("GET", "/v1/compare", 405), ("GET", "/docs", 404)):
        response = requests.request(method, url + path, timeout=10)
        assert response.status_code == status
        assert "POST /v1/compare" in response.json()["error"]
    assert len(requests.get(f"{url}/{'a' * 5000}", timeout=10).json()["error"]) < 150
    assert requests.get(f"{url}/v1/usage", timeout=10).status_code == 401


def test_large_bodies_are_not_held(url):
    """A client that goes on sending gets the answer instead of a broken connection."""
    large = BODY | {"target": "A" * 8_000_000}
    assert compare(url, large, key="wrong").status_code == 401
    assert compare(url, large).status_code == 413
    assert compare(url).status_code == 200


def send_raw(url, *pieces):
    """Send pieces of a request, but not its end, and return the response."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return connection.recv(4096).decode()


HEAD = f"POST /v1/compare HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {KEY}\r\n"


def test_the_limit_holds_while_the_body_is_read(url):
    declared = HEAD + f"Content-Length: {MAX_BODY + 1}\r\n\r\n"
    assert send_raw(url, declared.encode()).startswith("HTTP/1.1 413")
    chunk = b"10000\r\n" + b"A" * 65_536 + b"\r\n"
    chunked = HEAD + "Transfer-Encoding: chunked\r\n\r\n"
    assert send_raw(url, chunked.encode(), chunk * (MAX_BODY // 65_536 + 1)).startswith("HTTP/1.1 413")
    assert compare(url).status_code == 200


def test_slow_bodies_and_broken_connections():
    with running(body_seconds=0.2, held=1) as url:
        start = HEAD + "Content-Length: 1000\r\n\r\n{"
        assert send_raw(url, start.encode()).startswith("HTTP/1.1 408")
        host, port = url.removeprefix("http://").split(":")
        for _ in range(3):
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                connection.sendall(start.encode())
        deadline = threading.Event()
        statuses = []
        while 200 not in statuses and len(statuses) < 50:  # until the slots of the closed connections are free
            statuses.append(compare(url).status_code)
            deadline.wait(0.02)
        assert statuses[-1] == 200


def stall(url, head, count):
    """Return connections that sent a part of a request."""
    host, port = url.removeprefix("http://").split(":")
    connections = [socket.create_connection((host, int(port)), timeout=5) for _ in range(count)]
    for connection in connections:
        connection.sendall(head.encode())
    return connections


def test_stalled_bodies_of_one_key_do_not_lock_out_another():
    with running(held=3) as url:
        stalled = stall(url, HEAD + "Content-Length: 1000\r\n\r\n{", 3)
        try:
            deadline, first = threading.Event(), compare(url)
            while first.status_code == 200 and not deadline.wait(0.02):  # until the service has read the three heads
                first = compare(url)
            assert (first.status_code, first.headers["Retry-After"]) == (503, "1")
            assert "more than 3 requests of this key at once" in first.json()["error"]
            assert [compare(url, key=OTHER_KEY).status_code for _ in range(3)] == [200] * 3
        finally:
            for connection in stalled:
                connection.close()


def test_late_headers_and_bodies_are_dropped(monkeypatch):
    monkeypatch.setattr(DeadlineProtocol, "seconds", {h11.IDLE: 2.0, h11.SEND_BODY: 2.0})
    whole = "GET /health HTTP/1.1\r\nHost: x\r\n"
    with running() as url:
        silent, half, later, body = (
            stall(url, request, 1)[0] for request in ("", whole, whole + "\r\n", whole + "Content-Length: 9\r\n\r\n{")
        )
        assert answer(later).startswith(b"HTTP/1.1 200")
        for connection in (silent, half):
            assert connection.recv(4096) == b""
        assert answer(body).startswith(b"HTTP/1.1 200")  # an answer that needs no body ends no deadline
        later.sendall(b"GET /health ")  # the connection is kept, and each request has a deadline of its own
        later.sendall(b"HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(later).startswith(b"HTTP/1.1 200")
        later.sendall(b"GET /health ")
        for connection in (later, body):
            assert dropped(connection)
            connection.close()


def answer(connection):
    """Return a whole answer of the service, which may come in pieces."""
    received = b""
    while not received.endswith(b"}") and (piece := connection.recv(4096)):
        received += piece
    return received


def dropped(connection):
    """Return whether the server ends a connection; it does not wait for what the client still owes."""
    try:
        return connection.recv(4096) == b""
    except ConnectionResetError:
        return True


def test_an_answer_may_take_longer_than_the_deadlines(monkeypatch):
    monkeypatch.setattr(DeadlineProtocol, "seconds", {h11.IDLE: 1.0, h11.SEND_BODY: 1.0})

    def encoder(image):
        threading.Event().wait(1.2)
        return encode_faces(image)

    with running(encoder) as url:
        assert compare(url).status_code == 200


def test_a_bomb_is_decoded_within_limits(monkeypatch):
    """A file of 140 kB has 147 MB of pixels: its decoder has 512 MiB in all, libraries included."""
    monkeypatch.setattr(isolated_images, "MEMORY", 512 << 20)
    with running() as url:
        response = compare(url, BODY | {"target": black_png(7000, 7000)})
        assert response.status_code == 400
        assert "target cannot be read as an image (decoding it takes too much " in response.json()["error"]
        assert compare(url).status_code == 200
        response = compare(url, BODY | {"target": black_png(7000, 7200)})
        assert response.status_code == 400
        assert "7000×7200 pixels, more than" in response.json()["error"]


def test_over_budget():
    with running(budget=2) as url:
        assert [compare(url).status_code for _ in range(2)] == [200, 200]
        response = compare(url)
        assert response.status_code == 402
        assert response.json()["error"].startswith("query budget of 2 exhausted for this key")
        assert get_usage(url) == {"used": 2, "budget": 2, "rate": 1000.0}
        assert compare(url, key=OTHER_KEY).status_code == 200
        assert requests.get(f"{url}/health", timeout=10).status_code == 200


def test_too_fast():
    with running(rate=0.001) as url:
        assert compare(url).status_code == 200
        response = compare(url)
        assert response.status_code == 429
        assert 900 < int(response.headers["Retry-After"]) <= 1000
        assert "rate limit of 0.001 queries per second exceeded" in response.json()["error"]
        assert compare(url, key=OTHER_KEY).status_code == 200
        assert get_usage(url)["used"] == 1


def test_tokens_refill_at_the_rate():
    now = [100.0]
    accounts = AccountStore(["k"], 9, 2.0, lambda: now[0])
    account, waits = accounts.account("Bearer k"), []
    for step in (0, 0, 0, 0.25, 0.25, 100, 0, 0):
        now[0] += step
        try:
            accounts.take_token(account)
            waits.append(0.0)
        except ApiError as error:
            waits.append(error.wait)
    assert waits == [0, 0, 0.5, 0.25, 0, 0, 0, 0.5]


def run_in_threads(count, function):
    """Return the results of ``function`` called in parallel threads."""
    with ThreadPoolExecutor(count) as pool:
        return [future.result(20) for future in [pool.submit(function) for _ in range(count)]]


def test_two_clients_at_once():
    barrier = threading.Barrier(2, timeout=5)

    def encoder(image):
        barrier.wait()  # passes only if both are processed at the same time
        return encode_faces(image)

    with running(encoder) as url:
        statuses = run_in_threads(2, lambda: compare(url).status_code)
        assert statuses == [200, 200]


def test_processed_and_waiting_requests_are_limited():
    active, counts, entered, gate = [], [], threading.Semaphore(0), threading.Event()

    def encoder(image):
        active.append(1)
        counts.append(len(active))
        entered.release()
        gate.wait(60)
        active.pop()
        return encode_faces(image)

    with running(encoder, workers=2, held=5) as url, ThreadPoolExecutor(8) as pool:
        requests_sent = [pool.submit(compare, url) for _ in range(8)]
        refused = as_completed(requests_sent)
        for _ in range(3):
            next(refused)
        for _ in range(2):
            assert entered.acquire(timeout=60)
        gate.set()
        responses = [request.result(60) for request in requests_sent]
        statuses = [(response.status_code, response.headers.get("Retry-After")) for response in responses]
        assert sorted(statuses, key=str) == [(200, None)] * 5 + [(503, "1")] * 3
        assert max(counts) == 2
        assert compare(url).status_code == 200


def test_the_last_query_is_charged_once():
    with running(budget=1) as url:
        statuses = run_in_threads(6, lambda: compare(url).status_code)
        assert sorted(statuses) == [200] + [402] * 5


def test_an_internal_error_is_answered_and_logs_no_request(capfd, caplog):
    def encoder(image):
        raise RuntimeError("the detector broke")

    with running(encoder) as url:
        response = compare(url)
        assert response.status_code == 500
        assert "internal error; see the service's log" in response.json()["error"]
        compare(url, key="wrong")
        assert requests.get(f"{url}/health", timeout=10).status_code == 200
    logged = "".join([*capfd.readouterr(), caplog.text])
    assert "the detector broke" in logged
    for secret in (KEY, encode(ONE)[:24], encode(TWO)[:24], "wrong"):
        assert secret not in logged


def read_keys():
    return keys_from_environment(KEYS_VARIABLE, "a comma-separated list of API keys", ",")


def test_keys_come_from_the_environment(monkeypatch):
    monkeypatch.setenv(KEYS_VARIABLE, " one, two ,,")
    assert read_keys() == ["one", "two"]
    monkeypatch.setenv(KEYS_VARIABLE, " , ")
    with pytest.raises(UserError, match=f"{KEYS_VARIABLE} is not set; set it to a comma-separated list of API keys"):
        read_keys()
    for wrong in ("one,cléf", "one,t\two"):
        monkeypatch.setenv(KEYS_VARIABLE, wrong)
        with pytest.raises(UserError, match=f"{KEYS_VARIABLE} contains characters other than printable") as caught:
            read_keys()
        assert "one" not in str(caught.value)


def test_the_former_name_of_the_variable_is_read(monkeypatch):
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    monkeypatch.setenv("VISOR_RANGE_KEYS", "former")
    assert read_keys() == ["former"]
    monkeypatch.setenv(KEYS_VARIABLE, "current")
    assert read_keys() == ["current"]


def test_an_unavailable_address_is_one_sentence():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen on 127.0.0.1:{port} \(Address already in use\); choose"):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match=r"^cannot listen on no\.such\.invalid:0 \(no such address\); choose"):
        listen("no.such.invalid", 0)


def test_urls_of_listeners():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}"
        assert url_of(listener, tls=True) == f"https://localhost:{port}"  # certificates are for names


def record_crops(crops):
    """Return ``embed`` that keeps the crops it gets."""
    return lambda images: crops.append(images) or embed(images)


def test_without_a_detector_the_image_is_the_face():
    image, crops = np.random.default_rng(3).integers(0, 256, (12, 10, 3), np.uint8), []
    faces = face_encoder(None, record_crops(crops), (12, 10), 0.3)(image)
    np.testing.assert_array_equal(crops[0], image[np.newaxis])
    np.testing.assert_array_equal(faces.boxes, [[0, 0, 10, 12]])
    face_encoder(None, record_crops(crops), (12, 10), 0.3)(np.full((45, 31, 3), 9, np.uint8))
    assert crops[1].shape == (1, 12, 10, 3)


def test_boxes_without_area_are_not_faces():
    image = np.asarray(Image.open(io.BytesIO(TWO)))
    boxes = np.array([[32, 0, 16, 32], [80, 0, 0.5, 64]], np.float32)
    detections = Detections(boxes, np.array([0.9, 0.8], np.float32))
    faces = face_encoder(lambda _: detections, embed, (12, 10), 0.0)(image)
    np.testing.assert_array_equal(faces.boxes, boxes[:1])
    nothing = Detections(boxes[:0], detections.scores[:0])
    assert len(face_encoder(lambda _: nothing, embed, (12, 10), 0.0)(image).embeddings) == 0


def test_crops_are_aligned_for_a_network_with_a_template():
    from skimage.data import astronaut

    template, crops = ((47.7 / 150, 47.1 / 150), (100.3 / 150, 47.1 / 150)), []
    detections = Detections(
        np.array([[170, 60, 110, 130], [0, 400, 60, 60]], np.float32), np.array([0.9, 0.8], np.float32)
    )
    face_encoder(lambda _: detections, record_crops(crops), (48, 48), 0.1, template)(astronaut())
    aligned, plain = crops[0]
    expected = crop(astronaut(), CropBox(164.4, 63.6, 119.5, 119.5, 2.92), (48, 48)).astype(float)
    assert np.abs(aligned - expected).mean() < 8
    assert (plain == crop(astronaut(), CropBox(-6, 394, 72, 72), (48, 48))).all()  # no face: its margin


def test_crops_have_the_margin():
    image, crops = np.zeros((64, 80, 3), np.uint8), []
    image[:40, 32:64] = RED
    face_encoder(detect_one, record_crops(crops), (40, 32), 0.0)(image)
    assert (crops[0][0][1:-1, 1:-1].reshape(-1, 3) == RED).all()  # the outermost samples lie between two colours
    face_encoder(detect_one, record_crops(crops), (40, 32), 0.5)(image)
    red = (crops[1][0][..., 0] > 125).mean()
    assert red == pytest.approx(0.5 * 0.75, abs=0.03)  # above the image its first row is repeated
