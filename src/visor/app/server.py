"""Serves the app: Streamlit within this process, told to keep, log and send nothing that it need not."""

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.formparsers import MultiPartParser
from starlette.middleware import Middleware
from streamlit import error, net_util
from streamlit.runtime import Runtime
from streamlit.runtime.stats import CacheStat
from streamlit.starlette import App
from streamlit.web.bootstrap import load_config_options
from websockets.exceptions import InvalidState

from visor.app import error_logging, session, settings
from visor.app.certificate import CertificatePair, certificate_hostnames, local_hostnames
from visor.app.middleware import RequestFilter
from visor.app.networks import NetworkOptions
from visor.server import address as plain_address

PAGE = Path(__file__).with_name("page.py")
LOG = logging.getLogger(__name__)
SWEEP_SECONDS = 1.0
MESSAGE_MEGABYTES = 64  # of one message to a browser, or from it
ERROR_MESSAGE = "Something went wrong in Visor itself, and this page could not be shown to its end; reload it."

STREAMLIT_CONFIG: dict[str, Any] = {
    "browser.gatherUsageStats": False,
    "client.allowedOrigins": [],
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    "client.toolbarMode": "minimal",
    "logger.enableRich": False,
    "logger.hideWelcomeMessage": True,
    "logger.level": "warning",
    "runner.magicEnabled": False,
    "server.enableCORS": True,
    "server.enableStaticServing": False,
    "server.enableXsrfProtection": True,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.maxMessageSize": MESSAGE_MEGABYTES,
    "server.maxUploadSize": settings.PHOTO_BYTES >> 20,
    "server.runOnSave": False,
    "server.showEmailPrompt": False,
    "theme.primaryColor": "#00796b",  # Streamlit's own red says danger
}


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address(listener: socket.socket, pair: CertificatePair | None) -> str:
    """Return the URL of a listening socket; a certificate is for names."""
    url = plain_address(listener)
    return url.replace("http://127.0.0.1:", "https://localhost:").replace("http://", "https://") if pair else url


def allowed_hosts(host: str, pair: CertificatePair | None) -> frozenset[str]:
    """Return what browsers may call this machine by: a stranger's name that leads here is not among them."""
    return frozenset([host.lower(), *local_hostnames(), *(certificate_hostnames(pair.certificate) if pair else ())])


def configure(options: NetworkOptions, names: Iterable[str], pair: CertificatePair | None, forget: int) -> None:
    """Set up this process to keep photos in its memory alone, those of a closed tab for ``forget`` seconds."""
    os.environ |= {session.SETTINGS_VARIABLE: json.dumps(options._asdict()), session.FORGET_VARIABLE: str(forget)}
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash would write the memory to the disk
    MultiPartParser.spool_max_size = sys.maxsize  # uploads above it would go through a temporary file
    error_logging.redact_logs()
    net_util.get_external_ip = lambda: None  # it asks a stranger's server
    own: dict[str, Any] = {
        "server.corsAllowedOrigins": [f"http://[{name}]" if ":" in name else f"http://{name}" for name in names],
        "server.disconnectedSessionTTL": forget + 60,  # until then sessions.py can close it
    }
    if pair:
        own |= {"server.sslCertFile": str(pair.certificate), "server.sslKeyFile": str(pair.key)}
    load_config_options(STREAMLIT_CONFIG | own)


def application(names: frozenset[str]) -> App:
    """Return the app for a machine that browsers call by ``names``."""
    guard = Middleware(RequestFilter, hosts=names, held=_held)
    return App(PAGE, lifespan=_lifespan, middleware=[guard], on_script_error=_show_error)


def serve(
    app: Callable[..., Any],
    listener: socket.socket,
    pair: CertificatePair | None,
    started: Callable[[uvicorn.Server], None] | None = None,
) -> None:
    """Answer until SIGINT or SIGTERM, or until ``should_exit`` of the server that ``started`` is told of."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="websockets-sansio",
        ws_max_size=MESSAGE_MEGABYTES << 20,
        ws_ping_interval=20,
        ws_ping_timeout=20,
        log_config=None,
        log_level="critical",  # it prints tracebacks, and what tabs say at their end
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        ssl_certfile=pair.certificate if pair else None,
        ssl_keyfile=pair.key if pair else None,
    )
    server = uvicorn.Server(config)
    if started:
        started(server)
    # Raised again when all is closed; or a tab closes at the very moment, and uvicorn says goodbye to it.
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError, InvalidState):
        server.run(sockets=[listener])


@contextlib.asynccontextmanager
async def _lifespan(app: App) -> AsyncIterator[None]:
    """Look after the sessions for as long as the server runs."""
    watching = asyncio.create_task(_sweep_periodically())
    try:
        yield
    finally:
        watching.cancel()


async def _sweep_periodically() -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            session.session_monitor().sweep()
            session.expire_idle_sessions()
        except Exception:
            LOG.exception("what nobody looks at cannot be cleared away")


def _held() -> int:
    families = Runtime.instance().uploaded_file_mgr.get_stats().values()
    return sum(stat.byte_length for family in families for stat in family if isinstance(stat, CacheStat))


def _show_error(fault: Exception) -> bool:
    error(ERROR_MESSAGE)
    return True
