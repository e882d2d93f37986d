"""Browser sessions as the server knows them: a closed tab takes its photos with it, after a while.

Streamlit keeps a session whose tab is gone in case it comes back, and lets go of it when somebody else comes, which may
be never. So sessions are watched here, and closed when their time is up.
"""

import time
from collections.abc import Callable


class Sessions:
    """Those that joined; ``close`` is called for one that was not ``connected`` for more than ``patience`` seconds."""

    def __init__(
        self,
        connected: Callable[[str], bool],
        close: Callable[[str], None],
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connected, self._close, self._patience, self._clock = connected, close, patience, clock
        self._seen: dict[str, float] = {}

    def join(self, session: str) -> None:
        """Note that a session's page is drawn; from any thread."""
        self._seen[session] = self._clock()

    def sweep(self) -> None:
        """Look after the sessions once."""
        now = self._clock()
        for session, seen in list(self._seen.items()):
            if self._connected(session):
                self._seen[session] = now
            elif now - seen > self._patience:
                del self._seen[session]
                self._close(session)
