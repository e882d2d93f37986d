"""Client of any service that takes two base64 images in JSON and answers in JSON, as a YAML file describes it."""

import base64
import copy
import hashlib
import sys
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import requests
from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tqdm import tqdm

from visor.core.config import validate_block
from visor.core.errors import UserError
from visor.core.params import ParamsBlock, PositiveFloat
from visor.services.base import (
    BudgetExhausted,
    Comparison,
    ComparisonService,
    ImageRejected,
    MatchedFace,
    parse_similarity,
)
from visor.services.http import Reply, api_key, check_https, header_auth, parse_json, post

SCALE = "if the service's own go up to 1, add scale: 100"
JsonPath = Annotated[str, Field(min_length=1)]  # keys and list numbers, joined by dots: data.faces.0.score


class NoFaceRule(ParamsBlock):
    """How the service says that a face lacks: ``status``, and ``value`` at ``place``, where they are given."""

    status: int | None = None
    place: JsonPath | None = None
    value: str | int | float | bool | None = None


class ServiceDescription(ParamsBlock):
    """A service. The key is the environment's ``key``, sent in ``header`` after ``prefix``.

    ``source`` and ``target`` are the places of the images in the request, which else holds ``request``. Of the answer,
    ``similarity`` times ``scale`` is 0–100; ``faces`` is the list of the second picture's faces, in each of which
    ``box`` are the places of x, y, width and height, and ``face_similarity`` that of its similarity. ``refused`` and
    ``out_of_budget`` are statuses: of pictures that it does not take, and of an account that is empty.
    """

    url: str
    key: JsonPath
    header: JsonPath = "Authorization"
    prefix: str = ""
    source: JsonPath
    target: JsonPath
    request: Annotated[dict[str, Any], Field(default_factory=dict)]
    similarity: JsonPath
    scale: PositiveFloat = 1.0
    threshold: Annotated[float, Field(ge=0, le=100)] | None = None
    faces: JsonPath | None = None
    box: Annotated[list[JsonPath], Field(min_length=4, max_length=4)] | None = None
    face_similarity: JsonPath | None = None
    no_face: NoFaceRule | None = None
    refused: Annotated[list[int], Field(default_factory=lambda: [400, 413, 415, 422])]
    out_of_budget: Annotated[list[int], Field(default_factory=lambda: [402])]


def connect(path: Path, url: str | None) -> ComparisonService:
    """Return the service that the file describes, at ``url`` if that is given.

    Raises:
        UserError: the file is missing, wrong, has no place for an image, or sends the key over the network in clear.
    """
    described = read(path)
    address = url or described.url
    check_https(address, f"{path}: url")
    _require_places(described, path)
    authorise = header_auth(described.header, described.prefix + api_key(described.key, path.stem))
    session = requests.Session()
    doubts = [] if "scale" in described.model_fields_set else [f"{path}: a similarity is below 1 of 100; {SCALE}"]

    def compare(one: bytes, other: bytes) -> Comparison:
        body = _body(described, *(base64.b64encode(image).decode() for image in (one, other)))
        answer = _answer(post(session, address, authorise, body), described, path)
        if doubts and 0 < (answer.similarity or 0) < 1:
            tqdm.write(doubts.pop(), file=sys.stderr)
        return answer

    identity = hashlib.sha256(described.model_dump_json().encode()).hexdigest()
    return ComparisonService(path.stem, f"{address} {identity}", described.threshold, compare)


def read(path: Path) -> ServiceDescription:
    """Return a checked description.

    Raises:
        UserError: the file is missing, is not YAML, or a key is unknown, absent or of a wrong type.
    """
    try:
        values = YAML(typ="safe").load(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name the YAML file of a service") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return validate_block(ServiceDescription, values, str(path))


def _require_places(described: ServiceDescription, path: Path) -> None:
    places = described.source, described.target
    try:
        body = _body(described, "1", "2")
        apart = [_lookup(body, place) for place in places] == ["1", "2"]
    except (AttributeError, KeyError, TypeError, ValueError):  # one lies in the other, or in what request has there
        apart = False
    if not apart:
        raise UserError(f"{path}: source {places[0]} and target {places[1]} have no room in request; mend these places")


def _body(described: ServiceDescription, one: str, other: str) -> dict[str, Any]:
    """Return a request with images in base64."""
    body = copy.deepcopy(described.request)
    for place, image in ((described.source, one), (described.target, other)):
        *folders, last = place.split(".")
        part = body
        for key in folders:
            part = part.setdefault(key, {})
        part[last] = image
    return body


def _lookup(response: Any, place: str) -> Any:
    """Return what lies at a place; KeyError, IndexError, TypeError or ValueError: nothing does."""
    return reduce(
        lambda part, key: part[key] if isinstance(part, Mapping) else part[int(key)], place.split("."), response
    )


def _answer(reply: Reply, described: ServiceDescription, path: Path) -> Comparison:
    if reply.status in (401, 403):
        raise UserError(f"{path}: the service refuses the key ({reply.status}); check {described.key}")
    if reply.status in described.out_of_budget:
        raise BudgetExhausted(
            f"{path}: the account is empty ({reply.status}); run again when it is not: answers are kept"
        )
    response = parse_json(reply, str(path))
    if described.no_face and _reports_no_face(reply, response, described.no_face):
        return Comparison(None, (), "either")
    if reply.status in described.refused:
        raise ImageRejected(f"the service answers {reply.status}")
    if reply.status != 200:
        raise UserError(f"{path}: the service answers {reply.status}; check url, or say what it means in the file")
    try:
        similarity = parse_similarity(described.scale * float(_lookup(response, described.similarity)))
        return Comparison(similarity, _faces(response, described))
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: the answer is not as described ({error}); correct its places or scale") from None


def _reports_no_face(reply: Reply, response: Any, sign: NoFaceRule) -> bool:
    if sign.status is not None and reply.status != sign.status:
        return False
    if sign.place is None:
        return sign.status is not None
    try:
        found = _lookup(response, sign.place)
    except (KeyError, IndexError, TypeError, ValueError):
        return False
    return bool(found == sign.value)


def _faces(response: Any, described: ServiceDescription) -> tuple[MatchedFace, ...]:
    if described.faces is None:
        return ()
    return tuple(_face(face, described) for face in _lookup(response, described.faces))


def _face(face: Any, described: ServiceDescription) -> MatchedFace:
    likeness = described.face_similarity
    similarity = parse_similarity(described.scale * float(_lookup(face, likeness))) if likeness else None
    if described.box is None:
        return MatchedFace(None, similarity)
    x, y, width, height = (float(_lookup(face, place)) for place in described.box)
    return MatchedFace((x, y, width, height), similarity)
