"""Client of the range that ``visor range`` starts."""

import base64
import json
from typing import Any

import requests

from visor.black_box.answers import Answer, Face, OutOfBudget, Refusal, Service, percent
from visor.black_box.posting import Reply, content, get, key_from, post, require_safe, with_key
from visor.errors import UserError

KEY = "VISOR_RANGE_KEY"
URL = "http://127.0.0.1:8000"
REFUSED = {400, 413, 415}


def connect(url: str | None) -> Service:
    """Return the range at ``url`` (default: this machine's port 8000), with the key in VISOR_RANGE_KEY.

    Raises:
        UserError: no key, one that would go over the network in clear, or nobody answers there.
    """
    root = (url or URL).rstrip("/")
    require_safe(root, "--url")
    authorise, session = with_key("Authorization", f"Bearer {key_from(KEY, 'the range')}"), requests.Session()
    version = _version(session, root)

    def compare(one: bytes, other: bytes) -> Answer:
        body = {"source": base64.b64encode(one).decode(), "target": base64.b64encode(other).decode()}
        return _answer(post(session, f"{root}/v1/compare", authorise, body), root)

    return Service("range", f"range {root} {version['version']}", version["threshold"], compare)


def _version(session: requests.Session, root: str) -> dict[str, Any]:
    """Return what the range says of itself: whether remembered answers are its own depends on it."""
    try:
        said = json.loads(get(session, f"{root}/health").body)
        return {"version": str(said["version"]), "threshold": percent(said["threshold"])}
    except requests.ConnectionError:
        raise UserError(
            f"{root} does not answer; start the range by `visor range`, or name its address by --url"
        ) from None
    except (requests.RequestException, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UserError(f"{root} is no range; start one by `visor range`, or name its address by --url") from None


def _answer(reply: Reply, root: str) -> Answer:
    said = content(reply, root)
    try:
        if reply.status == 200:
            faces = tuple(Face(tuple(face["box"]), percent(face["similarity"])) for face in said["faces"])
            return Answer(percent(said["similarity"]), faces)
        if reply.status == 422:
            return Answer(None, (), str(said["missing"]))
        sentence = str(said["error"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"{root} answers {reply.status} with other than a range's JSON; check the address") from None
    if reply.status in REFUSED:
        raise Refusal(sentence)
    if reply.status == 401:
        raise UserError(f"{root} refuses the key ({reply.status}); set {KEY} to one of those it was started with")
    if reply.status == 402:
        raise OutOfBudget(f"{root} answers no more queries of this key (402); start it anew, or with a higher --budget")
    raise UserError(f"{root} answers {reply.status}: {sentence}")
