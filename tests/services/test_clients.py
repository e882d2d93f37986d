"""Clients of face-comparison services: the range, Rekognition's stub, and recorded exchanges of a JSON service."""

import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from tests.services.test_mock_service import KEY, MAX_BODY, ONE, TWO, coded, painting, running
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

NO_FACE = painting()


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(mock_client.KEY_VARIABLE, KEY)


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were waited, none of which pass."""
    found = []
    monkeypatch.setattr(http.time, "sleep", found.append)
    return found


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


def test_the_range_answers():
    with running(budget=3) as url:
        service = open_service("range", url)
        assert service.threshold == 75.0
        assert service.identity == f"range {url} v1"
        answer = service.compare(ONE, TWO)
        assert answer.similarity == pytest.approx(85.4, abs=2)
        assert [face.similarity for face in answer.faces] == [answer.similarity, pytest.approx(50, abs=2)]
        assert answer.faces[0].box == pytest.approx((80, 0, 48, 64), abs=1)
        assert service.compare(NO_FACE, ONE) == Comparison(None, (), "source")
        assert service.compare(ONE, NO_FACE) == Comparison(None, (), "target")
        with pytest.raises(BudgetExhausted, match=r"\(402\); start it anew"):
            service.compare(ONE, TWO)


def test_the_range_refuses_pictures():
    with running() as url:
        service = open_service("range", url)
        with pytest.raises(ImageRejected, match="target cannot be read as an image"):
            service.compare(ONE, b"text")
        with pytest.raises(ImageRejected, match="source cannot be read as an image"):
            service.compare(ONE[:-40], TWO)
        with pytest.raises(ImageRejected, match="more than 400,000 bytes"):
            service.compare(ONE, bytes(MAX_BODY))
        assert service.compare(ONE, ONE).similarity == pytest.approx(100, abs=0.1)


def test_wrong_and_missing_keys_are_never_told(monkeypatch):
    with running() as url:
        monkeypatch.setenv(mock_client.KEY_VARIABLE, "not-the-key")
        with pytest.raises(UserError, match=r"refuses the key \(401\); set VISOR_RANGE_KEY") as caught:
            open_service("range", url).compare(ONE, TWO)
        assert "not-the-key" not in str(caught.value)
        monkeypatch.setenv(mock_client.KEY_VARIABLE, "clef\u00e9\n")
        with pytest.raises(UserError, match="characters that no key has") as caught:
            open_service("range", url)
        assert "clef" not in str(caught.value)
        monkeypatch.delenv(mock_client.KEY_VARIABLE)
        with pytest.raises(UserError, match="VISOR_RANGE_KEY is not set"):
            open_service("range", url)


def test_the_range_is_waited_for():
    with running(rate=2.5) as url:
        service = open_service("range", url)
        assert [service.compare(ONE, ONE).missing for _ in range(4)] == [""] * 4


def test_nobody_there_and_somebody_else(recorded):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match="does not answer; start the range by `visor range`"):
            open_service("range", f"http://127.0.0.1:{closed.getsockname()[1]}")
    for said in (b"<html>", b"[" * 100_000, [], {"version": "v", "threshold": float("nan")}, {"threshold": 50}):
        recorded.exchanges = [(200, {}, said)]
        with pytest.raises(UserError, match="is no range"):
            open_service("range", recorded.url)
    with pytest.raises(
        UserError, match=r"--service azure is not known; choose from range, rekognition, or .*FILE\.yaml"
    ):
        open_service("azure", None)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "http://192.0.2.7:8000",
            r"http://192\.0\.2\.7:8000 would send the key in clear; name one that begins with https",
        ),
        ("http://127.0.0.1@example.invalid", "would send the key in clear"),
        ("localhost:8000", "localhost:8000 is no address; begin it with https://, or with http:// on this machine"),
        ("127.0.0.1:8000", "is no address; begin it"),
        ("ftp://127.0.0.1", "is no address; begin it"),
        ("http://", "is no address; begin it"),
        ("http://[::1", "is no address; begin it"),
    ],
)
def test_keys_are_not_sent_in_clear(url, sentence, monkeypatch):
    monkeypatch.setattr(requests.Session, "send", lambda *_, **__: pytest.fail("something was sent"))
    with pytest.raises(UserError, match=f"--url .*{sentence}"):
        open_service("range", url)


def test_safe_addresses():
    for url in ("https://example.invalid/x", "http://localhost:1", "http://127.0.0.1", "http://[::1]:8000"):
        http.check_https(url, "--url")


NO_SIMILARITY = [float("nan"), float("inf"), -0.001, 100.001, 10**400, None, "x", [1]]


@pytest.mark.parametrize("value", NO_SIMILARITY)
def test_what_is_no_similarity_is_no_success(recorded, acme, value):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        parse_similarity(value)
    recorded.exchanges = [(200, {}, {"version": "v", "threshold": 50})]
    service = open_service("range", recorded.url)
    face = {"box": [0, 0, 1, 1], "similarity": 50}
    for said in ({"similarity": value, "faces": [face]}, {"similarity": 50, "faces": [face | {"similarity": value}]}):
        recorded.exchanges = [(200, {}, said)]
        with pytest.raises(UserError, match="with other than a range's JSON"):
            service.compare(b"one", b"two")
    acme.write_text(acme.read_text().replace("scale: 1e2", "scale: 1"))
    for whole, part in ((value, 50), (50, value)):
        found = {"result": {"confidence": whole, "candidates": [{"place": [1, 2, 3, 4], "confidence": part}]}}
        recorded.exchanges = [(200, {}, found)]
        with pytest.raises(UserError, match=r"is not as described .* correct its places or scale"):
            open_service(str(acme), None).compare(b"one", b"two")


def test_the_ends_of_the_scale_are_similarities():
    assert [parse_similarity(value) for value in (0, 100, "62.5")] == [0.0, 100.0, 62.5]


@pytest.mark.parametrize(("scale", "warnings"), [("", 1), ("scale: 1", 0), ("scale: 100", 0)])
def test_a_forgotten_scale_is_told_once(recorded, acme, capsys, scale, warnings):
    acme.write_text(acme.read_text().replace("scale: 1e2", scale))
    said = [{"result": {"confidence": value, "candidates": []}} for value in (0.0, 0.5, 0.25)]
    recorded.exchanges = [(200, {}, answer) for answer in said]
    service = open_service(str(acme), None)
    service.compare(b"one", b"two")
    assert capsys.readouterr().err == ""
    service.compare(b"one", b"two")
    service.compare(b"one", b"two")
    told = capsys.readouterr().err
    assert told.count("a similarity is below 1 of 100; if the service's own go up to 1, add scale: 100\n") == warnings
    assert told.count("\n") == warnings


def authorise(request):
    return request


def test_patience(recorded, waits):
    recorded.exchanges = [
        (429, {"Retry-After": "3"}, {}),
        (503, {}, b""),
        (500, {"Retry-After": "soon"}, {}),
        (200, {}, [7]),
    ]
    with requests.Session() as session:
        assert http.post(session, recorded.url, authorise, {"a": 1}) == (200, b"[7]")
    assert waits == [3, 1.0, 2.0]
    assert [body for _, _, body in recorded.requests] == [{"a": 1}] * 4


def test_patience_has_an_end(recorded, waits):
    recorded.exchanges = [(503, {}, {})] * 9
    with requests.Session() as session:
        with pytest.raises(UserError, match=r"does not answer \(status 503, 5 attempts\)"):
            http.post(session, recorded.url, authorise, {})
        assert (len(recorded.requests), waits) == (5, [0.5, 1, 2, 4])
        recorded.exchanges = [(429, {"Retry-After": "3600"}, {})]
        with pytest.raises(UserError, match="asks to wait 3600 seconds"):
            http.post(session, recorded.url, authorise, {})
        assert len(waits) == 4


def test_broken_connections_are_tried_again(waits):
    with socket.socket() as closed, requests.Session() as session:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match=r"does not answer \(ConnectionError, 5 attempts\)"):
            http.post(session, f"http://127.0.0.1:{closed.getsockname()[1]}", authorise, {})
    assert len(waits) == 4


def test_endless_answers_are_cut(recorded, monkeypatch):
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 100_000)
    recorded.exchanges = [(200, {}, bytes(300_000))]
    with requests.Session() as session, pytest.raises(UserError, match="more than 0 MiB"):
        http.post(session, recorded.url, authorise, {})
    recorded.exchanges = [(200, {}, bytes(300_000))]
    with pytest.raises(UserError, match="more than 0 MiB"):
        open_service("range", recorded.url)


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


def test_a_recorded_exchange_is_replayed(recorded, acme):
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
    wanted = {"model": "best", "options": {"faces": "all"}, "images": {"first": coded(b"one"), "second": coded(b"two")}}
    assert body == wanted
    assert again["images"] == {"first": coded(b"two"), "second": coded(b"one")}


@pytest.mark.parametrize(
    ("exchange", "kind", "sentence"),
    [
        ((401, {}, {}), UserError, r"refuses the key \(401\); check ACME_KEY"),
        ((402, {}, {}), BudgetExhausted, r"account is empty \(402\)"),
        ((413, {}, {}), ImageRejected, "the service answers 413"),
        ((302, {"Location": "http://127.0.0.1:9/"}, {}), UserError, "the service answers 302"),
        ((200, {}, b"<html>"), UserError, "200 with what is not JSON"),
        ((200, {}, {"result": {}}), UserError, "not as described"),
        ((200, {}, {"result": {"confidence": None}}), UserError, "not as described"),
        (
            (200, {}, {"result": {"confidence": 0.5, "candidates": [{"place": [1]}]}}),
            UserError,
            "not as described",
        ),
    ],
)
def test_a_recorded_refusal(recorded, acme, exchange, kind, sentence):
    recorded.exchanges = [exchange]
    with pytest.raises(kind, match=sentence) as caught:
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


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("scale: 1e2", "scale: much", "scale is 'much', but"),
        ("scale: 1e2", "scales: 1", "scales is not a known key; allowed here: url, key"),
        ("source: images.first", "", "source is missing; add it"),
        ("{{", "{{[", "is not YAML"),
        ("url: ", "url: http://example.invalid/#", "would send the key in clear"),
        ("url: ", "url: ftp://", "url ftp://.* is no address; begin it with"),
        ("images.first", "images", "source images and target images.second have no room in request; mend"),
        ("images.second", "images", "source images.first and target images have no room in request; mend"),
        ("images.second", "images.first", "have no room in request; mend"),
        ("images.second", "model.second", "have no room in request; mend"),
    ],
)
def test_descriptions_are_checked(acme, recorded, old, new, sentence):
    text = DESCRIPTION.replace(old, new, 1).format(url=recorded.url) if old != "{{" else "{["
    acme.write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        open_service(str(acme), None)
    assert "\n" not in str(caught.value)


def test_a_description_without_file_or_key(acme, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"none\.yaml cannot be read"):
        open_service(str(tmp_path / "none.yaml"), None)
    monkeypatch.delenv("ACME_KEY")
    with pytest.raises(UserError, match="ACME_KEY is not set in the environment; put the key of acme into it"):
        open_service(str(acme), None)


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """A client that reaches nobody, and the stubber that answers in its place."""
    boto3 = pytest.importorskip("boto3")
    from botocore.stub import Stubber

    for name, value in (("ACCESS_KEY_ID", "AKIA"), ("SECRET_ACCESS_KEY", "s3cret"), ("DEFAULT_REGION", "eu-west-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    client = boto3.client("rekognition")
    with Stubber(client) as stubber:
        yield rekognition.of_client(client), stubber
        stubber.assert_no_pending_responses()


def wanted(one, other):
    return {
        "SourceImage": {"Bytes": one},
        "TargetImage": {"Bytes": other},
        "SimilarityThreshold": 0.0,
        "QualityFilter": "NONE",
    }


def test_rekognition(aws):
    service, stubber = aws
    box = {"Left": 0.5, "Top": 0.25, "Width": 0.125, "Height": 0.5}
    matches = [{"Similarity": value, "Face": {"BoundingBox": box, "Confidence": 99.0}} for value in (91.5, 12.25)]
    stubber.add_response("compare_faces", {"FaceMatches": matches, "UnmatchedFaces": [{}]}, wanted(ONE, TWO))
    stubber.add_response("compare_faces", {"FaceMatches": [], "UnmatchedFaces": [{}]}, wanted(TWO, ONE))
    stubber.add_response("compare_faces", {"FaceMatches": [], "UnmatchedFaces": []}, wanted(ONE, ONE))
    assert service.threshold == 80
    assert service.identity == "rekognition https://rekognition.eu-west-1.amazonaws.com"
    assert service.compare(ONE, TWO) == Comparison(
        91.5, (MatchedFace(None, 91.5), MatchedFace(None, 12.25), MatchedFace(None, 0.0))
    )
    assert service.compare(TWO, ONE) == Comparison(0.0, (MatchedFace(None, 0.0),))
    assert service.compare(ONE, ONE) == Comparison(None, (), "target")


@pytest.mark.parametrize(
    ("code", "kind", "sentence"),
    [
        ("ImageTooLargeException", ImageRejected, "Rekognition says ImageTooLarge"),
        ("InvalidImageFormatException", ImageRejected, "Rekognition says InvalidImageFormat"),
        ("AccessDeniedException", UserError, "allow rekognition:CompareFaces"),
        ("UnrecognizedClientException", UserError, "check AWS_ACCESS_KEY_ID"),
        ("ProvisionedThroughputExceededException", UserError, "run again later"),
        ("SomethingNewException", UserError, r"refuses \(SomethingNewException\)"),
    ],
)
def test_rekognition_refuses(aws, code, kind, sentence):
    service, stubber = aws
    stubber.add_client_error("compare_faces", code)
    with pytest.raises(kind, match=sentence) as caught:
        service.compare(ONE, TWO)
    assert "s3cret" not in str(caught.value)


def test_rekognition_says_no_face_by_an_error(aws):
    service, stubber = aws
    stubber.add_client_error("compare_faces", "InvalidParameterException", "Request has invalid parameters")
    assert service.compare(ONE, TWO) == Comparison(None, (), "either")


def test_rekognition_is_not_asked_about_what_it_does_not_read(aws):
    service, _ = aws
    for image, sentence in ((painting(file_format="BMP"), "neither PNG nor JPEG"), (ONE + bytes(5 << 20), "5 MiB")):
        with pytest.raises(ImageRejected, match=sentence):
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


def paid(answers, identity="a service"):
    """A service that gives each answer once, and the questions it was asked."""
    asked = []

    def compare(one, other):
        asked.append((one, other))
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return ComparisonService("paid", identity, None, compare), asked


FACES = Comparison(61.5, (MatchedFace((1.5, 2, 3, 4), 61.5), MatchedFace(None, None)))


def test_answers_are_paid_for_once(tmp_path):
    service, asked = paid([FACES, Comparison(None, (), "source"), Comparison(3.0)])
    meter = QueryCounter()
    for _ in range(3):
        compare = cached_compare(service, tmp_path / "answers", None, meter)
        assert compare(b"a", b"bc") == FACES
        assert compare(b"ab", b"c") == Comparison(None, (), "source")
        assert compare(b"bc", b"a") == Comparison(3.0)
    assert asked == [(b"a", b"bc"), (b"ab", b"c"), (b"bc", b"a")]
    assert (meter.queried, meter.cached) == (3, 6)


def test_another_service_is_asked_anew(tmp_path):
    meter = QueryCounter()
    for identity in ("range v1", "range v2"):
        service, _ = paid([Comparison(float(identity[-1]))], identity)
        assert cached_compare(service, tmp_path, None, meter)(b"a", b"b").similarity == float(identity[-1])
    assert (meter.queried, meter.cached) == (2, 0)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"similarity": 1}',
        '{"similarity": "x", "faces": [], "missing": ""}',
        '{"similarity": NaN, "faces": [], "missing": ""}',
    ],
)
def test_a_broken_answer_is_asked_for_again(tmp_path, content):
    service, asked = paid([FACES])
    path = tmp_path / f"{digest(service.identity, b'a', b'b')}.json"
    path.write_text(content)
    assert cached_compare(service, tmp_path, None, QueryCounter())(b"a", b"b") == FACES
    assert len(asked) == 1
    service, asked = paid([])
    assert cached_compare(service, tmp_path, None, QueryCounter())(b"a", b"b") == FACES


def test_the_budget_of_a_run(tmp_path):
    service, asked = paid([Comparison(1.0), ImageRejected("too small"), Comparison(2.0)])
    meter = QueryCounter()
    compare = cached_compare(service, tmp_path, 2, meter)
    compare(b"a", b"b")
    with pytest.raises(ImageRejected):
        compare(b"a", b"c")
    assert compare(b"a", b"b") == Comparison(1.0)
    with pytest.raises(BudgetExhausted, match="the 2 queries of --budget are used up"):
        compare(b"a", b"d")
    assert len(asked) == 2
    assert len(list(tmp_path.iterdir())) == 1  # a refusal costs nothing and is not kept


def test_retries_are_not_of_the_budget(recorded, acme, waits, tmp_path):
    recorded.exchanges = [(503, {}, {})] * (http.ATTEMPTS - 1) + [(200, {}, RECORDED)]
    meter = QueryCounter()
    compare = cached_compare(open_service(str(acme), None), tmp_path / "answers", 1, meter)
    assert compare(b"a", b"b").similarity == 73.4
    assert (meter.queried, len(recorded.requests), len(waits)) == (1, 5, 4)  # the pages say: at most 4 retries each
    with pytest.raises(BudgetExhausted):
        compare(b"b", b"a")


def test_what_is_kept_holds_no_key_and_no_picture(tmp_path):
    with running() as url:
        cached_compare(open_service("range", url), tmp_path, None, QueryCounter())(ONE, TWO)
    (file,) = tmp_path.iterdir()
    assert KEY not in file.read_text() + file.name
    assert coded(ONE)[:16] not in file.read_text()
    assert json.loads(file.read_text()).keys() == {"similarity", "faces", "missing"}


def test_descriptions_in_the_manual_are_right(tmp_path):
    page = (ROOT / "docs/black_box.md").read_text()
    (block,) = [part.split("```")[0] for part in page.split("```yaml\n")[1:]]
    path = tmp_path / "manual.yaml"
    path.write_text(block)
    assert json_service.read(path).url.startswith("https://")
    for name in json_service.ServiceDescription.model_fields:
        assert f"`{name}`" in page, name
