"""Files over HTTP, from a server on this machine: resumed, verified, or one sentence."""

import base64
import errno
import hashlib
import os
import socket
import ssl
import threading
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from visor.app.certificate import load_or_create
from visor.core.errors import UserError
from visor.data import download as module

download = partial(module.download, send_credentials=True)

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SECRET = "Basic " + base64.b64encode(b"user:password").decode()


class Handler(BaseHTTPRequestHandler):
    """Basic authentication and ranges; the server's ``cut`` ends a response early, ``ranges`` off ignores Range.

    The server's ``raw`` is what it sends instead.
    """

    def do_GET(self):
        self.server.requests.append(self.headers.get("Range"))
        self.server.secrets.append(self.headers.get("Authorization"))
        if self.server.raw:
            self.close_connection = True
            return self.wfile.write(self.server.raw)
        if self.path == "/missing":
            return self.answer(404, b"")
        if self.headers.get("Authorization") != SECRET:
            return self.answer(401, b"")
        wanted = self.headers.get("Range")
        if not wanted or not self.server.ranges:
            return self.answer(200, CONTENT)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(CONTENT):
            return self.answer(416, b"", f"bytes */{len(CONTENT)}")
        shift = self.server.shift
        shown = f"bytes {start + shift}-{len(CONTENT) - 1}/{len(CONTENT)}"
        return self.answer(206, CONTENT[start + shift :], shown)

    def answer(self, status, body, content_range=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body[: self.server.cut])

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return load_or_create(tmp_path_factory.mktemp("certificate"))


@contextmanager
def serving(pair=None):
    """A server on this machine, with HTTPS if it has a certificate."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.requests, httpd.secrets, httpd.cut, httpd.ranges, httpd.shift, httpd.raw = [], [], None, True, 0, b""
        if pair:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pair.certificate, pair.key)
            httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        httpd.url = f"http{'s' if pair else ''}://127.0.0.1:{httpd.server_port}/faces.tar.gz"
        threading.Thread(target=httpd.serve_forever, args=[0.05], daemon=True).start()
        yield httpd
        httpd.shutdown()


@pytest.fixture
def server(monkeypatch, pair):
    monkeypatch.setenv("VISOR_DOWNLOAD_USER", "user")
    monkeypatch.setenv("VISOR_DOWNLOAD_PASSWORD", "password")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pair.certificate))
    with serving(pair) as httpd:
        yield httpd


@pytest.fixture
def plain():
    with serving() as httpd:
        yield httpd


def test_downloads_once(server, tmp_path):
    path = tmp_path / "new" / "faces.tar.gz"
    for _ in range(2):
        assert download(server.url, path, SHA256) == path
        assert path.read_bytes() == CONTENT
    assert server.requests == [None]
    assert list(path.parent.iterdir()) == [path]


def test_resumes_after_an_interruption(server, tmp_path):
    path = tmp_path / "faces.tar.gz"
    server.cut = 100_001
    with pytest.raises(UserError, match=r"cannot be downloaded .* run again"):
        download(server.url, path, SHA256)
    assert not path.exists()
    part = (tmp_path / "faces.tar.gz.part").read_bytes()
    assert part == CONTENT[: len(part)]
    assert 100_001 - module.CHUNK_BYTES < len(part) <= 100_001
    server.cut = None
    assert download(server.url, path, SHA256).read_bytes() == CONTENT
    assert server.requests == [None, f"bytes={len(part)}-"]


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 7])
def test_part_of_full_size_and_longer(server, tmp_path, size):
    path, part = tmp_path / "faces.tar.gz", tmp_path / "faces.tar.gz.part"
    part.write_bytes((CONTENT + bytes(7))[:size])
    assert download(server.url, path, None).read_bytes() == CONTENT
    assert len(server.requests) == (1 if size == len(CONTENT) else 2)


@pytest.mark.parametrize(("ranges", "shift"), [(False, 0), (True, 5)])
def test_server_that_ignores_or_shifts_the_range(server, tmp_path, ranges, shift):
    server.ranges, server.shift = ranges, shift
    (tmp_path / "faces.tar.gz.part").write_bytes(b"old" * 20)
    assert download(server.url, tmp_path / "faces.tar.gz", None).read_bytes() == CONTENT


def test_wrong_checksum_keeps_the_bytes_but_not_the_name(server, tmp_path):
    path = tmp_path / "faces.tar.gz"
    with pytest.raises(UserError, match=f"SHA-256 {SHA256}, expected {'0' * 64}; delete it"):
        download(server.url, path, "0" * 64)
    assert list(tmp_path.iterdir()) == [tmp_path / "faces.tar.gz.part"]
    assert download(server.url, path, SHA256) == path
    with pytest.raises(UserError, match="SHA-256"):
        download(server.url, path, "0" * 64)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("password", ["wrong", None])
def test_wrong_or_no_password(server, tmp_path, monkeypatch, password):
    monkeypatch.delenv("VISOR_DOWNLOAD_PASSWORD")
    if password:
        monkeypatch.setenv("VISOR_DOWNLOAD_PASSWORD", password)
    with pytest.raises(UserError, match=r"status 401; set VISOR_DOWNLOAD_USER and VISOR_DOWNLOAD_PASSWORD") as caught:
        download(server.url, tmp_path / "faces.tar.gz", None)
    assert "wrong" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["USER", "PASSWORD"])
def test_former_names_of_the_credentials(server, tmp_path, monkeypatch, name):
    monkeypatch.setenv(f"VISOR_{name}", "secret")
    with pytest.raises(UserError, match=f"VISOR_{name} was renamed to VISOR_DOWNLOAD_{name}; rename it") as caught:
        download(server.url, tmp_path / "faces.tar.gz", None)
    assert "secret" not in str(caught.value)
    assert server.requests == []


def test_missing_file_and_no_network(server, tmp_path):
    with pytest.raises(UserError, match="missing responds with status 404"):
        download(server.url.replace("faces.tar.gz", "missing"), tmp_path / "faces.tar.gz", None)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{closed.getsockname()[1]}/faces.tar.gz"
        with pytest.raises(UserError, match=r"cannot be downloaded \(ConnectionError.*; check the network"):
            download(url, tmp_path / "faces.tar.gz", None)


# Credentials: for one host, and encrypted


def test_no_password_without_encryption(server, plain, tmp_path):
    with pytest.raises(UserError, match="is not https, and no password is sent to it; download the file by hand"):
        download(plain.url, tmp_path / "faces.tar.gz", None)
    assert plain.requests == []


def test_no_password_for_others(server, plain, tmp_path, monkeypatch):
    """Neither that of the environment nor that of ~/.netrc, which ``requests`` would send by itself."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password password")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for host in (server, plain):
        with pytest.raises(UserError, match="status 401; download the file by hand"):
            module.download(host.url, tmp_path / "faces.tar.gz", None)
        assert host.secrets == [None]


def redirect(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def test_a_redirect_gets_no_password_and_is_followed(server, pair, tmp_path):
    with serving(pair) as other:
        server.raw = redirect(other.url)
        other.raw = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
        assert download(server.url, tmp_path / "faces.tar.gz", None).read_bytes() == b"abc"
        assert (server.secrets, other.secrets) == ([SECRET], [None])


def test_a_redirect_to_the_same_host_keeps_the_password(server, tmp_path):
    handler = Handler.do_GET

    def do_get(request):
        server.raw = redirect("/there") if request.path == "/faces.tar.gz" else b""
        handler(request)

    Handler.do_GET = do_get
    try:
        assert download(server.url, tmp_path / "faces.tar.gz", SHA256).read_bytes() == CONTENT
    finally:
        Handler.do_GET = handler
    assert server.secrets == [SECRET, SECRET]


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("/faces.tar.gz", "redirects more than 10 times"),
        ("http://127.0.0.1/faces", "redirects from https to http"),
        ("", "redirects to '', which is not an address"),
        ("file:///etc/passwd", "redirects to 'file:///etc/passwd', which is not an address"),
        ("https:///", "redirects more than 10 times"),
        ("https://[::1/x", "which is not an address"),
        ("https://user:secret@127.0.0.1/x", "has a user name in it"),
    ],
)
def test_redirects_that_lead_nowhere(server, tmp_path, location, words):
    server.raw = redirect(location)
    with pytest.raises(UserError, match=words):
        download(server.url, tmp_path / "faces.tar.gz", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "faces.tar.gz",
        "https:///faces",
        "https://",
        "ftp://host/x",
        "https://[::1/x",
        "https://h:99999/x",
        "https://a b/",
    ],
)
def test_addresses_that_are_none(tmp_path, url):
    with pytest.raises(UserError, match="is not an address; give one like https://host/file"):
        module.download(url, tmp_path / "faces.tar.gz", None)
    assert list(tmp_path.iterdir()) == []


# Answers and files that are not what they should be

RAW = {
    "length that is no number": (b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nabc", "says that it has 'abc' bytes"),
    "negative length": (b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc", "says that it has '-3' bytes"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabc", "InvalidHeader|3, 5"),
    "length of 5000 digits": (
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        "says that it has '9999",
    ),
    "too long": (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nabc", "has more than 1,000 bytes"),
    "too long in chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + (b"200\r\n" + b"x" * 512 + b"\r\n") * 9
        + b"0\r\n\r\n",
        "has more than 1,000 bytes",
    ),
    "too long without length": (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000, "has more than 1,000 bytes"),
    "chunks that are none": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc", "cannot be downloaded"),
    "a chunk of less than nothing": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
        "cannot be downloaded",
    ),
    "a part that nobody asked for": (
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-2/9\r\nContent-Length: 3\r\n\r\nabc",
        "responds with status 206",
    ),
    "cut": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "cannot be downloaded"),
    "no HTTP": (b"\x00\xff garbage\r\n\r\n", "cannot be downloaded"),
    "nothing": (b"\r\n\r\n", "cannot be downloaded"),
    "endless header": (b"HTTP/1.1 200 OK\r\n" + b"A: " + b"b" * 70_000 + b"\r\n\r\n", "cannot be downloaded"),
    "many headers": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", "cannot be downloaded"),
    "status that is none": (b"HTTP/1.1 999999 OK\r\n\r\n", "cannot be downloaded"),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\n\r\n", "responds with status 304"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", "responds with status 204"),
}


@pytest.mark.parametrize("kind", RAW)
def test_broken_answers_are_sentences(plain, tmp_path, kind):
    plain.raw, words = RAW[kind]
    with pytest.raises(UserError, match=words) as caught:
        module.download(plain.url, tmp_path / "faces.tar.gz", None, max_bytes=1000)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert not (tmp_path / "faces.tar.gz").exists()
    assert {path.name for path in tmp_path.iterdir()} <= ({"faces.tar.gz.part"} if "cannot" in words else set())


def test_a_rest_that_is_not_the_whole_rest(plain, tmp_path):
    plain.raw = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/9\r\nContent-Length: 3\r\n\r\ncde"
    (tmp_path / "faces.tar.gz.part").write_bytes(b"ab")
    with pytest.raises(UserError, match=r"cannot be downloaded \(ConnectionError, 5 bytes so far are kept"):
        module.download(plain.url, tmp_path / "faces.tar.gz", None)
    assert (tmp_path / "faces.tar.gz.part").read_bytes() == b"abcde"


def test_an_endless_answer_is_read_up_to_the_limit(plain, tmp_path, monkeypatch):
    plain.raw, written = b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1 << 20), []
    monkeypatch.setattr(module.tqdm, "update", lambda bar, count: written.append(count))
    with pytest.raises(UserError, match="has more than 200,000 bytes"):
        module.download(plain.url, tmp_path / "faces.tar.gz", None, max_bytes=200_000)
    assert 0 < sum(written) <= 200_000


def test_a_compressed_file_is_kept_as_it_is(plain, tmp_path):
    plain.raw = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n\x1f\x8babc"
    assert module.download(plain.url, tmp_path / "faces.tar.gz", None).read_bytes() == b"\x1f\x8babc"


@pytest.mark.parametrize("sha256", ["abc", "../" * 20 + "0000", "g" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_checksum_that_is_none(plain, tmp_path, sha256):
    with pytest.raises(UserError, match=r"sha256 is '.*; give the 64 hexadecimal digits"):
        module.download(plain.url, tmp_path / sha256.strip() / "faces", sha256)
    assert (list(tmp_path.iterdir()), plain.requests) == ([], [])


def test_a_checksum_in_capitals(server, tmp_path):
    assert download(server.url, tmp_path / "faces.tar.gz", SHA256.upper()).read_bytes() == CONTENT


def test_a_full_disk_leaves_nothing(server, tmp_path, monkeypatch):
    path = tmp_path / "faces.tar.gz"
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=len(CONTENT) - 1))
    with pytest.raises(OSError, match="No space left") as caught:
        download(server.url, path, None)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, f"{path}.part")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=len(CONTENT)))
    monkeypatch.setattr(module.tqdm, "update", partial(fail, errno.EDQUOT))  # after some bytes were written
    with pytest.raises(OSError, match="quota"):
        download(server.url, path, None)
    assert list(tmp_path.iterdir()) == []


def fail(number, *_):
    raise OSError(number, os.strerror(number))
