"""The app's server over real HTTP and WebSockets: what it keeps, what it lets go, whom it answers, how it starts."""

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
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from visor.app import certificate, error_logging
from visor.app.certificate import (
    CertificatePair,
    certificate_fingerprint,
    certificate_hostnames,
    load_or_create,
    validate,
)
from visor.app.middleware import MAX_UPLOAD_BYTES, RequestFilter
from visor.app.session import SessionMonitor
from visor.core.errors import UserError

FORGET = 2  # seconds
SECRET = "holiday-of-the-smiths"

SETTINGS = {"keras.json"}  # that libraries write when they are first used

PAGE = f"""
import streamlit as st
from visor.app import process
process.joined()
st.download_button("all", b"PROTECTED" * 1000, "photos.zip")
photos = st.file_uploader("photos", accept_multiple_files=True)
if st.checkbox("fail"):
    raise ValueError("{SECRET}")
"""

SERVER = """
import sys
from pathlib import Path
from visor.app import server, session
from visor.app.certificate import CertificatePair
from visor.app.networks import NetworkOptions
from visor.server import listen

class JobQueue:
    def keep_alive(self, session): pass
    def clear_session(self, session): print("forgotten", session, flush=True)

session.job_queue = JobQueue
server.PAGE = Path("page.py").resolve()
pair = CertificatePair(Path("app-certificate.pem"), Path("app-key.pem")) if Path("app-key.pem").exists() else None
names = server.allowed_hosts("127.0.0.1", pair)
server.configure(NetworkOptions(), names, pair, int(sys.argv[1]))
listener = listen("127.0.0.1", 0)
print(server.address(listener, pair), flush=True)
server.serve(server.application(names), listener, pair)
print("stopped", flush=True)
"""


class Server:
    """A server of a small page in a folder of its own, with all that it might write to inside."""

    def __init__(self, folder, https):
        self.folder, self.tabs = folder, contextlib.ExitStack()
        for name in ("home", "tmp"):
            (folder / name).mkdir()
        (folder / "page.py").write_text(PAGE)
        self.pair = load_or_create(folder) if https else None
        own = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
        self.log = (folder / "log").open("w")
        command = [sys.executable, "-c", SERVER, str(FORGET)]
        self.process = subprocess.Popen(
            command, cwd=folder, env=os.environ | own, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.url = self.process.stdout.readline().strip()
        self.session = requests.Session()
        self.session.trust_env = False  # it could name other certificates
        self.session.verify = str(self.pair.certificate) if self.pair else True

    def get(self, path, **more):
        return self.session.get(self.url + path, timeout=10, **more)

    def visit(self):
        """Return an open tab, the session's name, and the address of what it offers for download."""
        context = ssl.create_default_context(cafile=str(self.pair.certificate)) if self.pair else None
        address = self.url.replace("http", "ws") + "/_stcore/stream"
        tab = self.tabs.enter_context(connect(address, subprotocols=["streamlit"], origin=self.url, ssl=context))
        message = BackMsg()
        message.rerun_script.CopyFrom(ClientState())
        tab.send(message.SerializeToString())
        session = offered = None
        while not (session and offered):
            said = ForwardMsg.FromString(tab.recv(timeout=10))
            if said.WhichOneof("type") == "new_session":
                session = said.new_session.initialize.session_id
            if said.WhichOneof("type") == "delta":
                offered = said.delta.new_element.download_button.url or offered
        return tab, session, offered

    def put(self, session, content, name=f"{SECRET}.jpg", token=True):
        self.get("/_stcore/health")
        headers = {"X-Xsrftoken": self.session.cookies["_streamlit_xsrf"]} if token else {}
        url = f"{self.url}/_stcore/upload_file/{session}/a-file"
        return self.session.put(url, files={"file": (name, content, "image/jpeg")}, headers=headers, timeout=10)

    def wait_for(self, line):
        """Return when the server says ``line``; other tabs of other tests are forgotten meanwhile."""
        while (said := self.process.stdout.readline()) != line:
            assert said, "the server ended"

    def opened(self):
        """Return the files that the process holds open, those without a name, too."""
        found = set()
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                found.add(str(link.readlink()))
            except OSError:
                continue
        return found

    def end(self):
        self.tabs.close()
        self.process.send_signal(signal.SIGINT)
        said = self.process.communicate(timeout=20)[0]
        self.log.close()
        return self.process.returncode, said, (self.folder / "log").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("served"), https=True)
    yield made
    if made.process.poll() is None:
        made.process.kill()


def test_uploads_stay_in_memory(server):
    """Starlette would put what is larger than 1 MiB into a file without a name."""
    tab, session, _ = server.visit()
    before, during, stop = server.opened(), set(), threading.Event()

    def watch():
        while not stop.is_set():
            during.update(server.opened())

    watching = threading.Thread(target=watch)
    watching.start()
    statuses = [server.put(session, os.urandom(6 << 20)).status_code for _ in range(4)]
    stop.set()
    watching.join()
    tab.close()
    assert statuses == [204] * 4
    assert [name for name in during - before if name.startswith("/")] == []
    assert list((server.folder / "tmp").iterdir()) == []


def test_https_with_a_certificate_that_can_be_checked(server):
    said = server.get("/_stcore/health")
    assert said.text == "ok"
    assert said.url.startswith("https://localhost:")
    assert "Secure" in said.headers["Set-Cookie"]
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(said.url, timeout=10)


def test_nothing_is_kept_by_browsers_or_asked_of_others(server):
    tab, _, offered = server.visit()
    for path in ("/", "/_stcore/health", offered):
        headers = server.get(path).headers
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert "*" not in headers["Content-Security-Policy"]
        assert "http" not in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
    script = re.search(r"\./(static/js/index[^\"]*\.js)", server.get("/").text)[1]
    assert "no-store" not in server.get(f"/{script}").headers["Cache-Control"]
    settings = server.get("/_stcore/host-config").json()
    assert (settings["allowedOrigins"], settings["metricsUrl"]) == ([], "")
    tab.close()


def test_a_closed_tab_takes_everything_with_it(server):
    tab, session, offered = server.visit()
    other, another, _ = server.visit()
    assert server.put(session, b"x").status_code == 204
    assert server.get(offered).content.startswith(b"PROTECTED")
    tab.close()
    server.wait_for(f"forgotten {session}\n")
    assert server.put(session, b"x").status_code == 400
    assert server.get(offered).status_code == 200  # the other tab offers the same bytes
    other.close()
    server.wait_for(f"forgotten {another}\n")
    deadline = time.monotonic() + 10
    while server.get(offered).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.get(offered).status_code == 404


def test_strangers_get_nothing(server):
    tab, session, _ = server.visit()
    assert server.put(session, b"x", token=False).status_code == 403
    assert server.put("another-session", b"x").status_code == 400
    assert server.put(session, bytes(21 << 20)).status_code == 413
    for path in ("/_stcore/metrics", "/_stcore/agent/openapi.json", "/_stcore/agent"):
        assert server.get(path).status_code == 404
    assert server.get("/", headers={"Host": "rebound.example"}).status_code == 421
    context = ssl.create_default_context(cafile=str(server.pair.certificate))
    address = server.url.replace("http", "ws") + "/_stcore/stream"
    with pytest.raises(InvalidStatus), connect(address, origin="https://evil.example", ssl=context):
        pass
    tab.close()


def test_a_fault_of_the_page_tells_nothing(server):
    """Last: it ends the server. A log holds neither a photo's name nor an error's message."""
    tab, session, _ = server.visit()
    server.put(session, b"x")
    message = BackMsg()
    state = message.rerun_script.widget_states.widgets.add()
    state.id, state.bool_value = fail_of(tab), True
    tab.send(message.SerializeToString())
    shown = b""
    while b"reload it" not in shown:
        shown += tab.recv(timeout=10)
    assert SECRET.encode() not in shown
    status, said, log = server.end()
    assert status == 0, log
    assert said.endswith("stopped\n")
    assert "ValueError at page.py:8" in log
    assert "Traceback" not in log
    assert SECRET not in log
    written = {path.name for path in server.folder.rglob("*") if path.is_file()}
    assert written - SETTINGS == {"page.py", "log", "app-certificate.pem", "app-key.pem"}
    assert all(b"PROTECTED" not in path.read_bytes() for path in server.folder.rglob("*") if path.name in SETTINGS)


def fail_of(tab):
    """Return the identifier of the page's box that makes it fail, from what is drawn anew."""
    message = BackMsg()
    message.rerun_script.CopyFrom(ClientState())
    tab.send(message.SerializeToString())
    while True:
        said = ForwardMsg.FromString(tab.recv(timeout=10))
        if said.WhichOneof("type") == "delta" and said.delta.new_element.checkbox.id:
            return said.delta.new_element.checkbox.id


def test_a_closed_tab_is_given_time_to_come_back():
    now, there, closed = [0.0], {"a", "b"}, []
    sessions = SessionMonitor(there.__contains__, closed.append, 120, lambda: now[0])
    for session in ("a", "b", "c"):  # c left before anybody looked
        sessions.register(session)
    for moment, connected, expected in [(60, "ab", []), (120, "a", []), (180, "ab", ["c"]), (181, "b", ["c"])]:
        now[0] = moment
        there.clear()
        there.update(connected)
        sessions.sweep()
        assert closed == expected, moment
    for moment, expected in [(300, ["c"]), (301, ["c", "a"]), (999, ["c", "a"])]:
        now[0] = moment
        sessions.sweep()
        assert closed == expected, moment


class Held:
    """An app behind a guard that waits while others come."""

    def __init__(self):
        self.status = []

    async def send(self, message):
        self.status.append(message.get("status", message["type"]))

    async def pass_on(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": [(b"Cache-Control", b"public")]})


def sent(*headers):
    """What a server knows of an upload before its bytes."""
    path = {"type": "http", "method": "PUT", "path": "/_stcore/upload_file/a/b"}
    return path | {"headers": [(b"host", b"localhost:8501"), *headers]}


@pytest.mark.parametrize(
    ("held", "length", "expected"),
    [
        (0, b"5", 204),
        (MAX_UPLOAD_BYTES - 5, b"5", 204),
        (MAX_UPLOAD_BYTES - 4, b"5", 507),
        (0, b"", 411),
        (0, b"-5", 411),
    ],
)
def test_memory_for_uploads_is_bounded(held, length, expected):
    found = Held()
    guard = RequestFilter(found.pass_on, frozenset({"localhost"}), lambda: held)
    asyncio.run(guard(sent((b"content-length", length)), None, found.send))
    assert found.status[0] == expected


def test_chunks_that_pass_by_their_length_are_refused():
    found = Held()
    guard = RequestFilter(found.pass_on, frozenset({"localhost"}), lambda: 0)
    asyncio.run(guard(sent((b"content-length", b"1"), (b"transfer-encoding", b"chunked")), None, found.send))
    assert found.status[0] == 411


def test_an_upload_that_stalls_gives_its_share_back(monkeypatch):
    monkeypatch.setattr("visor.app.middleware.UPLOAD_TIMEOUT", 0.01)
    found = Held()
    guard = RequestFilter(lambda *_: asyncio.sleep(60), frozenset({"localhost"}), lambda: MAX_UPLOAD_BYTES - 5)
    for _ in range(2):
        asyncio.run(guard(sent((b"content-length", b"5")), None, found.send))
    assert [status for status in found.status if isinstance(status, int)] == [408, 408]


@pytest.mark.parametrize(("host", "kind"), [(b"[::1]:85", 204), (b"LocalHost", 204), (b"[::2]", 421), (b"", 421)])
def test_only_own_names_are_answered_to(host, kind):
    found = Held()
    guard = RequestFilter(found.pass_on, frozenset({"localhost", "::1"}), lambda: 0)
    with pytest.raises(StopIteration):
        guard({"type": "http", "method": "GET", "path": "/", "headers": [(b"host", host)]}, None, found.send).send(None)
    assert found.status[0] == kind
    with pytest.raises(StopIteration):
        guard({"type": "websocket", "path": "/", "headers": [(b"host", host)]}, None, found.send).send(None)
    assert (found.status[-1] == "websocket.close") == (kind == 421)


def test_faults_are_described_without_their_message(capsys, monkeypatch):
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
    shown = "".join(capsys.readouterr())
    assert "a thread ended by ValueError at" in shown
    assert SECRET not in shown
    assert error_logging.error_location(KeyError(SECRET)) == "KeyError"


NOW = datetime.datetime(2030, 5, 17, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


def test_a_certificate_is_made_once_and_anew_when_its_time_is_up(tmp_path):
    folder = tmp_path / "new/folder"
    pair = load_or_create(folder, NOW)
    made = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    assert {"localhost", "127.0.0.1", "::1", socket.gethostname().lower()} <= set(
        certificate_hostnames(pair.certificate)
    )
    assert made.not_valid_after_utc - made.not_valid_before_utc <= certificate.DAYS * DAY
    assert isinstance(made.public_key().curve, ec.SECP256R1)
    assert [path.stat().st_mode & 0o777 for path in (pair.key, folder)] == [0o600, 0o700]
    assert certificate_fingerprint(pair.certificate) == made.fingerprint(hashes.SHA256()).hex(":").upper()
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
    with pytest.raises(UserError, match=r"file/certs cannot hold a certificate \(Not a directory\)"):
        load_or_create(tmp_path / "file/certs", NOW)


def test_a_users_certificate_is_looked_into(tmp_path):
    good, other = load_or_create(tmp_path / "good", NOW), load_or_create(tmp_path / "other", NOW)
    shut = tmp_path / "locked.pem"
    loaded = serialization.load_pem_private_key(good.key.read_bytes(), None)
    kind = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x"))
    shut.write_bytes(loaded.private_bytes(*kind))
    assert validate(good, NOW) == good
    for pair, moment, sentence in [
        (CertificatePair(tmp_path / "none", good.key), NOW, r"--certificate .*none cannot be read \(No such file"),
        (CertificatePair(good.key, good.key), NOW, r"--certificate .* is no certificate in PEM; name a PEM file"),
        (CertificatePair(good.certificate, good.certificate), NOW, r"--key .* is no key in PEM; name a PEM file"),
        (CertificatePair(good.certificate, shut), NOW, r"--key .* is locked by a password; name an unlocked"),
        (
            CertificatePair(good.certificate, other.key),
            NOW,
            r"app-key.pem is not the key of .*app-certificate.pem; name the two",
        ),
        (good, NOW + 400 * DAY, r"is valid from 2030-05-16 to 2031-06-17; renew it"),
        (good, NOW - 2 * DAY, r"is valid from .*; renew it, or correct this machine's clock"),
    ]:
        with pytest.raises(UserError, match=sentence) as caught:
            validate(pair, moment)
        assert "\n" not in str(caught.value)


def command(folder, *words):
    code = "from visor.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "app", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_mistakes_at_the_start_are_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = command(tmp_path, "--port", port)
    assert said.startswith(f"error: 127.0.0.1:{port} cannot be listened on (Address already in use)")
    assert command(tmp_path, "--key", "a.pem") == (
        "error: --certificate and --key belong together; name both, or --https alone"
    )
    said = command(tmp_path, "--certificate", "a.pem", "--key", "b.pem")
    assert said.startswith("error: --certificate a.pem cannot be read")
    said = command(tmp_path, "--port", "0")
    assert said.startswith("error: artifacts/recogniser/facenet is missing; run `dvc repro` to train it")
    assert list(tmp_path.iterdir()) == []
