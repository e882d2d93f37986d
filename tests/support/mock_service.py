"""A mock service whose networks see colours: rectangles are faces, and their colours embeddings. And its requests."""

import base64
import io
import threading
from contextlib import contextmanager

import numpy as np
import requests
import typer
from PIL import Image

from visor.cli import services
from visor.core.server import create_server, listen, url
from visor.models.detectors import Detections
from visor.services.accounts import AccountStore
from visor.services.face_matching import face_encoder
from visor.services.mock_service import RequestLimits, create_app

KEY = "a-key-of-the-tests"
OTHER_KEY = "another-key"
RED, GREEN, BLUE, MIXED = (250, 0, 0), (0, 240, 0), (0, 0, 230), (180, 180, 0)
MAX_BODY = 400_000

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(services.query)
app.command()(services.mock_service)


def detect(images):
    """Bright columns are faces, from the image's top down to its last bright row."""
    detections = []
    for image in images:
        bright = image.max(axis=2) > 90
        edges = np.flatnonzero(np.diff(np.pad(bright.any(axis=0), 1).astype(int)))
        runs = edges.reshape(-1, 2)
        heights = [np.flatnonzero(bright[:, a:b].any(axis=1))[-1] + 1 for a, b in runs]
        boxes = [[a, 0, b - a, height] for (a, b), height in zip(runs, heights, strict=True)]
        detections.append(Detections(np.array(boxes, np.float32).reshape(-1, 4), np.linspace(0.9, 0.6, len(runs))))
    return detections


def detect_one(image):
    return detect(image[np.newaxis])[0]


def embed(images):
    colours = images.reshape(len(images), -1, 3).mean(axis=1)
    return colours / np.linalg.norm(colours, axis=1, keepdims=True)


encode_faces = face_encoder(detect_one, embed, (12, 10), 0.0)


def draw_faces(*faces, file_format="PNG"):
    """A file of rectangles side by side on black: (colour, width, height), in pixels that JPEG keeps apart."""
    canvas = np.zeros((64, 32 + sum(width + 32 for _, width, _ in faces), 3), np.uint8)
    left = 32
    for colour, width, height in faces:
        canvas[:height, left : left + width] = colour
        left += width + 32
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, file_format)
    return file.getvalue()


def encode(content):
    return base64.b64encode(content).decode()


ONE, TWO = draw_faces((RED, 32, 48)), draw_faces((GREEN, 16, 32), (MIXED, 48, 64))
BODY = {"source": encode(ONE), "target": encode(TWO)}


@contextmanager
def running(encoder=encode_faces, budget=500, rate=1000.0, keys=(KEY, OTHER_KEY), **limits):
    """Yield the address of a mock service on a free port."""
    accounts = AccountStore(keys, budget, rate)
    application = create_app(encoder, accounts, "v1", 75.0, 85, RequestLimits(**{"body_bytes": MAX_BODY} | limits))
    listener, server = listen("127.0.0.1", 0), create_server(application)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield url(listener)
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive()


def compare(address, body=BODY, key=KEY, **options):
    headers = {"Authorization": f"Bearer {key}"}
    return requests.post(f"{address}/v1/compare", json=body, headers=headers, timeout=10, **options)
