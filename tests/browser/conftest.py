"""``visor app`` in a folder of its own, and photos to upload."""

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
FORGET = 5  # seconds to keep the photos of a closed tab
BINARIES = [shutil.which(name) for name in ("chromium", "chromedriver")]
START_TIMEOUT, JOB_TIMEOUT = 180, 600  # seconds to load the networks, and to protect photos


def pytest_collection_modifyitems(items):
    missing = [name for name, path in zip(("chromium", "chromedriver"), BINARIES, strict=True) if not path]
    for item in items:
        if missing and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"{' and '.join(missing)} not found"))


class App:
    """``visor app`` in a folder of its own, which links to the trained networks."""

    def __init__(self, folder, *options):
        self.folder = folder
        for name in ("home", "tmp", "cwd"):
            (folder / name).mkdir()
        for name in ("artifacts", "metrics"):
            (folder / "cwd" / name).symlink_to(PROJECT / name)
        self.files_before = self.list_files()
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "STREAMLIT_"))}
        environment |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-c", "from visor.cli import main; main()", "app", "--port", "0", *options]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(command, cwd=folder / "cwd", env=environment, stdout=log, stderr=log)
        self.url = self.wait_for_log(r"open (\S+);", START_TIMEOUT)

    @property
    def log(self):
        return (self.folder / "log").read_text()

    def wait_for_log(self, pattern, seconds):
        """Return the first group of a pattern as soon as the log has it."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.log)):
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.2)
        return match[1]

    def list_files(self):
        """Return all files that the process could have written, except those of the networks."""
        return {str(path) for path in self.folder.rglob("*") if "artifacts" not in path.parts and path.is_file()}

    def open_files(self):
        """Return the files that the process holds open, unnamed ones included; none if it has ended."""
        names = set()
        for link in Path(f"/proc/{self.process.pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                names.add(str(link.readlink()))
        return {name for name in names if name.startswith("/") and not name.startswith(("/dev/", "/proc/"))}

    def processes(self):
        """Return the processes that run in the folder of the app."""
        found = set()
        for link in Path("/proc").glob("[0-9]*/cwd"):
            with contextlib.suppress(OSError):
                found |= {link.parent.name} if link.readlink() == self.folder / "cwd" else set()
        return found

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@pytest.fixture(scope="session")
def app(tmp_path_factory):
    app = App(tmp_path_factory.mktemp("app"), "--forget", str(FORGET))
    yield app
    app.process.kill()


def exif(orientation):
    """Return EXIF with an orientation, a camera and a place."""
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = orientation, "Camera of the Smiths"
    tags.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    return tags


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Three JPEG photos with one face and EXIF each, from scikit-image and matplotlib; or those of VISOR_PHOTOS."""
    folder = tmp_path_factory.mktemp("photos")
    if "VISOR_PHOTOS" in os.environ:
        paths = sorted(path for path in Path(os.environ["VISOR_PHOTOS"]).rglob("*") if path.is_file())[:3]
        return [Path(shutil.copy(path, folder / f"smith-{number}{path.suffix}")) for number, path in enumerate(paths)]
    astronaut, cameraman = (Image.fromarray(image).convert("RGB") for image in (data.astronaut(), data.camera()))
    with Image.open(get_sample_data("grace_hopper.jpg")) as file:
        admiral = file.convert("RGB")
    rotated = cameraman.transpose(Image.Transpose.ROTATE_90)  # orientation 6: a viewer rotates it clockwise
    paths = []
    for name, image, orientation in (("astronaut", astronaut, 1), ("cameraman", rotated, 6), ("admiral", admiral, 1)):
        paths.append(folder / f"smith-{name}.jpg")
        image.save(paths[-1], quality=92, exif=exif(orientation))
    return paths
