"""Server of the app over real HTTP and WebSockets: memory, deletion, accepted requests, certificates, start."""

import asyncio
import contextlib
import datetime
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.middleware.trustedhost import TrustedHostMiddleware
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from visor.app import certificate, error_logging, middleware, streamlit_setup
from visor.app.certificate import (
    CertificatePair,
    certificate_fingerprint,
    certificate_hostnames,
    load_or_create,
    validate,
)
from visor.app.middleware import RequestFilter
from visor.app.server import allowed_hosts
from visor.app.settings import (
    MAX_SESSION_UPLOAD_BYTES,
    MAX_UPLOAD_BYTES,
    MESSAGES,
    MESSAGES_PER_SECOND,
    PHOTO_BYTES,
)
from visor.core.errors import UserError

FORGET = 2  # seconds
SECRET = "holiday-of-the-smiths"

LIBRARY_SETTINGS = {"keras.json"}  # libraries write them on first use

PAGE = f"""
import streamlit as st
from visor.app import results_view, session
visitor = session.current_session()
results_view.download_button(visitor, "all", lambda: b"PROTECTED" * 1000, "photos.zip", "application/zip", "download")
photos = st.file_uploader("photos", accept_multiple_files=True)
if st.checkbox("fail"):
    raise ValueError("{SECRET}")
"""

SERVER = """
import gc
import sys
from pathlib import Path
from visor.app import server, session
from visor.app.certificate import CertificatePair
from visor.app.networks import NetworkOptions
from visor.core.server import listen, url

def stops_everybody(*arguments):
    if arguments != ():  # the app's own call has none
        print("everybody waits", file=sys.stderr, flush=True)

gc.collect = stops_everybody
sys.modules["keras"].backend.clear_session = lambda: stops_everybody("keras")

class JobQueue:
    def jobs(self, session): return []
    def clear_session(self, session): print("deleted", session, flush=True)

session.job_queue = JobQueue
server.PAGE = Path("page.py").resolve()
pair = CertificatePair(Path("app-certificate.pem"), Path("app-key.pem")) if Path("app-key.pem").exists() else None
hosts, forget = server.allowed_hosts("127.0.0.1", pair), int(sys.argv[1])
server.configure(NetworkOptions(), hosts, pair, forget)
listener = listen("127.0.0.1", 0)
print(url(listener, tls=pair is not None), flush=True)
server.serve(server.application(hosts, forget), listener, pair)
print("stopped", flush=True)
"""


RERUN = BackMsg()
RERUN.rerun_script.CopyFrom(ClientState())


def receive(page, request, select):
    """Send a message, unless it is None, and return the first true value that ``select`` finds in an answer."""
    if request:
        page.send(request.SerializeToString())
    while not (found := select(ForwardMsg.FromString(page.recv(timeout=10)))):
        pass
    return found


class Server:
    """A server of a small page, whose folder contains everything that it might write to."""

    def __init__(self, folder, https):
        self.folder, self.tabs = folder, contextlib.ExitStack()
        for name in ("home", "tmp"):
            (folder / name).mkdir()
        (folder / "page.py").write_text(PAGE)
        self.pair = load_or_create(folder) if https else None
        environment = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
        self.log = (folder / "log").open("w")
        command = [sys.executable, "-c", SERVER, str(FORGET)]
        self.process = subprocess.Popen(
            command, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.url = self.process.stdout.readline().strip()
        self.session = requests.Session()
        self.session.trust_env = False  # it could name other certificates
        self.session.verify = str(self.pair.certificate) if self.pair else True

    def get(self, path, **options):
        return self.session.get(self.url + path, timeout=10, **options)

    def open_page(self, cookies=None):
        """Return an open page of this browser, or of one with other cookies, and the id of its session."""
        if cookies is None:
            self.get("/")
            cookies = self.session.cookies
        page = self.tabs.enter_context(
            connect(
                self.url.replace("http", "ws") + "/_stcore/stream",
                subprotocols=["streamlit"],
                origin=self.url,
                ssl=ssl.create_default_context(cafile=str(self.pair.certificate)) if self.pair else None,
                additional_headers={"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())},
            )
        )
        return page, receive(page, RERUN, lambda message: message.new_session.initialize.session_id)

    def open_tab(self):
        """Return an open page, the id of its session, and the path of its download, which was clicked."""
        page, session = self.open_page()
        button = receive(page, None, lambda message: message.delta.new_element.download_button.deferred_file_id)
        request = BackMsg()
        request.backend_operation_request.session_id = session
        request.backend_operation_request.deferred_file.file_id = button
        path = receive(page, request, lambda message: message.backend_operation_response.deferred_file.url)
        return page, session, path

    def put(self, session, content, name=f"{SECRET}.jpg", token=True):
        self.get("/_stcore/health")
        headers = {"X-Xsrftoken": self.session.cookies["_streamlit_xsrf"]} if token else {}
        url = f"{self.url}/_stcore/upload_file/{session}/a-file"
        return self.session.put(url, files={"file": (name, content, "image/jpeg")}, headers=headers, timeout=10)

    def wait_for(self, line):
        """Wait until the server prints ``line``; it also deletes sessions of other tests meanwhile."""
        while (printed := self.process.stdout.readline()) != line:
            assert printed, "the server ended"

    def open_files(self):
        """Return the files that the process holds open, unnamed ones included."""
        files = set()
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                files.add(str(link.readlink()))
            except OSError:
                continue
        return files

    def stop(self):
        self.tabs.close()
        self.process.send_signal(signal.SIGINT)
        output = self.process.communicate(timeout=20)[0]
        self.log.close()
        return self.process.returncode, output, (self.folder / "log").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("served"), https=True)
    yield server
    if server.process.poll() is None:
        server.process.kill()


def test_uploads_stay_in_memory(server):
    """By default, Starlette writes uploads above 1 MiB to an unnamed file."""
    tab, session, _ = server.open_tab()
    before, during, stop = server.open_files(), set(), threading.Event()

    def watch():
        while not stop.is_set():
            during.update(server.open_files())

    watcher = threading.Thread(target=watch)
    watcher.start()
    statuses = [server.put(session, os.urandom(6 << 20)).status_code for _ in range(4)]
    stop.set()
    watcher.join()
    tab.close()
    assert statuses == [204] * 4
    assert [name for name in during - before if name.startswith("/")] == []
    assert list((server.folder / "tmp").iterdir()) == []


def test_https_with_a_certificate_that_can_be_verified(server):
    response = server.get("/_stcore/health")
    assert response.text == "ok"
    assert response.url.startswith("https://localhost:")
    assert "Secure" in response.headers["Set-Cookie"]
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(response.url, timeout=10)


def test_browsers_cache_nothing_and_contact_no_other_host(server):
    tab, _, download = server.open_tab()
    for path in ("/", "/_stcore/health", download):
        headers = server.get(path).headers
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert "*" not in headers["Content-Security-Policy"]
        assert "http" not in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
    script = re.search(r"\./(static/js/index[^\"]*\.js)", server.get("/").text)[1]
    assert "no-store" not in server.get(f"/{script}").headers["Cache-Control"]
    assert server.get("/").headers["Strict-Transport-Security"] == "max-age=86400"
    settings = server.get("/_stcore/host-config").json()
    assert (settings["allowedOrigins"], settings["metricsUrl"]) == ([], "")
    tab.close()


def test_everything_of_a_closed_tab_is_deleted(server):
    tab, session, download = server.open_tab()
    other, another, _ = server.open_tab()
    assert server.put(session, b"x").status_code == 204
    assert server.get(download).content.startswith(b"PROTECTED")
    tab.close()
    server.wait_for(f"deleted {session}\n")
    assert server.put(session, b"x").status_code == 400
    assert server.get(download).status_code == 200  # the other tab offers the same bytes
    other.close()
    server.wait_for(f"deleted {another}\n")
    deadline = time.monotonic() + 10
    while server.get(download).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.get(download).status_code == 404


def test_a_download_belongs_to_the_browser_that_made_it(server):
    tab, _, download = server.open_tab()
    cookie = server.session.cookies["visor_visitor"]
    assert server.get(download).content.startswith(b"PROTECTED")
    other = requests.Session()
    other.trust_env, other.verify = False, server.session.verify
    assert other.get(server.url + download, timeout=10).status_code == 404
    given = other.get(server.url, timeout=10).headers["Set-Cookie"]
    assert re.fullmatch(r"visor_visitor=[\w-]{43}; Path=/; HttpOnly; SameSite=Strict; Secure", given)
    assert other.cookies["visor_visitor"] != cookie
    assert other.get(server.url + download, timeout=10).status_code == 404
    stranger, _ = server.open_page(other.cookies)  # with a page of their own
    assert other.get(server.url + download, timeout=10).status_code == 404
    assert "visor_visitor" not in server.get("/").headers.get("Set-Cookie", "")
    stranger.close()
    tab.close()


def test_nobody_waits_for_a_visitor_who_floods_the_page(server):
    flooder, session = server.open_page()
    stop = threading.Event()

    def longest_wait():
        waits = []
        while not stop.wait(0.02):
            begin = time.perf_counter()
            assert server.get("/_stcore/health").text == "ok"
            waits.append(time.perf_counter() - begin)
        return max(waits)

    def flood(message):
        for _ in range(300):
            flooder.send(message)
        while True:
            flooder.recv(timeout=10)

    assert len(RERUN.SerializeToString()) == 2
    with ThreadPoolExecutor(1) as pool:
        longest = pool.submit(longest_wait)
        try:
            with pytest.raises(ConnectionClosed) as closed:
                flood(RERUN.SerializeToString())
        finally:
            stop.set()
        assert longest.result() < 3
    assert closed.value.rcvd.code == 1008
    assert "everybody waits" not in (server.folder / "log").read_text()
    tab, other = server.open_page()
    assert other != session
    tab.close()


def test_a_visitor_learns_no_path_of_the_server(server):
    tab, _ = server.open_page()
    git, cache, run, operation = (BackMsg() for _ in range(4))
    git.load_git_info = cache.clear_cache = True
    run.rerun_script.CopyFrom(ClientState(page_script_hash="no", fragment_id="such", query_string="%"))
    operation.backend_operation_request.deferred_file.file_id = "none"
    received = []

    def heard(kind):
        return lambda message: received.append(message.SerializeToString()) or message.WhichOneof("type") == kind

    for request in (git, cache):
        tab.send(request.SerializeToString())
    for request in (RERUN, run):
        receive(tab, request, heard("script_finished"))
    receive(tab, operation, heard("backend_operation_response"))
    tab.send(b"\xff\xff")  # ends the page
    with contextlib.suppress(ConnectionClosed):
        while True:
            received.append(tab.recv(timeout=10))
    assert any(ForwardMsg.FromString(message).HasField("new_session") for message in received)
    for path in ("/none", "/media/x", "/component/x/y", "/_stcore/bidi-components/x/y", "/static/%2e%2e/x", "//x"):
        response = server.get(path)
        received.append(repr((response.headers, response.text)).encode())
    for folder in (server.folder, Path(error_logging.__file__).parent, Path(sys.prefix)):
        assert not [answer for answer in received if str(folder).encode() in answer]


def test_unauthorised_requests_are_rejected(server):
    tab, session, _ = server.open_tab()
    assert server.put(session, b"x", token=False).status_code == 403
    assert server.put("another-session", b"x").status_code == 400
    assert server.put(session, bytes(PHOTO_BYTES + 1)).status_code == 413
    for path in ("/_stcore/metrics", "/_stcore/agent/openapi.json", "/_stcore/agent"):
        assert server.get(path).status_code == 404
    assert server.get("/", headers={"Host": "rebound.example"}).status_code == 400
    context = ssl.create_default_context(cafile=str(server.pair.certificate))
    address = server.url.replace("http", "ws") + "/_stcore/stream"
    with pytest.raises(InvalidStatus), connect(address, origin="https://evil.example", ssl=context):
        pass
    headers = "Host: rebound.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    request = f"GET /_stcore/stream HTTP/1.1\r\n{headers}Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
        stream = context.wrap_socket(connection, server_hostname="localhost")
        stream.sendall(request.encode())
        assert stream.recv(4096).startswith(b"HTTP/1.1 400 ")
    tab.close()


def test_an_error_of_the_page_reveals_nothing(server):
    """Last, as it stops the server. The log has neither the name of a photo nor the message of an error."""
    tab, session, _ = server.open_tab()
    server.put(session, b"x")
    message = BackMsg()
    state = message.rerun_script.widget_states.widgets.add()
    state.id = receive(tab, RERUN, lambda message: message.delta.new_element.checkbox.id)
    state.bool_value = True
    tab.send(message.SerializeToString())
    received = b""
    while b"reload it" not in received:
        received += tab.recv(timeout=10)
    assert SECRET.encode() not in received
    status, output, log = server.stop()
    assert status == 0, log
    assert output.endswith("stopped\n")
    assert "ValueError at page.py:8" in log
    assert "Traceback" not in log
    assert SECRET not in log
    written = {path.name for path in server.folder.rglob("*") if path.is_file()}
    assert written - LIBRARY_SETTINGS == {"page.py", "log", "app-certificate.pem", "app-key.pem"}
    assert all(
        b"PROTECTED" not in path.read_bytes() for path in server.folder.rglob("*") if path.name in LIBRARY_SETTINGS
    )


class Client:
    """Records the messages of an ASGI server; ``respond`` is an application."""

    def __init__(self):
        self.statuses = []

    async def send(self, message):
        self.statuses.append(message.get("status", message["type"]))

    async def respond(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": [(b"Cache-Control", b"public")]})


def upload(*headers):
    """Return the ASGI scope of an upload."""
    scope = {"type": "http", "method": "PUT", "path": "/_stcore/upload_file/a/b"}
    return scope | {"scheme": "http", "headers": [(b"host", b"localhost:8501"), *headers]}


def request_filter(respond, stored=None):
    return RequestFilter(respond, lambda: Counter(stored or {}), lambda visitor, path: False)


@pytest.mark.parametrize(
    ("stored", "length", "status"),
    [
        ({}, b"5", 204),
        ({"b": MAX_UPLOAD_BYTES - 5}, b"5", 204),
        ({"b": MAX_UPLOAD_BYTES - 4}, b"5", 507),
        ({"a": MAX_SESSION_UPLOAD_BYTES - 5}, b"5", 204),
        ({"a": MAX_SESSION_UPLOAD_BYTES - 4}, b"5", 507),
        ({}, b"", 411),
        ({}, b"-5", 411),
    ],
)
def test_memory_for_uploads_is_limited(stored, length, status):
    client = Client()
    asyncio.run(request_filter(client.respond, stored)(upload((b"content-length", length)), None, client.send))
    assert client.statuses[0] == status


def test_chunked_uploads_are_rejected():
    client = Client()
    headers = (b"content-length", b"1"), (b"transfer-encoding", b"chunked")
    asyncio.run(request_filter(client.respond)(upload(*headers), None, client.send))
    assert client.statuses[0] == 411


@pytest.mark.parametrize("limit", ["UPLOAD_TIMEOUT", "STALL_TIMEOUT"])
def test_a_stalled_upload_releases_its_share(limit, monkeypatch):
    monkeypatch.setattr(middleware, limit, 0.01)
    client = Client()

    async def read(scope, receive, send):
        await receive()

    stalled = request_filter(read, {"b": MAX_UPLOAD_BYTES - 5})
    for _ in range(2):
        asyncio.run(stalled(upload((b"content-length", b"5")), lambda: asyncio.sleep(60), client.send))
    assert [status for status in client.statuses if isinstance(status, int)] == [408, 408]


def test_one_visitor_leaves_memory_for_the_uploads_of_others():
    async def stalled_uploads():
        client, arriving = Client(), asyncio.Event()

        async def read(scope, receive, send):
            await arriving.wait()
            await client.respond(scope, receive, send)

        uploads = request_filter(read)
        of_one, length = [], str(MAX_SESSION_UPLOAD_BYTES // 4).encode()
        for _ in range(9):
            of_one.append(asyncio.create_task(uploads(upload((b"content-length", length)), None, client.send)))
            await asyncio.sleep(0)
        assert [status for status in client.statuses if isinstance(status, int)] == [507] * 5
        arriving.set()
        other = upload((b"content-length", length)) | {"path": "/_stcore/upload_file/other/b"}
        await asyncio.gather(*of_one, uploads(other, None, client.send))
        return [status for status in client.statuses if isinstance(status, int)][5:]

    assert asyncio.run(stalled_uploads()) == [204] * 5


def test_messages_are_counted_over_time(monkeypatch):
    clock, sent = SimpleNamespace(now=0.0), []
    monkeypatch.setattr(middleware, "time", SimpleNamespace(monotonic=lambda: clock.now))

    async def receive():
        return {"type": "websocket.receive", "bytes": b"x"}

    async def send(message):
        sent.append(message)

    async def page(scope, receive, send):
        for _ in range(2 * MESSAGES):
            assert (await receive())["type"] == "websocket.receive"
            clock.now += 1 / MESSAGES_PER_SECOND  # as fast as allowed, for ever
        clock.now += MESSAGES / MESSAGES_PER_SECOND
        assert [(await receive())["type"] for _ in range(MESSAGES)] == ["websocket.receive"] * MESSAGES
        assert (await receive())["type"] == "websocket.disconnect"
        await send({"type": "websocket.send", "bytes": b"late"})

    asyncio.run(request_filter(page)({"type": "websocket"}, receive, send))
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


def test_addresses_of_downloads_depend_on_every_byte_and_on_a_secret(monkeypatch):
    photo = bytearray(3 << 20)
    address = streamlit_setup.media_address(bytes(photo), "image/png", "me.png")
    assert address == streamlit_setup.media_address(bytes(photo), "image/png", "me.png")
    photo[1 << 20] = 1  # Streamlit reads samples of large files
    assert address != streamlit_setup.media_address(bytes(photo), "image/png", "me.png")
    photo[1 << 20] = 0
    monkeypatch.setattr(streamlit_setup, "ADDRESS_KEY", b"of another process")
    assert address != streamlit_setup.media_address(bytes(photo), "image/png", "me.png")


def test_what_is_replaced_in_streamlit_exists(monkeypatch):
    monkeypatch.setattr(streamlit_setup, "load_config_options", lambda options: None)
    monkeypatch.setattr(streamlit_setup, "REPLACED", ((streamlit_setup.script_runner, "_of_the_past", None),))
    with pytest.raises(AttributeError, match="_of_the_past"):
        streamlit_setup.configure_streamlit({})


KNOWN_HOSTS = [b"[::1]:85", b"LocalHost", b"a.visor.example:85"]
UNKNOWN_HOSTS = [b"[::2]", b"x.example", b"visor.example", b"b.a", b"::1", b""]


@pytest.mark.parametrize(
    ("host", "status"), [*((host, 204) for host in KNOWN_HOSTS), *((host, 400) for host in UNKNOWN_HOSTS)]
)
def test_only_known_host_names_are_accepted(host, status, monkeypatch):
    names = ["*.visor.example", "*", "*.*", "b.*", "*a"]
    monkeypatch.setattr("visor.app.server.certificate_hostnames", lambda path: names)
    hosts = allowed_hosts("0.0.0.0", CertificatePair(Path("a.pem"), Path("b.pem")))
    client = Client()
    middleware = TrustedHostMiddleware(client.respond, hosts, www_redirect=False)
    for kind in ("http", "websocket"):
        scope = {"type": kind, "method": "GET", "path": "/", "headers": [(b"host", host)]}
        asyncio.run(middleware(scope, None, client.send))
    assert [code for code in client.statuses if isinstance(code, int)] == [status, status]


def test_errors_are_logged_without_their_message(capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    factory = logging.getLogRecordFactory()

    def fail():
        raise ValueError(SECRET)

    try:
        error_logging.redact_logs()
        with pytest.raises(ValueError, match=SECRET) as caught:
            fail()
        logging.getLogger("visor.test").error("of %s", 5, exc_info=caught.value)
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    finally:
        logging.setLogRecordFactory(factory)
    here = Path(__file__).name
    assert re.fullmatch(rf"ValueError at {here}:\d+ ← {here}:\d+", error_logging.error_location(caught.value))
    printed = "".join(capsys.readouterr())
    assert "a thread ended by ValueError at" in printed
    assert SECRET not in printed
    assert error_logging.error_location(KeyError(SECRET)) == "KeyError"


NOW = datetime.datetime(2030, 5, 17, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


def test_a_certificate_is_created_once_and_again_when_it_expires(tmp_path):
    folder = tmp_path / "new/folder"
    pair = load_or_create(folder, NOW)
    loaded = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    names = {"localhost", "127.0.0.1", "::1", socket.gethostname().lower()}
    assert names <= set(certificate_hostnames(pair.certificate))
    assert loaded.not_valid_after_utc - loaded.not_valid_before_utc <= certificate.DAYS * DAY
    assert isinstance(loaded.public_key().curve, ec.SECP256R1)
    assert [path.stat().st_mode & 0o777 for path in (pair.key, folder)] == [0o600, 0o700]
    assert certificate_fingerprint(pair.certificate) == loaded.fingerprint(hashes.SHA256()).hex(":").upper()
    before = pair.certificate.read_bytes()
    assert load_or_create(folder, NOW + 300 * DAY) == pair
    assert pair.certificate.read_bytes() == before
    for spoil in (
        lambda: load_or_create(folder, NOW + 396 * DAY),
        lambda: (pair.key.write_bytes(b"half"), load_or_create(folder, NOW)),
        lambda: (pair.certificate.unlink(), load_or_create(folder, NOW)),
    ):
        before = pair.key.read_bytes()
        spoil()
        assert pair.key.read_bytes() != before
        assert pair.key.stat().st_mode & 0o777 == 0o600
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"cannot store the certificate in .*file/certs \(Not a directory\); fix the permissions"
    ):
        load_or_create(tmp_path / "file/certs", NOW)


def test_a_certificate_of_the_user_is_validated(tmp_path):
    good, other = load_or_create(tmp_path / "good", NOW), load_or_create(tmp_path / "other", NOW)
    encrypted = tmp_path / "encrypted.pem"
    loaded = serialization.load_pem_private_key(good.key.read_bytes(), None)
    kind = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x"))
    encrypted.write_bytes(loaded.private_bytes(*kind))
    assert validate(good, NOW) == good
    for pair, moment, message in [
        (CertificatePair(tmp_path / "none", good.key), NOW, r"--certificate .*none cannot be read \(No such file"),
        (
            CertificatePair(good.key, good.key),
            NOW,
            r"--certificate .* is not a certificate in PEM format; pass a PEM file",
        ),
        (
            CertificatePair(good.certificate, good.certificate),
            NOW,
            r"--key .* is not a key in PEM format; pass a PEM file",
        ),
        (
            CertificatePair(good.certificate, encrypted),
            NOW,
            r"--key .* is encrypted with a password; pass an unencrypted",
        ),
        (
            CertificatePair(good.certificate, other.key),
            NOW,
            r"app-key.pem is not the key of .*app-certificate.pem; pass two files",
        ),
        (good, NOW + 400 * DAY, r"is valid from 2030-05-16 to 2031-06-17; renew it"),
        (good, NOW - 2 * DAY, r"is valid from .*; renew it, or correct this machine's clock"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            validate(pair, moment)
        assert "\n" not in str(caught.value)


def run_app(folder, *options):
    code = "from visor.cli import main; main()"
    process = subprocess.run([sys.executable, "-c", code, "app", *options], cwd=folder, capture_output=True, text=True)
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    return process.stderr.splitlines()[-1]


def test_mistakes_at_the_start_are_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        error = run_app(tmp_path, "--port", port)
    assert error.startswith(f"error: cannot listen on 127.0.0.1:{port} (Address already in use)")
    assert run_app(tmp_path, "--key", "a.pem") == (
        "error: --certificate and --key belong together; pass both, or --https alone"
    )
    error = run_app(tmp_path, "--certificate", "a.pem", "--key", "b.pem")
    assert error.startswith("error: --certificate a.pem cannot be read")
    error = run_app(tmp_path, "--port", "0")
    assert re.match("error: .*artifacts/recogniser/facenet is missing.*with `dvc repro`", error)
    assert list(tmp_path.iterdir()) == []
