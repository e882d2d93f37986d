"""How long other visitors of the privacy app wait while one floods it with messages.

    python -m benchmarks.flood

It starts the app with its networks, opens a page, sends 300 messages of 2 bytes at once, each of which asks for the
page anew, and meanwhile requests the health check again and again. It prints how long that took, and how the page
of the flooding visitor was closed.
"""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Annotated
from urllib.request import urlopen

import typer
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

RERUN = b"\x5a\x00"  # BackMsg.rerun_script, empty


@contextmanager
def run_app() -> Iterator[str]:
    """Start the app on a free port; yield its URL."""
    command = [sys.executable, "-c", "from visor.cli import main; main()", "app", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout or ():
            if line.startswith("open "):
                yield line.split()[1].rstrip(";")
                return
        sys.exit("the app did not start")
    finally:
        process.terminate()
        process.wait()


def health_seconds(url: str, stop: threading.Event) -> list[float]:
    """Request the health check until ``stop`` is set; return the seconds of each answer."""
    seconds = []
    while not stop.is_set():
        begin = time.perf_counter()
        with urlopen(f"{url}/_stcore/health", timeout=120) as response:
            response.read()
        seconds.append(time.perf_counter() - begin)
        stop.wait(0.02)
    return seconds


def flood(url: str, messages: int, stop: threading.Event, lull: float) -> str:
    """Send messages, read answers until none came for ``lull`` seconds, set ``stop``; return how the page ended."""
    end = "it stayed open"
    address, protocols = f"{url.replace('http', 'ws')}/_stcore/stream", [Subprotocol("streamlit")]
    with connect(address, subprotocols=protocols, max_size=None) as page:
        try:
            for _ in range(messages):
                page.send(RERUN)
            while True:
                page.recv(timeout=lull)
        except TimeoutError:
            pass
        except ConnectionClosed as closed:
            end = f"it was closed ({closed.rcvd})"
            time.sleep(lull)
    stop.set()
    return end


def main(
    messages: Annotated[int, typer.Option()] = 300,
    lull: Annotated[float, typer.Option(help="seconds without an answer after which the flood is over")] = 5.0,
) -> None:
    """Print the seconds of the health check before and during the flood."""
    with run_app() as url, ThreadPoolExecutor(1) as pool:
        for count in (1, messages):
            stop = threading.Event()
            watch = pool.submit(health_seconds, url, stop)
            end = flood(url, count, stop, lull)
            seconds = watch.result()
            median = statistics.median(seconds)
            typer.echo(f"{count} at once: health {median:.3f} s (median), {max(seconds):.3f} s (longest); {end}")


if __name__ == "__main__":
    typer.run(main)
