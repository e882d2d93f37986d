"""Streamlit as this app needs it: its settings, and functions of it that are replaced."""

import functools
import hashlib
import secrets
import sys
from collections.abc import Callable
from typing import Any

from starlette.formparsers import MultiPartParser
from streamlit import net_util
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime import memory_media_file_storage
from streamlit.runtime.app_session import AppSession
from streamlit.runtime.scriptrunner import script_runner
from streamlit.web.bootstrap import load_config_options

from visor.app import settings

CONFIG: dict[str, Any] = {
    "browser.gatherUsageStats": False,
    "client.allowedOrigins": [],
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    "client.toolbarMode": "minimal",
    "logger.enableRich": False,
    "logger.hideWelcomeMessage": True,
    "logger.level": "warning",
    "runner.magicEnabled": False,
    "runner.postScriptGC": False,  # the networks are many objects: a collection after each click stops all visitors
    "server.enableCORS": True,
    "server.enableStaticServing": False,
    "server.enableXsrfProtection": True,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.maxMessageSize": settings.PAGE_MEGABYTES,
    "server.maxUploadSize": settings.PHOTO_BYTES >> 20,
    "server.maxWidgetStateSize": settings.MESSAGE_BYTES >> 20,
    "server.runOnSave": False,
    "server.showEmailPrompt": False,
    "theme.primaryColor": "#00796b",  # Streamlit's default red signals danger
}
ADDRESS_KEY = secrets.token_bytes(32)  # of this process


def media_address(data: bytes, mimetype: str, filename: str | None = None) -> str:
    """Return the address of a download: a hash, as in Streamlit, but of all bytes and under a key that nobody knows."""
    digest = hashlib.blake2b(repr((mimetype, filename)).encode(), key=ADDRESS_KEY, digest_size=32)
    digest.update(data)
    return digest.hexdigest()


def without_path(create: Callable[..., ForwardMsg]) -> Callable[..., ForwardMsg]:
    """Make the message that opens a page name no folder of this machine."""

    @functools.wraps(create)
    def wrapper(*args: Any, **kwargs: Any) -> ForwardMsg:
        message = create(*args, **kwargs)
        message.new_session.main_script_path = message.new_session.name
        return message

    return wrapper


def _ignore(*_: Any) -> None:
    """Do nothing."""


# Owner, name and replacement. None of this is an option of Streamlit's; a later version may need other lines.
REPLACED: tuple[tuple[Any, str, Any], ...] = (
    (script_runner, "_clean_problem_modules", _ignore),  # it clears Keras' session after each click: all visitors wait
    (memory_media_file_storage, "_calculate_file_id", media_address),  # who knows a photo could compute its address
    (AppSession, "_create_new_session_message", without_path(AppSession._create_new_session_message)),
    (AppSession, "_handle_git_information_request", _ignore),  # it tells any visitor the files that Git does not track
    (AppSession, "_handle_clear_cache_request", _ignore),  # it clears the cache of all visitors
    (MultiPartParser, "spool_max_size", sys.maxsize),  # larger uploads would go through a temporary file
    (net_util, "get_external_ip", _ignore),  # it sends a request to another server
)


def configure_streamlit(options: dict[str, Any]) -> None:
    """Apply ``CONFIG`` with further ``options``, and ``REPLACED``.

    Raises:
        AttributeError: This version of Streamlit has no such function: what replaced it needs another place.
    """
    for owner, name, replacement in REPLACED:
        getattr(owner, name)
        setattr(owner, name, replacement)
    load_config_options(CONFIG | options)
