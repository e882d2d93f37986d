"""The mock service over HTTP: ``POST /v1/compare``, ``GET /v1/usage``, ``GET /health``; errors are a sentence in JSON.

Checked are key (401), rate (429), budget (402), body (413, 408, 400, 415) and faces (422), in this order. No more than
``RequestLimits`` allow is held in memory and computed at once; no image is logged or written.
"""

import asyncio
import math
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from visor.core.types import ImageArray
from visor.data.images import ImageDecodeError
from visor.data.isolated_images import decode_isolated
from visor.services.accounts import Account, AccountStore, ApiError
from visor.services.face_matching import EncodeFacesFn, compare_faces

MAX_SIDE = 65_500  # pixels, the limit of libjpeg
MAX_QUOTED = 60  # characters of a request in an answer


@dataclass(frozen=True)
class RequestLimits:
    """Limits on the bytes and seconds of a body, and on the requests computed, and held for each key, at once."""

    body_bytes: int = 16 << 20
    body_seconds: float = 30.0
    workers: int = 2
    held: int = 8


class CompareRequest(BaseModel):
    """Body of ``POST /v1/compare``: two image files, which JSON holds in base64."""

    # Base64Bytes would skip characters that are not base64.
    model_config = ConfigDict(extra="forbid", val_json_bytes="base64")

    source: bytes
    target: bytes


def create_app(
    encode_faces: EncodeFacesFn,
    accounts: AccountStore,
    version: str,
    threshold: float,
    quality: int,
    limits: RequestLimits | None = None,
) -> FastAPI:
    """Return the application.

    ``version`` is a name for everything that answers depend on, ``threshold`` the similarity 0–100 from which two faces
    count as one person, ``quality`` the JPEG quality each image is re-encoded with.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    bounds = limits or RequestLimits()
    workers = asyncio.Semaphore(bounds.workers)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "version": version, "threshold": threshold}

    @app.get("/v1/usage")
    async def usage(request: Request) -> dict[str, Any]:
        account = accounts.account(request.headers.get("authorization", ""))
        return {"used": account.used, "budget": accounts.budget, "rate": accounts.rate}

    @app.post("/v1/compare")
    async def compare(request: Request) -> dict[str, Any]:
        account = _authorise(request, accounts)
        with accounts.place(account, bounds.held):
            body = await _read(request, bounds)
            async with workers:
                images = await run_in_threadpool(_decode_images, body)
                accounts.charge(account)
                result = await run_in_threadpool(compare_faces, encode_faces, *images, quality)
        if result.missing:
            raise ApiError(422, f"no face found in the {result.missing} image", missing=result.missing)
        return {"similarity": result.faces[0]["similarity"], "source": result.source, "faces": result.faces}

    app.add_exception_handler(ApiError, _api_error_response)
    app.add_exception_handler(HTTPException, _unknown_endpoint)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(Exception, _internal_error)
    return app


def _authorise(request: Request, accounts: AccountStore) -> Account:
    account = accounts.account(request.headers.get("authorization", ""))
    accounts.take_token(account)
    accounts.check_budget(account)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "the body is not declared as JSON; send Content-Type: application/json")
    return account


async def _read(request: Request, limits: RequestLimits) -> bytes:
    """Return the body; one that is too large is rejected before it is held, whatever its header claims."""
    too_large = ApiError(413, f"the body has more than {limits.body_bytes:,} bytes; send smaller images")
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > limits.body_bytes:
        raise too_large
    body = bytearray()

    async def receive() -> None:
        async for piece in request.stream():
            body.extend(piece)
            if len(body) > limits.body_bytes:
                raise too_large

    try:
        await asyncio.wait_for(receive(), limits.body_seconds)
    except asyncio.TimeoutError:
        raise ApiError(408, f"the body took more than {limits.body_seconds:g} seconds; send it faster") from None
    return bytes(body)


def _decode_images(body: bytes) -> tuple[ImageArray, ImageArray]:
    """Return source and target of a body, uint8 (h, w, 3)."""
    try:
        request = CompareRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        if first["type"].startswith("bytes"):
            problem = f"{first['loc'][0]} is not base64"
        else:
            problem = "the body is not JSON" if first["type"] == "json_invalid" else "other keys than source and target"
        raise ApiError(400, f'{problem}; send {{"source": BASE64, "target": BASE64}} of image files') from None
    return _decode_image(request.source, "source"), _decode_image(request.target, "target")


def _decode_image(content: bytes, name: str) -> ImageArray:
    try:
        image = decode_isolated(content, name)
    except ImageDecodeError as error:
        message = f"{name} cannot be read as an image ({error.args[1]}); send a complete JPEG or PNG"
        raise ApiError(415 if error.args[1] == "not an image" else 400, message) from None
    if max(image.shape) > MAX_SIDE:
        raise ApiError(400, f"{name} has more than {MAX_SIDE:,} pixels a side; send a smaller image")
    return image


async def _api_error_response(request: Request, error: Any) -> JSONResponse:
    headers = {} if error.wait is None else {"Retry-After": str(math.ceil(error.wait))}
    content = {"error": error.message} | ({"missing": error.missing} if error.missing else {})
    return JSONResponse(content, error.status, headers)


async def _unknown_endpoint(request: Request, error: Any) -> JSONResponse:
    path = request.url.path[:MAX_QUOTED]
    message = f"{request.method} {path} is not served, only POST /v1/compare, GET /v1/usage, GET /health"
    return JSONResponse({"error": message}, error.status_code, error.headers)


async def _disconnected(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": "the connection was closed before the body was complete"}, 400)


async def _internal_error(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": "internal error; see the service's log"}, 500)
