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

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from visor.black_box.ledger import Account, Denied, Ledger
from visor.black_box.matching import See, compare
from visor.faces import BrokenImage, Images
from visor.images import decode

JPEG_SIDE = 65_500  # pixels, the most that libjpeg writes
ADDRESSES = "POST /v1/compare, GET /v1/usage and GET /health"


@dataclass(frozen=True)
class Limits:
    """What a request may cost: bytes and seconds of its body, requests worked on and held at once."""

    body_bytes: int = 16 << 20
    body_seconds: float = 30.0
    workers: int = 2
    held: int = 32


def create_app(
    see: See, ledger: Ledger, version: str, threshold: float, quality: int, limits: Limits | None = None
) -> FastAPI:
    """Return the application.

    ``version`` is a name for all that answers depend on, ``threshold`` the similarity, 0–100, from which on two faces
    count as one person, ``quality`` that of the JPEG that every picture becomes.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    bounds = limits or Limits()
    desk = Desk(bounds)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "version": version, "threshold": threshold}

    @app.get("/v1/usage")
    async def usage(request: Request) -> dict[str, Any]:
        account = ledger.account(request.headers.get("authorization", ""))
        return {"used": account.used, "budget": ledger.budget, "rate": ledger.rate}

    @app.post("/v1/compare")
    async def answer(request: Request) -> dict[str, Any]:
        account = _admit(request, ledger)
        async with desk.place():
            body = await _read(request, bounds)
            async with desk.workers:
                pictures = await run_in_threadpool(_pictures, body)
                ledger.charge(account)
                found = await run_in_threadpool(compare, see, *pictures, quality)
        if found.missing:
            sentence = f"there is no face in the {found.missing} picture; send one that shows a face"
            raise Denied(422, sentence, missing=found.missing)
        return {"similarity": found.faces[0]["similarity"], "source": found.source, "faces": found.faces}

    app.add_exception_handler(Denied, _denied)
    app.add_exception_handler(HTTPException, _no_address)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _broken)
    return app


class Desk:
    """Where requests are worked on: ``workers`` at once, no more than ``held`` waiting or sending."""

    def __init__(self, limits: Limits) -> None:
        self.workers = asyncio.Semaphore(limits.workers)
        self.free = limits.held

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Take a place for as long as the context lasts.

        Raises:
            Denied: 503, all are taken.
        """
        if self.free <= 0:
            raise Denied(503, "too many requests at once; ask again in 1 second", 1.0)
        self.free -= 1
        try:
            yield
        finally:
            self.free += 1


def _admit(request: Request, ledger: Ledger) -> Account:
    account = ledger.account(request.headers.get("authorization", ""))
    ledger.pace(account)
    ledger.require_budget(account)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Denied(415, "the body is not declared as JSON; send Content-Type: application/json")
    return account


async def _read(request: Request, limits: Limits) -> bytes:
    """Return the body; one that is too large is refused before it is held, whatever its header says."""
    too_large = Denied(413, f"the body has more than {limits.body_bytes:,} bytes; send smaller pictures")
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
        raise Denied(408, f"the body took more than {limits.body_seconds:g} seconds; send it faster") from None
    return bytes(body)


def _pictures(body: bytes) -> tuple[Images, Images]:
    """Return source and target of a body, uint8 (h, w, 3)."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise Denied(400, 'the body is not JSON; send {"source": BASE64, "target": BASE64}') from None
    if not isinstance(said, dict) or said.keys() != {"source", "target"}:
        raise Denied(400, 'the body has other keys than the two wanted; send {"source": BASE64, "target": BASE64}')
    return _picture(said["source"], "source"), _picture(said["target"], "target")


def _picture(words: Any, name: str) -> Images:
    try:
        content = base64.b64decode(words, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Denied(400, f"{name} is not base64; send the bytes of an image file in base64") from None
    try:
        picture = np.asarray(decode(content, name))
    except BrokenImage as error:
        status = 415 if error.args[1] == "not an image" else 400
        raise Denied(status, f"{name} cannot be read as an image ({error.args[1]}); send a whole JPEG or PNG") from None
    if max(picture.shape) > JPEG_SIDE:
        raise Denied(400, f"{name} has more than {JPEG_SIDE:,} pixels a side; send a smaller picture")
    return picture


async def _denied(request: Request, error: Any) -> JSONResponse:
    headers = {} if error.wait is None else {"Retry-After": str(math.ceil(error.wait))}
    told = {"error": error.sentence} | ({"missing": error.missing} if error.missing else {})
    return JSONResponse(told, error.status, headers)


async def _no_address(request: Request, error: Any) -> JSONResponse:
    sentence = f"{request.method} {request.url.path} is not served; there are {ADDRESSES}"
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


async def _gone(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": "the connection was closed before the body was whole"}, 400)


async def _broken(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": "the range failed on this request, and its console says why; others go on"}, 500)
