"""What a process has one of: the desk and the watch over sessions. Server and page both ask here."""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
import json
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from streamlit.runtime import Runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from visor.app.desk import Desk
from visor.app.onlookers import Options, open_eyes
from visor.app.sessions import Sessions

SETTINGS, FORGET = "VISOR_APP", "VISOR_APP_FORGET"  # environment: Options as JSON; seconds after a tab is closed
RETURNS_WITHIN = 120  # seconds: a phone that shows something else meanwhile


@cache
def desk() -> Desk:
    """Return the desk; the networks are loaded when they are first needed."""
    chosen: Mapping[str, Any] = json.loads(os.environ.get(SETTINGS, "{}"))
    return Desk(lambda: open_eyes(Options(**chosen)))


@cache
def sessions() -> Sessions:
    """Return the sessions of the server that runs."""
    patience = float(os.environ.get(FORGET, RETURNS_WITHIN))
    return Sessions(Runtime.instance().is_active_session, _close, patience)


def joined() -> str:
    """Return the session whose page is being drawn, and note that it lives.

    Raises:
        RuntimeError: no page is being drawn.
    """
    context = get_script_run_ctx()
    if context is None:
        raise RuntimeError("this is no page of Streamlit's")
    if Runtime.exists():
        sessions().join(context.session_id)
    desk().alive(context.session_id)
    return context.session_id


def _close(session: str) -> None:
    """Drop all that there is of a session; in the server's own thread."""
    desk().forget(session)
    runtime = Runtime.instance()
    runtime.close_session(session)
    runtime.media_file_mgr.remove_orphaned_files()  # closing only marks what was to be downloaded
