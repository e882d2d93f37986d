"""Client of any service that takes two base64 images in JSON and answers in JSON, as a YAML file describes it."""

import base64
import copy
import hashlib
import sys
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from tqdm import tqdm

from visor.core.config import read_yaml, validate_block
from visor.core.errors import UserError, shorten
from visor.core.params import ParamsBlock, PositiveFloat
from visor.services import base, http

JsonPath = Annotated[str, Field(min_length=1)]  # keys and list indices, joined by dots: data.faces.0.score
LOOKUP_ERRORS = (KeyError, IndexError, TypeError, ValueError)


class NoFaceRule(ParamsBlock):
    """How the service reports that an image shows no face: by ``status``, by ``value`` at ``place``, or by both."""

    status: int | None = None
    place: JsonPath | None = None
    value: str | int | float | bool | None = None


class ServiceDescription(ParamsBlock):
    """A service: its address and key, paths in a request and its answer, and what its statuses mean."""

    url: str
    key: JsonPath  # environment variable of the API key, which is sent in ``header`` after ``prefix``
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")] = "Authorization"
    prefix: Annotated[str, Field(pattern="^[ -~]*$")] = ""
    source: JsonPath  # of the first image in the request, as ``target`` of the second
    target: JsonPath
    request: Annotated[dict[str, Any], Field(default_factory=dict)]  # the rest of the request
    similarity: JsonPath  # in the answer; its value times ``scale`` is 0–100
    scale: PositiveFloat = 1.0
    threshold: base.Similarity | None = None
    faces: JsonPath | None = None  # list of the second image's faces, each with the next two
    box: Annotated[list[JsonPath], Field(min_length=4, max_length=4)] | None = None  # x, y, width, height
    face_similarity: JsonPath | None = None
    no_face: NoFaceRule | None = None
    refused: Annotated[list[int], Field(default_factory=lambda: [400, 413, 415, 422])]  # of images, others may pass
    out_of_budget: Annotated[list[int], Field(default_factory=lambda: [402])]


def connect(path: Path, url: str | None) -> base.ComparisonService:
    """Return the service that a file describes, at ``url`` if that is given.

    Raises:
        UserError: The file is missing or wrong, or would send the key unencrypted; or there is no key.
    """
    description = read(path)
    address = url or description.url
    http.check_https(address, f"{path}: url")
    _check_image_paths(description, path)
    (key,) = http.keys_from_environment(description.key, f"the API key of {path.stem}")
    session = http.open_session(description.header, description.prefix + key)
    unscaled = "scale" not in description.model_fields_set

    def compare(source: bytes, target: bytes) -> base.Comparison:
        nonlocal unscaled
        body = _request(description, *(base64.b64encode(image).decode() for image in (source, target)))
        comparison = _comparison(http.post(session, address, body), description, path)
        if unscaled and 0 < (comparison.similarity or 0) < 1:
            unscaled = False  # warn once
            advice = "if the service's own go up to 1, add scale: 100"
            tqdm.write(f"{path}: a similarity is below 1 of 100; {advice}", file=sys.stderr)
        return comparison

    identity = hashlib.sha256(description.model_dump_json().encode()).hexdigest()
    return base.ComparisonService(path.stem, f"{address} {identity}", description.threshold, compare)


def read(path: Path) -> ServiceDescription:
    """Read and check a description; raises ``UserError`` if the file is missing or wrong."""
    return validate_block(ServiceDescription, read_yaml(path, "pass the YAML file of a service"), str(path))


def _check_image_paths(description: ServiceDescription, path: Path) -> None:
    """Check that both images fit into the request: neither is inside the other, or inside a value of ``request``."""
    source, target = description.source, description.target
    try:
        body = _request(description, "1", "2")
        fits = [_lookup(body, source), _lookup(body, target)] == ["1", "2"]
    except (AttributeError, *LOOKUP_ERRORS):
        fits = False
    if not fits:
        raise UserError(
            f"{path}: source {shorten(source)} and target {shorten(target)} cannot be set in the request; "
            "correct these paths"
        )


def _request(description: ServiceDescription, source: str, target: str) -> dict[str, Any]:
    """Return the body of a request for two images in base64."""
    body = copy.deepcopy(description.request)
    for path, image in ((description.source, source), (description.target, target)):
        *parents, last = path.split(".")
        reduce(lambda part, key: part.setdefault(key, {}), parents, body)[last] = image
    return body


def _lookup(response: Any, path: str) -> Any:
    """Return the value at a path, or raise one of ``LOOKUP_ERRORS``."""
    for key in path.split("."):
        response = response[key if isinstance(response, Mapping) else int(key)]
    return response


def _comparison(reply: http.Reply, description: ServiceDescription, path: Path) -> base.Comparison:
    if reply.status in (401, 403):
        raise UserError(f"{path}: the service rejects the key ({reply.status}); check {description.key}")
    if reply.status in description.out_of_budget:
        advice = "run again later, answers so far are cached"
        raise base.BudgetExhausted(f"{path}: the account's quota is used up ({reply.status}); {advice}")
    response = http.parse_json(reply, str(path))
    if description.no_face and _reports_no_face(reply.status, response, description.no_face):
        return base.Comparison(None, (), "either")
    if reply.status in description.refused:
        raise base.ImageRejected(f"the service answers {reply.status}")
    if reply.status != 200:
        raise UserError(f"{path}: the service answers {reply.status}; check url, or add the status to the file")
    try:
        similarity = base.parse_similarity(description.scale * float(_lookup(response, description.similarity)))
        faces = _lookup(response, description.faces) if description.faces else ()
        return base.Comparison(similarity, tuple(_face(face, description) for face in faces))
    except (OverflowError, *LOOKUP_ERRORS) as error:
        raise UserError(f"{path}: the answer is not as described ({error}); correct its paths or scale") from None


def _reports_no_face(status: int, response: Any, rule: NoFaceRule) -> bool:
    if rule.status not in (None, status):
        return False
    if rule.place is None:
        return rule.status is not None
    try:
        return bool(_lookup(response, rule.place) == rule.value)
    except LOOKUP_ERRORS:
        return False


def _face(face: Any, description: ServiceDescription) -> base.MatchedFace:
    path, box = description.face_similarity, None
    similarity = base.parse_similarity(description.scale * float(_lookup(face, path))) if path else None
    if description.box:
        x, y, width, height = (float(_lookup(face, path)) for path in description.box)
        box = x, y, width, height
    return base.MatchedFace(box, similarity)
