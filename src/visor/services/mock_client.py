"""Client of the mock service that ``visor mock-service`` runs."""

import base64
import json
from typing import Any

import requests

from visor.core.errors import UserError
from visor.services import base, http

KEY_VARIABLE = "VISOR_MOCK_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"
REJECTED = {400, 413, 415}


def connect(url: str | None) -> base.ComparisonService:
    """Return the mock service at ``url``, or raise ``UserError`` without it or a key that may be sent there."""
    root = (url or DEFAULT_URL).rstrip("/")
    http.check_https(root, "--url")
    (key,) = http.keys_from_environment(KEY_VARIABLE, "an API key of the mock service")
    session = http.open_session("Authorization", f"Bearer {key}")
    version, threshold = _version(root)

    def compare(source: bytes, target: bytes) -> base.Comparison:
        body = {"source": base64.b64encode(source).decode(), "target": base64.b64encode(target).decode()}
        return _comparison(http.post(session, f"{root}/v1/compare", body), root)

    # "range" is the mock service's former name: another identity would discard the cached answers.
    return base.ComparisonService("mock", f"range {root} {version}", threshold, compare)


def _version(root: str) -> tuple[str, float]:
    """Return version and threshold of the mock service; cached answers belong to one version."""
    start = "start one with `visor mock-service` or pass --url"
    try:
        health = json.loads(http.get(f"{root}/health").body)
        return str(health["version"]), base.parse_similarity(health["threshold"])
    except requests.ConnectionError:
        raise UserError(f"{root} does not answer; {start}") from None
    except (requests.RequestException, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UserError(f"{root} is not a Visor mock service; {start}") from None


def _comparison(reply: http.Reply, root: str) -> base.Comparison:
    response: Any = http.parse_json(reply, root)
    try:
        if reply.status == 200:
            faces = [(tuple(face["box"]), base.parse_similarity(face["similarity"])) for face in response["faces"]]
            similarity = base.parse_similarity(response["similarity"])
            return base.Comparison(similarity, tuple(base.MatchedFace(*face) for face in faces))
        if reply.status == 422:
            return base.Comparison(None, (), str(response["missing"]))
        message = str(response["error"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"{root} answers {reply.status} with unexpected JSON; check the address") from None
    if reply.status in REJECTED:
        raise base.ImageRejected(message)
    if reply.status == 401:
        raise UserError(f"{root} rejects the key (401); set {KEY_VARIABLE} to one of the service's {KEY_VARIABLE}S")
    if reply.status == 402:
        raise base.BudgetExhausted(f"{root}: {message} (402); restart the service, or use a higher --budget there")
    raise UserError(f"{root} answers {reply.status}: {message}")
