"""Accounts of the mock service: which keys may query it, how often and how fast."""

import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

KEYS_VARIABLE = "VISOR_MOCK_KEYS"


class ApiError(Exception):
    """A request is answered by ``status`` and ``message``; ``wait``: seconds until it may succeed."""

    def __init__(self, status: int, message: str, wait: float | None = None, missing: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.wait, self.missing = status, message, wait, missing


@dataclass
class Account:
    """Answered queries of one key, its token bucket as of the clock's time ``updated``, and requests held now."""

    used: int
    tokens: float
    updated: float
    held: int = 0


class AccountStore:
    """Accounts of all keys: ``budget`` queries each, ``rate`` per second, in bursts of up to one second's worth.

    It is used in the event loop's thread only. Keys are held and compared as digests, in constant time.
    """

    def __init__(
        self, keys: Iterable[str], budget: int, rate: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.budget, self.rate, self.burst, self.clock = budget, rate, max(1.0, rate), clock
        self.accounts = {_digest(key): Account(0, self.burst, clock()) for key in keys}

    def account(self, authorization: str) -> Account:
        """Return the account of a header ``Bearer KEY``, or raise ``ApiError`` 401."""
        scheme, _, key = authorization.partition(" ")
        digest = _digest(key.strip())
        matches = [account for known, account in self.accounts.items() if hmac.compare_digest(known, digest)]
        if scheme.lower() != "bearer" or not matches:
            raise ApiError(401, "invalid API key; send a valid key in the header Authorization: Bearer KEY")
        return matches[0]

    def take_token(self, account: Account) -> None:
        """Take a token from the account's bucket, or raise ``ApiError`` 429 with the seconds until it has one."""
        now = self.clock()
        account.tokens = min(self.burst, account.tokens + self.rate * (now - account.updated))
        account.updated = now
        if account.tokens < 1:
            wait = (1 - account.tokens) / self.rate
            raise ApiError(429, f"rate limit of {self.rate:g} queries per second exceeded; retry in {wait:.2f} s", wait)
        account.tokens -= 1

    def check_budget(self, account: Account) -> None:
        """Raise ``ApiError`` 402 if the account has no query left."""
        if account.used >= self.budget:
            raise ApiError(402, f"query budget of {self.budget} exhausted for this key")

    @contextmanager
    def place(self, account: Account, places: int) -> Iterator[None]:
        """Hold one of the account's places, or raise ``ApiError`` 503: no key can take those of another."""
        if account.held >= places:
            raise ApiError(503, f"more than {places} requests of this key at once; retry in 1 s", 1.0)
        account.held += 1
        try:
            yield
        finally:
            account.held -= 1

    def charge(self, account: Account) -> None:
        """Count a query against the budget, or raise ``ApiError`` 402."""
        self.check_budget(account)
        account.used += 1


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
