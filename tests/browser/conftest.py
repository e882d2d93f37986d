"""The app as ``visor app`` serves it, in a folder with nothing else, and Chromium to look at it."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image
from skimage import data

PROJECT = Path(__file__).parents[2]
FORGET = 5  # seconds that a closed tab's photos are kept
BINARIES = [shutil.which(name) for name in ("chromium", "chromedriver")]
STARTED, DONE = 180, 600  # seconds that the networks are given to load, and photos to be protected, at most


def pytest_collection_modifyitems(items):
    missing = [name for name, found in zip(("chromium", "chromedriver"), BINARIES, strict=True) if not found]
    for item in items:
        if missing and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"{' and '.join(missing)} cannot be found"))


class App:
    """``visor app`` in a folder of its own; only the trained networks are linked into it."""

    def __init__(self, folder, *words):
        self.folder = folder
        for name in ("home", "tmp", "cwd"):
            (folder / name).mkdir()
        for name in ("artifacts", "metrics"):
            (folder / "cwd" / name).symlink_to(PROJECT / name)
        self.before = self.listing()
        ambient = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "STREAMLIT_"))}
        own = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-c", "from visor.cli import main; main()", "app", "--port", "0", *words]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(command, cwd=folder / "cwd", env=ambient | own, stdout=log, stderr=log)
        self.url = self.said(r"open (\S+);", STARTED)

    @property
    def log(self):
        return (self.folder / "log").read_text()

    def said(self, pattern, seconds):
        """Return what the server says, within some seconds."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.log)):
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.2)
        return found[1]

    def listing(self):
        """Return all files that this process could have written, but for what belongs to the networks."""
        return {str(path) for path in self.folder.rglob("*") if "artifacts" not in path.parts and path.is_file()}

    def open_files(self):
        """Return the files that the process holds open, those without a name, too."""
        found = set()
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()))
        return {name for name in found if name.startswith("/") and not name.startswith(("/dev/", "/proc/"))}

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@pytest.fixture(scope="session")
def app(tmp_path_factory):
    made = App(tmp_path_factory.mktemp("app"), "--forget", str(FORGET))
    yield made
    made.process.kill()


def exif(orientation):
    """Return EXIF that tells a place, and which way up the photo is."""
    made = Image.Exif()
    made[0x0112], made[0x010F] = orientation, "Camera of the Smiths"
    made.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    return made


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Three photographs, JPEG files with a face each and a place in their EXIF: an astronaut, a cameraman, an admiral.

    They come with scikit-image and matplotlib; VISOR_PHOTOS names a folder of others.
    """
    folder = tmp_path_factory.mktemp("photos")
    if "VISOR_PHOTOS" in os.environ:
        found = sorted(path for path in Path(os.environ["VISOR_PHOTOS"]).rglob("*") if path.is_file())[:3]
        return [Path(shutil.copy(path, folder / f"smith-{number}{path.suffix}")) for number, path in enumerate(found)]
    astronaut, cameraman = (Image.fromarray(made).convert("RGB") for made in (data.astronaut(), data.camera()))
    with Image.open(get_sample_data("grace_hopper.jpg")) as file:
        admiral = file.convert("RGB")
    turned = cameraman.transpose(Image.Transpose.ROTATE_90)  # 6: a viewer turns it back, clockwise
    paths = []
    for name, picture, orientation in (("astronaut", astronaut, 1), ("cameraman", turned, 6), ("admiral", admiral, 1)):
        paths.append(folder / f"smith-{name}.jpg")
        picture.save(paths[-1], quality=92, exif=exif(orientation))
    return paths
