"""Clients of face-comparison services: the mock service, Rekognition's stub, recorded exchanges of a JSON service."""

import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from tests.support.mock_service import KEY, MAX_BODY, ONE, TWO, draw_faces, encode, running
from tests.support.project import ROOT
from visor.core.errors import UserError
from visor.services import http, json_service, mock_client, open_service, rekognition
from visor.services.answer_cache import QueryCounter, cached_compare, digest
from visor.services.base import (
    BudgetExhausted,
    Comparison,
    ComparisonService,
    ImageRejected,
    MatchedFace,
    parse_similarity,
)

NO_FACE = draw_faces()


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(mock_client.KEY_VARIABLE, KEY)


@pytest.fixture
def waits(monkeypatch):
    """Seconds of each wait, none of which pass."""
    seconds = []
    monkeypatch.setattr("time.sleep", seconds.append)
    return seconds


class Recording(BaseHTTPRequestHandler):
    """Answers with the exchanges of the server's list, in their order."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.path, dict(self.headers), json.loads(body or b"null")))
        status, headers, answer = self.server.exchanges.pop(0)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        self.do_POST()  # with no body

    def log_message(self, *_):
        pass


@pytest.fixture
def recorded():
    with ThreadingHTTPServer(("127.0.0.1", 0), Recording) as httpd:
        httpd.requests, httpd.exchanges = [], []
        httpd.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield httpd
        httpd.shutdown()


def test_the_mock_service_answers():
    with running(budget=3) as url:
        service = open_service("mock", url)
        assert service.threshold == 75.0
        assert service.identity == f"range {url} v1"
        answer = service.compare(ONE, TWO)
        assert answer.similarity == pytest.approx(85.4, abs=2)
        assert [face.similarity for face in answer.faces] == [answer.similarity, pytest.approx(50, abs=2)]
        assert answer.faces[0].box == pytest.approx((80, 0, 48, 64), abs=1)
        assert service.compare(NO_FACE, ONE) == Comparison(None, (), "source")
        assert service.compare(ONE, NO_FACE) == Comparison(None, (), "target")
        with pytest.raises(BudgetExhausted, match=r"query budget of 3 exhausted .*\(402\); restart the service"):
            service.compare(ONE, TWO)


def test_the_mock_service_rejects_images():
    with running() as url:
        service = open_service("mock", url)
        with pytest.raises(ImageRejected, match="target cannot be read as an image"):
            service.compare(ONE, b"text")
        with pytest.raises(ImageRejected, match="source cannot be read as an image"):
            service.compare(ONE[:-40], TWO)
        with pytest.raises(ImageRejected, match="more than 400,000 bytes"):
            service.compare(ONE, bytes(MAX_BODY))
        assert service.compare(ONE, ONE).similarity == pytest.approx(100, abs=0.1)


def test_messages_about_keys_do_not_contain_them(monkeypatch):
    with running() as url:
        monkeypatch.setenv(mock_client.KEY_VARIABLE, "not-the-key")
        with pytest.raises(UserError, match=r"rejects the key \(401\); set VISOR_MOCK_KEY") as caught:
            open_service("mock", url).compare(ONE, TWO)
        assert "not-the-key" not in str(caught.value)
        monkeypatch.setenv(mock_client.KEY_VARIABLE, "clef\u00e9\n")
        with pytest.raises(UserError, match="characters other than printable ASCII") as caught:
            open_service("mock", url)
        assert "clef" not in str(caught.value)
        monkeypatch.delenv(mock_client.KEY_VARIABLE)
        with pytest.raises(UserError, match="VISOR_MOCK_KEY is not set"):
            open_service("mock", url)


def test_the_rate_limit_is_waited_for():
    with running(rate=2.5) as url:
        service = open_service("mock", url)
        assert [service.compare(ONE, ONE).missing for _ in range(4)] == [""] * 4


def test_no_service_and_another_service(recorded):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match="does not answer; start one with `visor mock-service`"):
            open_service("mock", f"http://127.0.0.1:{closed.getsockname()[1]}")
    for health in (b"<html>", b"[" * 100_000, [], {"version": "v", "threshold": float("nan")}, {"threshold": 50}):
        recorded.exchanges = [(200, {}, health)]
        with pytest.raises(UserError, match="is not a Visor mock service"):
            open_service("mock", recorded.url)
    with pytest.raises(UserError, match=r"--service azure is unknown; choose mock or rekognition, or .*FILE\.yaml"):
        open_service("azure", None)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "http://192.0.2.7:8000",
            r"http://192\.0\.2\.7:8000 would send the API key unencrypted; use an https",
        ),
        ("http://127.0.0.1@example.invalid", "would send the API key unencrypted"),
        ("localhost:8000", "localhost:8000 is not a URL; begin it with https://, or with http:// on this machine"),
        ("127.0.0.1:8000", "is not a URL; begin it"),
        ("ftp://127.0.0.1", "is not a URL; begin it"),
        ("http://", "is not a URL; begin it"),
        ("http://[::1", "is not a URL; begin it"),
        ("https://a..b/", "is not a URL; begin it"),
        (f"https://{'a' * 64}.com/", "is not a URL; begin it"),
        ("http://[::1]:99999/", "is not a URL; begin it"),
        ("http://127.0.0.1:x/", "is not a URL; begin it"),
    ],
)
def test_keys_are_not_sent_unencrypted(url, message, monkeypatch):
    monkeypatch.setattr(requests.Session, "send", lambda *_, **__: pytest.fail("something was sent"))
    with pytest.raises(UserError, match=f"--url .*{message}"):
        open_service("mock", url)


def test_safe_addresses():
    for url in ("https://example.invalid/x", "http://localhost:1", "http://127.0.0.1", "http://[::1]:8000"):
        http.check_https(url, "--url")


INVALID_SIMILARITIES = [float("nan"), float("inf"), -0.001, 100.001, 10**400, None, "x", [1]]


@pytest.mark.parametrize("value", INVALID_SIMILARITIES)
def test_invalid_similarities_are_errors(recorded, acme, value):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        parse_similarity(value)
    recorded.exchanges = [(200, {}, {"version": "v", "threshold": 50})]
    service = open_service("mock", recorded.url)
    face = {"box": [0, 0, 1, 1], "similarity": 50}
    for answer in ({"similarity": value, "faces": [face]}, {"similarity": 50, "faces": [face | {"similarity": value}]}):
        recorded.exchanges = [(200, {}, answer)]
        with pytest.raises(UserError, match="with unexpected JSON"):
            service.compare(b"one", b"two")
    acme.write_text(acme.read_text().replace("scale: 1e2", "scale: 1"))
    for total, face in ((value, 50), (50, value)):
        answer = {"result": {"confidence": total, "candidates": [{"place": [1, 2, 3, 4], "confidence": face}]}}
        recorded.exchanges = [(200, {}, answer)]
        with pytest.raises(UserError, match=r"is not as described .* correct its paths or scale"):
            open_service(str(acme), None).compare(b"one", b"two")


def test_valid_similarities():
    assert [parse_similarity(value) for value in (0, 100, "62.5")] == [0.0, 100.0, 62.5]


@pytest.mark.parametrize(("scale", "warnings"), [("", 1), ("scale: 1", 0), ("scale: 100", 0)])
def test_a_missing_scale_is_reported_once(recorded, acme, capsys, scale, warnings):
    acme.write_text(acme.read_text().replace("scale: 1e2", scale))
    answers = [{"result": {"confidence": value, "candidates": []}} for value in (0.0, 0.5, 0.25)]
    recorded.exchanges = [(200, {}, answer) for answer in answers]
    service = open_service(str(acme), None)
    service.compare(b"one", b"two")
    assert capsys.readouterr().err == ""
    service.compare(b"one", b"two")
    service.compare(b"one", b"two")
    printed = capsys.readouterr().err
    assert (
        printed.count("a similarity is below 1 of 100; if the service's own go up to 1, add scale: 100\n") == warnings
    )
    assert printed.count("\n") == warnings


@pytest.fixture
def session():
    with http.open_session("X-Api-Key", "a key") as session:
        yield session


def test_overload_is_retried(recorded, waits, session):
    recorded.exchanges = [
        (429, {"Retry-After": "3"}, {}),
        (503, {}, b""),
        (500, {"Retry-After": "soon"}, {}),
        (200, {}, [7]),
    ]
    assert http.post(session, recorded.url, {"a": 1}) == (200, b"[7]")
    assert waits == [3, 1.0, 2.0]
    assert [body for _, _, body in recorded.requests] == [{"a": 1}] * 4
    assert all(headers["X-Api-Key"] == "a key" for _, headers, _ in recorded.requests)


def test_retries_are_limited(recorded, waits, session):
    recorded.exchanges = [(503, {}, {})] * 9
    with pytest.raises(UserError, match=r"does not answer \(status 503, 5 attempts\)"):
        http.post(session, recorded.url, {})
    assert (len(recorded.requests), waits) == (5, [0.5, 1, 2, 4])
    recorded.exchanges = [(429, {"Retry-After": "3600"}, {})]
    with pytest.raises(UserError, match=f"{recorded.url} asks to wait 3600 s; run again later"):
        http.post(session, recorded.url, {})
    assert len(waits) == 4


def test_an_image_that_is_too_large_is_not_retried(recorded, waits, session):
    recorded.exchanges = [(413, {"Retry-After": "3"}, {})]
    assert http.post(session, recorded.url, {}).status == 413
    assert not waits


def test_broken_connections_are_retried(waits, session, capfd):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match=r"does not answer \(ConnectionError, 5 attempts\)"):
            http.post(session, f"http://127.0.0.1:{closed.getsockname()[1]}", {})
    assert waits == [0.5, 1, 2, 4]
    assert capfd.readouterr().err == ""


def test_long_answers_are_errors(recorded, monkeypatch, session):
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 100_000)
    recorded.exchanges = [(200, {}, bytes(300_000))]
    with pytest.raises(UserError, match="more than 0 MiB"):
        http.post(session, recorded.url, {})
    recorded.exchanges = [(200, {}, bytes(300_000))]
    with pytest.raises(UserError, match="more than 0 MiB"):
        open_service("mock", recorded.url)


DESCRIPTION = """
url: {url}/v3/verify?mode=fast
key: ACME_KEY
header: X-Api-Key
prefix: "Token "
request: {{model: best, options: {{faces: all}}}}
source: images.first
target: images.second
similarity: result.confidence
scale: 1e2
threshold: 62.5
faces: result.candidates
box: [place.0, place.1, place.2, place.3]
face_similarity: confidence
no_face: {{status: 200, place: result.code, value: NO_FACE}}
"""
RECORDED = {
    "result": {
        "confidence": 0.734,
        "candidates": [
            {"place": [1, 2, 30, 41], "confidence": 0.734},
            {"place": [50.5, 2, 31, 40], "confidence": 0.1},
        ],
    }
}


@pytest.fixture
def acme(recorded, tmp_path, monkeypatch):
    monkeypatch.setenv("ACME_KEY", "s3cret")
    path = tmp_path / "acme.yaml"
    path.write_text(DESCRIPTION.format(url=recorded.url))
    return path


def test_a_recorded_exchange(recorded, acme):
    recorded.exchanges = [(200, {}, RECORDED), (200, {}, {"result": {"code": "NO_FACE"}})]
    service = open_service(str(acme), None)
    assert (service.name, service.threshold) == ("acme", 62.5)
    faces = (MatchedFace((1, 2, 30, 41), 73.4), MatchedFace((50.5, 2, 31, 40), 10.0))
    assert service.compare(b"one", b"two") == Comparison(73.4, faces)
    assert service.compare(b"two", b"one") == Comparison(None, (), "either")
    (path, headers, body), (_, _, again) = recorded.requests
    assert path == "/v3/verify?mode=fast"
    assert headers["X-Api-Key"] == "Token s3cret"
    assert "Authorization" not in headers
    expected = {
        "model": "best",
        "options": {"faces": "all"},
        "images": {"first": encode(b"one"), "second": encode(b"two")},
    }
    assert body == expected
    assert again["images"] == {"first": encode(b"two"), "second": encode(b"one")}


@pytest.mark.parametrize(
    ("exchange", "kind", "message"),
    [
        ((401, {}, {}), UserError, r"rejects the key \(401\); check ACME_KEY"),
        ((402, {}, {}), BudgetExhausted, r"quota is used up \(402\)"),
        ((413, {}, {}), ImageRejected, "the service answers 413"),
        ((302, {"Location": "http://127.0.0.1:9/"}, {}), UserError, "the service answers 302"),
        ((200, {}, b"<html>"), UserError, "200 with a body that is not JSON"),
        ((200, {}, {"result": {}}), UserError, "not as described"),
        ((200, {}, {"result": {"confidence": None}}), UserError, "not as described"),
        (
            (200, {}, {"result": {"confidence": 0.5, "candidates": [{"place": [1]}]}}),
            UserError,
            "not as described",
        ),
    ],
)
def test_recorded_errors(recorded, acme, exchange, kind, message):
    recorded.exchanges = [exchange]
    with pytest.raises(kind, match=message) as caught:
        open_service(str(acme), None).compare(b"one", b"two")
    assert "s3cret" not in str(caught.value)
    assert len(recorded.requests) == 1


def test_a_netrc_does_not_replace_the_key(recorded, acme, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    acme.write_text(acme.read_text().replace("X-Api-Key", "Authorization"))
    recorded.exchanges = [(200, {}, RECORDED)]
    open_service(str(acme), None).compare(b"one", b"two")
    assert recorded.requests[0][1]["Authorization"] == "Token s3cret"


HEADERS = ('"Key\\nMore"', '"Schlüssel"', '"X Key"', '""')  # what no header of HTTP may be


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("scale: 1e2", "scale: much", "scale is 'much', but"),
        *(("header: X-Api-Key", f"header: {value}", "header is .*, but string should match") for value in HEADERS),
        *(('prefix: "Token "', f"prefix: {value}", "prefix is .*, but string should match") for value in HEADERS[:2]),
        ("scale: 1e2", "scales: 1", "scales is not a known key; allowed here: url, key"),
        ("source: images.first", "", "source is missing; add it"),
        ("{{", "{{[", "is not YAML"),
        ("url: ", "url: http://example.invalid/#", "would send the API key unencrypted"),
        ("url: ", "url: ftp://", "url ftp://.* is not a URL; begin it with"),
        ("images.first", "images", "source images and target images.second cannot be set in the request; correct"),
        ("images.second", "images", "source images.first and target images cannot be set in the request; correct"),
        ("images.second", "images.first", "cannot be set in the request; correct"),
        ("images.second", "model.second", "cannot be set in the request; correct"),
    ],
)
def test_descriptions_are_checked(acme, recorded, old, new, message):
    text = DESCRIPTION.replace(old, new, 1).format(url=recorded.url) if old != "{{" else "{["
    acme.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        open_service(str(acme), None)
    assert "\n" not in str(caught.value)


def test_a_description_without_file_or_key(acme, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"none\.yaml is missing"):
        open_service(str(tmp_path / "none.yaml"), None)
    monkeypatch.delenv("ACME_KEY")
    with pytest.raises(UserError, match="ACME_KEY is not set; set it to the API key of acme"):
        open_service(str(acme), None)


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """A client without a network, and the stubber that answers in its place."""
    boto3 = pytest.importorskip("boto3")
    from botocore.stub import Stubber

    for name, value in (("ACCESS_KEY_ID", "AKIA"), ("SECRET_ACCESS_KEY", "s3cret"), ("DEFAULT_REGION", "eu-west-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    client = boto3.client("rekognition")
    with Stubber(client) as stubber:
        yield rekognition.from_client(client), stubber
        stubber.assert_no_pending_responses()


def rekognition_request(source, target):
    return {
        "SourceImage": {"Bytes": source},
        "TargetImage": {"Bytes": target},
        "SimilarityThreshold": 0.0,
        "QualityFilter": "NONE",
    }


def test_rekognition(aws):
    service, stubber = aws
    box = {"Left": 0.5, "Top": 0.25, "Width": 0.125, "Height": 0.5}
    matches = [{"Similarity": value, "Face": {"BoundingBox": box, "Confidence": 99.0}} for value in (91.5, 12.25)]
    stubber.add_response(
        "compare_faces", {"FaceMatches": matches, "UnmatchedFaces": [{}]}, rekognition_request(ONE, TWO)
    )
    stubber.add_response("compare_faces", {"FaceMatches": [], "UnmatchedFaces": [{}]}, rekognition_request(TWO, ONE))
    stubber.add_response("compare_faces", {"FaceMatches": [], "UnmatchedFaces": []}, rekognition_request(ONE, ONE))
    assert service.threshold == 80
    assert service.identity == "rekognition https://rekognition.eu-west-1.amazonaws.com"
    assert service.compare(ONE, TWO) == Comparison(
        91.5, (MatchedFace(None, 91.5), MatchedFace(None, 12.25), MatchedFace(None, 0.0))
    )
    assert service.compare(TWO, ONE) == Comparison(0.0, (MatchedFace(None, 0.0),))
    assert service.compare(ONE, ONE) == Comparison(None, (), "target")


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("ImageTooLargeException", ImageRejected, "Rekognition reports ImageTooLarge"),
        ("InvalidImageFormatException", ImageRejected, "Rekognition reports InvalidImageFormat"),
        ("AccessDeniedException", UserError, "allow rekognition:CompareFaces"),
        ("UnrecognizedClientException", UserError, "check AWS_ACCESS_KEY_ID"),
        ("ProvisionedThroughputExceededException", UserError, "run again later"),
        ("SomethingNewException", UserError, r"rejects the request \(SomethingNewException\)"),
    ],
)
def test_rekognition_errors(aws, code, kind, message):
    service, stubber = aws
    stubber.add_client_error("compare_faces", code)
    with pytest.raises(kind, match=message) as caught:
        service.compare(ONE, TWO)
    assert "s3cret" not in str(caught.value)


def test_rekognition_reports_a_missing_face_by_an_error(aws):
    service, stubber = aws
    stubber.add_client_error("compare_faces", "InvalidParameterException", "Request has invalid parameters")
    assert service.compare(ONE, TWO) == Comparison(None, (), "either")


def test_rekognition_gets_only_formats_that_it_reads(aws):
    service, _ = aws
    for image, message in ((draw_faces(file_format="BMP"), "neither PNG nor JPEG"), (ONE + bytes(5 << 20), "5 MiB")):
        with pytest.raises(ImageRejected, match=message):
            service.compare(ONE, image)


def test_rekognition_without_boto3_or_region(monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UserError, match="set AWS_DEFAULT_REGION"):
        open_service("rekognition", None)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UserError, match=r"pip install 'visor\[cloud\]'"):
        open_service("rekognition", None)


def scripted_service(answers, identity="a service"):
    """A service that gives each answer once, and the list of its queries."""
    queries = []

    def compare(source, target):
        queries.append((source, target))
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return ComparisonService("scripted", identity, None, compare), queries


FACES = Comparison(61.5, (MatchedFace((1.5, 2, 3, 4), 61.5), MatchedFace(None, None)))


def test_answers_are_cached(tmp_path):
    service, queries = scripted_service([FACES, Comparison(None, (), "source"), Comparison(3.0)])
    counter = QueryCounter()
    for _ in range(3):
        compare = cached_compare(service, tmp_path / "answers", None, counter)
        assert compare(b"a", b"bc") == FACES
        assert compare(b"ab", b"c") == Comparison(None, (), "source")
        assert compare(b"bc", b"a") == Comparison(3.0)
    assert queries == [(b"a", b"bc"), (b"ab", b"c"), (b"bc", b"a")]
    assert (counter.queried, counter.cached) == (3, 6)


def test_the_cache_belongs_to_one_service(tmp_path):
    counter = QueryCounter()
    for identity in ("range v1", "range v2"):
        service, _ = scripted_service([Comparison(float(identity[-1]))], identity)
        assert cached_compare(service, tmp_path, None, counter)(b"a", b"b").similarity == float(identity[-1])
    assert (counter.queried, counter.cached) == (2, 0)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"faces": []}',
        '{"similarity": "x", "faces": [], "missing": ""}',
        '{"similarity": NaN, "faces": [], "missing": ""}',
    ],
)
def test_a_damaged_answer_is_queried_again(tmp_path, content):
    service, queries = scripted_service([FACES])
    path = tmp_path / f"{digest(service.identity, b'a', b'b')}.json"
    path.write_text(content)
    assert cached_compare(service, tmp_path, None, QueryCounter())(b"a", b"b") == FACES
    assert len(queries) == 1
    service, queries = scripted_service([])
    assert cached_compare(service, tmp_path, None, QueryCounter())(b"a", b"b") == FACES


def test_the_budget_of_a_run(tmp_path):
    service, queries = scripted_service([Comparison(1.0), ImageRejected("too small"), Comparison(2.0)])
    counter = QueryCounter()
    compare = cached_compare(service, tmp_path, 2, counter)
    compare(b"a", b"b")
    with pytest.raises(ImageRejected):
        compare(b"a", b"c")
    assert compare(b"a", b"b") == Comparison(1.0)
    with pytest.raises(BudgetExhausted, match="all 2 queries of --budget are used; run again"):
        compare(b"a", b"d")
    assert len(queries) == 2
    assert len(list(tmp_path.iterdir())) == 1  # a rejection costs nothing and is not cached


def test_retries_are_not_charged(recorded, acme, waits, tmp_path):
    recorded.exchanges = [(503, {}, {})] * (http.ATTEMPTS - 1) + [(200, {}, RECORDED)]
    counter = QueryCounter()
    compare = cached_compare(open_service(str(acme), None), tmp_path / "answers", 1, counter)
    assert compare(b"a", b"b").similarity == 73.4
    assert (counter.queried, len(recorded.requests), len(waits)) == (
        1,
        5,
        4,
    )  # docs/services.md: at most 4 retries each
    with pytest.raises(BudgetExhausted):
        compare(b"b", b"a")


def test_cached_answers_contain_no_key_and_no_image(tmp_path):
    with running() as url:
        cached_compare(open_service("mock", url), tmp_path, None, QueryCounter())(ONE, TWO)
    (file,) = tmp_path.iterdir()
    assert KEY not in file.read_text() + file.name
    assert encode(ONE)[:16] not in file.read_text()
    assert json.loads(file.read_text()).keys() == {"similarity", "faces", "missing"}


def test_the_description_in_the_docs(tmp_path):
    page = (ROOT / "docs/services.md").read_text()
    (block,) = [part.split("```")[0] for part in page.split("```yaml\n")[1:]]
    path = tmp_path / "documented.yaml"
    path.write_text(block)
    assert json_service.read(path).url.startswith("https://")
    for name in json_service.ServiceDescription.model_fields:
        assert f"`{name}`" in page, name
