"""Who may ask the range, how often and how fast."""

import hashlib
import hmac
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from visor.core.errors import UserError

KEYS_VARIABLE = "VISOR_RANGE_KEYS"


def keys_from_environment() -> list[str]:
    """Return the keys in VISOR_RANGE_KEYS, which commas part.

    Raises:
        UserError: there is none, or one that no header can hold.
    """
    keys = [key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",") if key.strip()]
    if not keys:
        raise UserError(f"{KEYS_VARIABLE} is not set; put the keys that the range lets in there, parted by commas")
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise UserError(f"{KEYS_VARIABLE} holds characters that no key has; put keys of ASCII there, parted by commas")
    return keys


class ApiError(Exception):
    """A request that is answered by ``status`` and a sentence; ``wait``: seconds until it is worth another try."""

    def __init__(self, status: int, sentence: str, wait: float | None = None, missing: str | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.wait, self.missing = status, sentence, wait, missing


@dataclass
class Account:
    """Of one key: queries that were answered, and a bucket of those it may ask at once (a token bucket)."""

    used: int
    tokens: float
    filled: float  # the clock when ``tokens`` was right


class AccountStore:
    """Accounts of all keys: ``budget`` queries each, ``rate`` a second, in bursts of a second's worth.

    It lives in the one thread of the event loop. Keys are held and compared as digests, in constant time.
    """

    def __init__(
        self, keys: Iterable[str], budget: int, rate: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.budget, self.rate, self.burst, self.clock = budget, rate, max(1.0, rate), clock
        self.accounts = {_digest(key): Account(0, self.burst, clock()) for key in keys}

    def account(self, authorization: str) -> Account:
        """Return the account of a header ``Bearer KEY``.

        Raises:
            Denied: 401, no such key.
        """
        scheme, _, key = authorization.partition(" ")
        wanted = _digest(key.strip())
        found = [account for digest, account in self.accounts.items() if hmac.compare_digest(digest, wanted)]
        if scheme.lower() != "bearer" or not found:
            raise ApiError(
                401, "the key is wrong; send one that the range knows as the header Authorization: Bearer KEY"
            )
        return found[0]

    def take_token(self, account: Account) -> None:
        """Take a token.

        Raises:
            Denied: 429, with the seconds until there is one.
        """
        now = self.clock()
        account.tokens = min(self.burst, account.tokens + self.rate * (now - account.filled))
        account.filled = now
        if account.tokens < 1:
            wait = (1 - account.tokens) / self.rate
            raise ApiError(429, f"more than {self.rate:g} queries a second; ask again in {wait:.2f} seconds", wait)
        account.tokens -= 1

    def check_budget(self, account: Account) -> None:
        """Make sure of a query.

        Raises:
            Denied: 402, none is left.
        """
        if account.used >= self.budget:
            raise ApiError(402, f"all {self.budget} queries of this key are used up; ask with another key")

    def charge(self, account: Account) -> None:
        """Take a query off the budget.

        Raises:
            Denied: 402, none is left.
        """
        self.check_budget(account)
        account.used += 1


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
