"""Server of the app: Streamlit in this process, configured to keep, log and send no more than it needs."""

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from starlette.formparsers import MultiPartParser
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
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
from visor.core import server

LOG = logging.getLogger(__name__)
PAGE = Path(__file__).with_name("page.py")
SWEEP_SECONDS = 1.0
MESSAGE_MEGABYTES = 64  # per message to or from a browser
ERROR_MESSAGE = "An error occurred and this page is incomplete; reload it."

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
    "theme.primaryColor": "#00796b",  # Streamlit's default red signals danger
}


def is_loopback(host: str) -> bool:
    """Return whether an address is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed_hosts(host: str, pair: CertificatePair | None) -> list[str]:
    """Return the Host headers that are accepted, as protection against DNS rebinding; IPv6 addresses in brackets.

    Of a certificate's wildcards, only ``*.`` and a domain are accepted.
    """
    names = [host.lower(), *local_hostnames(), *(certificate_hostnames(pair.certificate) if pair else ())]
    exact = (name for name in names if "*" not in name.removeprefix("*."))
    return list(dict.fromkeys(f"[{name}]" if ":" in name else name for name in exact))


def configure(options: NetworkOptions, hosts: Sequence[str], pair: CertificatePair | None, forget: int) -> None:
    """Set up this process to keep photos in memory only, those of a closed tab for ``forget`` seconds."""
    os.environ[session.SETTINGS_VARIABLE] = json.dumps(options._asdict())
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash would write the memory to disk
    MultiPartParser.spool_max_size = sys.maxsize  # larger uploads would go through a temporary file
    error_logging.redact_logs()
    net_util.get_external_ip = lambda: None  # it sends a request to another server
    config = STREAMLIT_CONFIG | {
        "server.corsAllowedOrigins": [f"http://{host}" for host in hosts],
        "server.disconnectedSessionTTL": forget + 60,  # session.expire_sessions closes it before
    }
    if pair:
        config |= {"server.sslCertFile": str(pair.certificate), "server.sslKeyFile": str(pair.key)}
    load_config_options(config)


def application(hosts: Sequence[str], forget: float) -> App:
    """Return the ASGI application: accepted Host headers, and seconds to keep the photos of a closed tab."""

    @contextlib.asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(_sweep_periodically(forget))
        try:
            yield
        finally:
            sweeper.cancel()

    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        Middleware(RequestFilter, stored_bytes=_stored_bytes),
    ]
    return App(PAGE, lifespan=lifespan, middleware=middleware, on_script_error=_show_error)


def serve(app: Callable[..., Any], listener: socket.socket, pair: CertificatePair | None) -> None:
    """Serve until SIGINT or SIGTERM, with TLS if there is a certificate."""
    # Both are raised after everything is closed, InvalidState if a tab closes at that very moment.
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError, InvalidState):
        server.serve(
            app,
            listener,
            ws="websockets-sansio",
            ws_max_size=MESSAGE_MEGABYTES << 20,
            ws_ping_interval=20,
            ws_ping_timeout=20,
            lifespan="auto",
            log_level="critical",  # lower levels print tracebacks and the last messages of tabs
            timeout_keep_alive=5,
            timeout_graceful_shutdown=3,
            ssl_certfile=pair.certificate if pair else None,
            ssl_keyfile=pair.key if pair else None,
        )


async def _sweep_periodically(forget: float) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            session.expire_sessions(Runtime.instance().is_active_session, forget)
        except Exception:
            LOG.exception("sessions could not be expired")


def _stored_bytes() -> int:
    families = Runtime.instance().uploaded_file_mgr.get_stats().values()
    return sum(stat.byte_length for family in families for stat in family if isinstance(stat, CacheStat))


def _show_error(_: Exception) -> bool:
    error(ERROR_MESSAGE)
    return True
