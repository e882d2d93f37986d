"""Server of the app: Streamlit in this process, configured to keep, log and send no more than it needs."""

import asyncio
import contextlib
import gc
import ipaddress
import json
import logging
import os
import resource
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from streamlit import error
from streamlit.runtime import Runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.starlette import App
from websockets.exceptions import InvalidState

from visor.app import error_logging, session, settings
from visor.app.certificate import CertificatePair, certificate_hostnames, local_hostnames
from visor.app.middleware import RequestFilter
from visor.app.networks import NetworkOptions
from visor.app.streamlit_setup import configure_streamlit
from visor.core import server

LOG = logging.getLogger(__name__)
PAGE = Path(__file__).with_name("page.py")
SWEEP_SECONDS = 2.0
ERROR_MESSAGE = "An error occurred and this page is incomplete; reload it."


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


def configure(networks: NetworkOptions, hosts: Sequence[str], pair: CertificatePair | None, forget: int) -> None:
    """Set up this process to keep photos in memory only, those of a closed tab for ``forget`` seconds."""
    os.environ[session.SETTINGS_VARIABLE] = json.dumps(networks._asdict())
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash would write the memory to disk
    error_logging.redact_logs()
    options: dict[str, Any] = {
        "server.corsAllowedOrigins": [f"http://{host}" for host in hosts],
        "server.disconnectedSessionTTL": forget + 60,  # session.expire_sessions closes it before
    }
    if pair:
        options |= {"server.sslCertFile": str(pair.certificate), "server.sslKeyFile": str(pair.key)}
    configure_streamlit(options)


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
        Middleware(RequestFilter, stored_bytes=_stored_bytes, owns_download=session.owns_download),
    ]
    return App(PAGE, lifespan=lifespan, middleware=middleware, on_script_error=_show_error)


def serve(app: Callable[..., Any], listener: socket.socket, pair: CertificatePair | None) -> None:
    """Serve until SIGINT or SIGTERM, with TLS if there is a certificate."""
    gc.collect()
    gc.freeze()  # The networks are many objects that stay: a collection that walks through them stops all visitors.
    # Both are raised after everything is closed, InvalidState if a tab closes at that very moment.
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError, InvalidState):
        server.serve(
            app,
            listener,
            ws="websockets-sansio",
            ws_max_size=settings.MESSAGE_BYTES,
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
            gc.collect()  # of photos that were deleted and are referenced in a circle; it takes milliseconds
        except Exception:
            LOG.exception("sessions could not be expired")


def _stored_bytes() -> Counter[str]:
    """Return the size of the uploads that Streamlit holds, by session."""
    manager = Runtime.instance().uploaded_file_mgr
    storage = manager.file_storage if isinstance(manager, MemoryUploadedFileManager) else {}
    sessions = list(storage.items())  # scripts of visitors change it meanwhile
    return Counter({name: sum(len(file.data) for file in list(files.values())) for name, files in sessions})


def _show_error(_: Exception) -> bool:
    error(ERROR_MESSAGE)
    return True
