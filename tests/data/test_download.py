"""Files over HTTP, from a server on this machine: resumed, verified, or one sentence."""

import base64
import hashlib
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from visor.core.errors import UserError
from visor.data import download as module
from visor.data.download import download

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SECRET = "Basic " + base64.b64encode(b"user:password").decode()


class Handler(BaseHTTPRequestHandler):
    """Basic authentication and ranges; the server's ``cut`` ends a response early, ``ranges`` off ignores Range."""

    def do_GET(self):
        self.server.requests.append(self.headers.get("Range"))
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


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("VISOR_DOWNLOAD_USER", "user")
    monkeypatch.setenv("VISOR_DOWNLOAD_PASSWORD", "password")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.requests, httpd.cut, httpd.ranges, httpd.shift = [], None, True, 0
        httpd.url = f"http://127.0.0.1:{httpd.server_port}/faces.tar.gz"
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd
        httpd.shutdown()


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
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/faces.tar.gz"
        with pytest.raises(UserError, match=r"cannot be downloaded \(ConnectionError.*; check the network"):
            download(url, tmp_path / "faces.tar.gz", None)
