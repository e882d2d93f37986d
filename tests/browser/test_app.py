"""The app in Chromium with the real networks: protection, isolation of visitors, untrusted files, deletion."""

import visor.core.tf  # noqa: F401 - before anything imports TensorFlow

# isort: split
import io
import re
import subprocess
import time
import zipfile
from tempfile import gettempdir

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import FORGET, JOB_TIMEOUT, PROJECT, App
from tests.browser.tab import Tab
from visor.app import texts
from visor.app.downloads import decrypt
from visor.app.settings import DEFAULT_LEVEL, LEVELS, PHOTOS
from visor.data.images import decode_image

PASSWORD = "four words are enough"
MARKS = ("smith", "Smith", "holiday")  # in the names of all photos, and in the EXIF of some


@pytest.fixture
def tab(app, tmp_path):
    tab = Tab(app.url, tmp_path)
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def count_faces():
    """Count the faces that MTCNN finds in uint8 (h, w, 3), as ``visor detect`` does."""
    from visor.cli import common

    common.configure(2, 1)
    from visor.photos.hide import detect_in_photo
    from visor.photos.networks import open_detector

    detector = open_detector("mtcnn", None, [])
    return lambda image: len(detect_in_photo(detector, image).boxes)


def pixels(content):
    """Return the upright pixels of an image file."""
    return decode_image(content, "a photo").astype(np.int16)


def chunks(content):
    """Return the types of the chunks of a PNG."""
    types, start = set(), 8
    while start < len(content):
        types.add(content[start + 4 : start + 8])
        start += 12 + int.from_bytes(content[start : start + 4], "big")
    return types


def unzip(content):
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def is_finished(tab):
    return texts.DOWNLOAD_ALL in tab.text and not tab.buttons(texts.CANCEL)


def messages(tab, path):
    """Return the messages of the page about a file, without the uploader's list of names."""
    return [line for line in tab.text.splitlines() if path.name in line and len(line) > len(path.name) + 10]


def protect(tab, paths):
    """Upload and submit photos with one face each, and wait until all are done."""
    tab.upload(paths)
    tab.wait(lambda: re.search(rf"Protect \d+ faces? in {len(paths)} photo", tab.text), JOB_TIMEOUT)
    tab.click("Protect ")
    tab.wait(lambda: is_finished(tab), JOB_TIMEOUT)


def assert_no_traces(app):
    """Assert that neither the log nor any file has traces of a photo."""
    assert not [mark for mark in MARKS if mark in app.log], app.log
    new = app.list_files() - app.files_before
    settings = {name for name in new if name.endswith("/.keras/keras.json")}
    assert new - settings <= {str(app.folder / "log"), *map(str, (app.folder / "home/.config/visor").glob("*.pem"))}
    temporary = {name for name in app.open_files() if "(deleted)" in name or name.startswith(gettempdir())}
    assert temporary <= {str(app.folder / "log")}


def test_no_face_is_found_in_three_protected_photos(app, tab, photos, count_faces):
    started = time.monotonic()
    protect(tab, photos)
    print(f"three photos: {time.monotonic() - started:.0f} s")
    hidden = unzip(tab.download(texts.DOWNLOAD_ALL, ".zip"))
    assert sorted(hidden) == sorted(f"{path.stem}.png" for path in photos)
    for path in photos:
        before, content = pixels(path.read_bytes()), hidden[f"{path.stem}.png"]
        after = pixels(content)
        assert after.shape == before.shape
        assert 0 < np.abs(after - before).max() <= LEVELS[DEFAULT_LEVEL].eps
        assert count_faces(before.astype(np.uint8)) >= 1
        assert count_faces(after.astype(np.uint8)) == 0
        assert chunks(content) == {b"IHDR", b"IDAT", b"IEND"}
    assert tab.download(texts.DOWNLOAD, ".png") in hidden.values()
    assert tab.hosts() == {app.url.partition("//")[2]}
    assert tab.console_errors() == []
    assert_no_traces(app)


def test_two_sessions_see_their_own_photos_only(app, tab, photos, tmp_path):
    other = Tab(app.url, tmp_path)
    try:
        tab.upload([photos[0]])
        other.upload([photos[1]])
        for page in (tab, other):
            page.wait(lambda page=page: page.buttons("Protect 1"), JOB_TIMEOUT)
            page.click("Protect 1")
        tab.wait(lambda: tab.buttons(texts.CANCEL) or is_finished(tab), JOB_TIMEOUT)
        if tab.buttons(texts.CANCEL):
            tab.click(texts.CANCEL)
        other.wait(lambda: is_finished(other), JOB_TIMEOUT)
        assert photos[1].stem in other.text
        assert photos[0].stem not in other.text
        assert photos[1].stem not in tab.text
        urls, other_urls = tab.image_urls(), other.image_urls()
        assert urls
        assert other_urls
        assert not urls & other_urls
        assert list(unzip(other.download(texts.DOWNLOAD_ALL, ".zip"))) == [f"{photos[1].stem}.png"]
    finally:
        other.close()


@pytest.fixture
def bad_files(tmp_path, photos):
    """Return unusable files: half a photo, 56 megapixels, a text."""
    folder = tmp_path / "bad"
    folder.mkdir()
    Image.new("RGB", (8000, 7000), "white").save(folder / "holiday-large.jpg")
    (folder / "holiday-text.jpg").write_text("no photo at all")
    content = photos[0].read_bytes()
    (folder / "holiday-half.jpg").write_bytes(content[: len(content) // 2])
    return sorted(folder.iterdir())


def test_bad_files_are_skipped_with_one_sentence_each(app, tab, bad_files, photos):
    tab.upload([*bad_files, photos[0]])
    tab.wait(lambda: tab.buttons("Protect 1 face"), JOB_TIMEOUT)
    assert [len(messages(tab, path)) for path in bad_files] == [1, 1, 1], tab.text
    assert "8000" in messages(tab, bad_files[1])[0]
    assert app.process.poll() is None
    assert_no_traces(app)


def test_fifty_files_at_once(app, tab, tmp_path):
    paths = []
    for number in range(50):
        paths.append(tmp_path / f"holiday-{number:02}.png")
        noise = np.random.default_rng(number).integers(90, 110, (48, 64, 3), np.uint8)
        Image.fromarray(noise).save(paths[-1])
    tab.upload(paths)
    tab.wait(lambda: len(tab.buttons(texts.ADD)) == PHOTOS, JOB_TIMEOUT)
    assert sum(len(messages(tab, path)) for path in paths) == 50 - PHOTOS, tab.text
    assert app.process.poll() is None
    assert_no_traces(app)


def test_photos_of_a_tab_that_is_closed_during_a_job_are_deleted(app, tab, photos, tmp_path):
    tab.upload(photos)
    tab.wait(lambda: tab.buttons("Protect "), JOB_TIMEOUT)
    tab.click("Protect ")
    tab.wait(lambda: tab.buttons(texts.CANCEL), 60)
    tab.close()
    time.sleep(FORGET + 3)
    after = Tab(app.url, tmp_path)
    try:
        assert not [mark for mark in MARKS if mark in after.text]
        after.upload([photos[2]])  # its job does not block the queue
        after.wait(lambda: after.buttons("Protect 1"), JOB_TIMEOUT)
        after.click("Protect 1")
        after.wait(lambda: is_finished(after), JOB_TIMEOUT)
    finally:
        after.close()
    assert app.process.poll() is None
    assert_no_traces(app)


def test_the_page_fits_the_width_of_a_phone(app, photos, tmp_path):
    phone = Tab(app.url, tmp_path, 390, 844)
    try:
        phone.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        )
        wide = "return [document.scrollingElement.scrollWidth, innerWidth]"
        for step in (lambda: None, lambda: protect(phone, photos[2:])):
            step()
            width, inner = phone.driver.execute_script(wide)
            assert width <= inner == 390
    finally:
        phone.close()


def test_https_and_an_encrypted_archive(photos, tmp_path):
    recipe = subprocess.run(["make", "-n", "app-https"], cwd=PROJECT, capture_output=True, text=True).stdout
    assert "visor app --https" in recipe
    (tmp_path / "https").mkdir()
    app = App(tmp_path / "https", "--https", "--forget", str(FORGET))
    tab = None
    try:
        assert app.url.startswith("https://")
        assert re.search(r"([0-9A-F]{2}:){31}[0-9A-F]{2}", app.log)
        tab = Tab(app.url, tmp_path)
        assert tab.driver.execute_script("return window.isSecureContext")
        protect(tab, photos[2:])
        tab.open_expander(texts.ENCRYPTED)
        field = tab.wait(lambda: tab.find("input[type=password]"), 30)
        field.send_keys(PASSWORD, "\n")
        bundle = tmp_path / "visor.zip.age"
        bundle.write_bytes(tab.download(texts.DOWNLOAD_ENCRYPTED, ".age"))
        assert tab.hosts() == {app.url.partition("//")[2]}
        assert_no_traces(app)
    finally:
        if tab:
            tab.close()
        status = app.stop()
    assert status == 0
    assert "Traceback" not in app.log
    photo = pixels(decrypt(bundle.read_bytes(), PASSWORD)[f"{photos[2].stem}.png"])
    assert 0 < np.abs(photo - pixels(photos[2].read_bytes())).max() <= LEVELS[DEFAULT_LEVEL].eps


def test_an_app_that_is_killed_leaves_no_photo_and_no_process(photos, tmp_path):
    (tmp_path / "killed").mkdir()
    app = App(tmp_path / "killed")
    tab = Tab(app.url, tmp_path)
    try:
        tab.upload(photos)
        tab.wait(lambda: tab.buttons("Protect "), JOB_TIMEOUT)
        assert len(app.processes()) > 1  # photos are decoded in another one
        tab.click("Protect ")
        tab.wait(lambda: tab.buttons(texts.CANCEL), 60)
    finally:
        app.process.kill()
        app.process.wait()
        tab.close()
    assert_no_traces(app)
    deadline = time.monotonic() + 10
    while app.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not app.processes()


def test_the_log_has_no_traces_when_the_server_stops(app):
    """Last, as it stops the server."""
    assert app.stop() == 0
    assert not [mark for mark in MARKS if mark in app.log]
    assert "Traceback" not in app.log
    assert app.log.rstrip().endswith("All photos were removed from memory.")
