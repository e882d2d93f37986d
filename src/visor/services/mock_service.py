"""The range over HTTP: ``POST /v1/compare``, ``GET /v1/usage``, ``GET /health``; every refusal is one sentence of JSON.

A request goes by key (401), rate (429), budget (402), body (413, 408, 400, 415) and faces (422), in this order. No more
than ``Limits`` says are held in memory and worked on at once; no picture is logged or written.
"""

import asyncio
import base64
import binascii
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from visor.core.types import ImageArray
from visor.data.images import ImageDecodeError, decode_image
from visor.services.accounts import Account, AccountStore, ApiError
from visor.services.face_matching import EncodeFacesFn, compare_faces

JPEG_SIDE = 65_500  # pixels, the most that libjpeg writes
ADDRESSES = "POST /v1/compare, GET /v1/usage and GET /health"


@dataclass(frozen=True)
class RequestLimits:
    """What a request may cost: bytes and seconds of its body, requests worked on and held at once."""

    body_bytes: int = 16 << 20
    body_seconds: float = 30.0
    workers: int = 2
    held: int = 32


def create_app(
    see: EncodeFacesFn,
    ledger: AccountStore,
    version: str,
    threshold: float,
    quality: int,
    limits: RequestLimits | None = None,
) -> FastAPI:
    """Return the application.

    ``version`` is a name for all that answers depend on, ``threshold`` the similarity, 0–100, from which on two faces
    count as one person, ``quality`` that of the JPEG that every picture becomes.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    bounds = limits or RequestLimits()
    desk = RequestSlots(bounds)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "version": version, "threshold": threshold}

    @app.get("/v1/usage")
    async def usage(request: Request) -> dict[str, Any]:
        account = ledger.account(request.headers.get("authorization", ""))
        return {"used": account.used, "budget": ledger.budget, "rate": ledger.rate}

    @app.post("/v1/compare")
    async def answer(request: Request) -> dict[str, Any]:
        account = _authorise(request, ledger)
        async with desk.acquire():
            body = await _read(request, bounds)
            async with desk.workers:
                pictures = await run_in_threadpool(_decode_images, body)
                ledger.charge(account)
                found = await run_in_threadpool(compare_faces, see, *pictures, quality)
        if found.missing:
            sentence = f"there is no face in the {found.missing} picture; send one that shows a face"
            raise ApiError(422, sentence, missing=found.missing)
        return {"similarity": found.faces[0]["similarity"], "source": found.source, "faces": found.faces}

    app.add_exception_handler(ApiError, _api_error_response)
    app.add_exception_handler(HTTPException, _no_address)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(Exception, _internal_error)
    return app


class RequestSlots:
    """Where requests are worked on: ``workers`` at once, no more than ``held`` waiting or sending."""

    def __init__(self, limits: RequestLimits) -> None:
        self.workers = asyncio.Semaphore(limits.workers)
        self.free = limits.held

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        """Take a place for as long as the context lasts.

        Raises:
            Denied: 503, all are taken.
        """
        if self.free <= 0:
            raise ApiError(503, "too many requests at once; ask again in 1 second", 1.0)
        self.free -= 1
        try:
            yield
        finally:
            self.free += 1


def _authorise(request: Request, ledger: AccountStore) -> Account:
    account = ledger.account(request.headers.get("authorization", ""))
    ledger.take_token(account)
    ledger.check_budget(account)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "the body is not declared as JSON; send Content-Type: application/json")
    return account


async def _read(request: Request, limits: RequestLimits) -> bytes:
    """Return the body; one that is too large is refused before it is held, whatever its header says."""
    too_large = ApiError(413, f"the body has more than {limits.body_bytes:,} bytes; send smaller pictures")
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > limits.body_bytes:
        raise too_large
    body = bytearray()

    async def fill() -> None:
        async for piece in request.stream():
            body.extend(piece)
            if len(body) > limits.body_bytes:
                raise too_large

    try:
        await asyncio.wait_for(fill(), limits.body_seconds)
    except asyncio.TimeoutError:
        raise ApiError(408, f"the body took more than {limits.body_seconds:g} seconds; send it faster") from None
    return bytes(body)


def _decode_images(body: bytes) -> tuple[ImageArray, ImageArray]:
    """Return source and target of a body, uint8 (h, w, 3)."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, 'the body is not JSON; send {"source": BASE64, "target": BASE64}') from None
    if not isinstance(said, dict) or said.keys() != {"source", "target"}:
        raise ApiError(400, 'the body has other keys than the two wanted; send {"source": BASE64, "target": BASE64}')
    return _picture(said["source"], "source"), _picture(said["target"], "target")


def _picture(words: Any, name: str) -> ImageArray:
    try:
        content = base64.b64decode(words, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ApiError(400, f"{name} is not base64; send the bytes of an image file in base64") from None
    try:
        picture = decode_image(content, name)
    except ImageDecodeError as error:
        status = 415 if error.args[1] == "not an image" else 400
        raise ApiError(
            status, f"{name} cannot be read as an image ({error.args[1]}); send a whole JPEG or PNG"
        ) from None
    if max(picture.shape) > JPEG_SIDE:
        raise ApiError(400, f"{name} has more than {JPEG_SIDE:,} pixels a side; send a smaller picture")
    return picture


async def _api_error_response(request: Request, error: Any) -> JSONResponse:
    headers = {} if error.wait is None else {"Retry-After": str(math.ceil(error.wait))}
    told = {"error": error.sentence} | ({"missing": error.missing} if error.missing else {})
    return JSONResponse(told, error.status, headers)


async def _no_address(request: Request, error: Any) -> JSONResponse:
    sentence = f"{request.method} {request.url.path} is not served; there are {ADDRESSES}"
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


async def _disconnected(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": "the connection was closed before the body was whole"}, 400)


async def _internal_error(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": "the range failed on this request, and its console says why; others go on"}, 500)
