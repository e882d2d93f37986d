"""Client of the range that ``visor range`` starts."""

import base64
import json
from typing import Any

import requests

from visor.core.errors import UserError
from visor.services.base import (
    BudgetExhausted,
    Comparison,
    ComparisonService,
    ImageRejected,
    MatchedFace,
    parse_similarity,
)
from visor.services.http import Reply, api_key, check_https, get, header_auth, parse_json, post

KEY_VARIABLE = "VISOR_RANGE_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"
REFUSED = {400, 413, 415}


def connect(url: str | None) -> ComparisonService:
    """Return the range at ``url`` (default: this machine's port 8000), with the key in VISOR_RANGE_KEY.

    Raises:
        UserError: no key, one that would go over the network in clear, or nobody answers there.
    """
    root = (url or DEFAULT_URL).rstrip("/")
    check_https(root, "--url")
    authorise, session = (
        header_auth("Authorization", f"Bearer {api_key(KEY_VARIABLE, 'the range')}"),
        requests.Session(),
    )
    version = _version(session, root)

    def compare(one: bytes, other: bytes) -> Comparison:
        body = {"source": base64.b64encode(one).decode(), "target": base64.b64encode(other).decode()}
        return _answer(post(session, f"{root}/v1/compare", authorise, body), root)

    return ComparisonService("range", f"range {root} {version['version']}", version["threshold"], compare)


def _version(session: requests.Session, root: str) -> dict[str, Any]:
    """Return what the range says of itself: whether remembered answers are its own depends on it."""
    try:
        said = json.loads(get(session, f"{root}/health").body)
        return {"version": str(said["version"]), "threshold": parse_similarity(said["threshold"])}
    except requests.ConnectionError:
        raise UserError(
            f"{root} does not answer; start the range by `visor range`, or name its address by --url"
        ) from None
    except (requests.RequestException, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UserError(f"{root} is no range; start one by `visor range`, or name its address by --url") from None


def _answer(reply: Reply, root: str) -> Comparison:
    said = parse_json(reply, root)
    try:
        if reply.status == 200:
            faces = tuple(
                MatchedFace(tuple(face["box"]), parse_similarity(face["similarity"])) for face in said["faces"]
            )
            return Comparison(parse_similarity(said["similarity"]), faces)
        if reply.status == 422:
            return Comparison(None, (), str(said["missing"]))
        sentence = str(said["error"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"{root} answers {reply.status} with other than a range's JSON; check the address") from None
    if reply.status in REFUSED:
        raise ImageRejected(sentence)
    if reply.status == 401:
        raise UserError(
            f"{root} refuses the key ({reply.status}); set {KEY_VARIABLE} to one of those it was started with"
        )
    if reply.status == 402:
        raise BudgetExhausted(
            f"{root} answers no more queries of this key (402); start it anew, or with a higher --budget"
        )
    raise UserError(f"{root} answers {reply.status}: {sentence}")
