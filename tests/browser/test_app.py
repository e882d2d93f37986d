"""The app in Chromium, with the real networks: what people do with it, and what they must not be able to do."""

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

from tests.browser.conftest import DONE, FORGET, PROJECT, App
from tests.browser.tab import Tab
from visor.app import texts
from visor.app.downloads import decrypt
from visor.app.settings import DEFAULT_LEVEL, LEVELS, PHOTOS
from visor.data.images import decode_image

PASSWORD = "four words are enough"
MARKS = ("smith", "Smith", "holiday")  # in the names of all photos, and in the EXIF of some


@pytest.fixture
def tab(app, tmp_path):
    made = Tab(app.url, tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def seen():
    """Return how many faces MTCNN finds in uint8 (h, w, 3), as ``visor detect`` asks it."""
    from visor.cli import common

    common.configure(2, 1)
    from visor.photos.hide import detect_in_photo
    from visor.photos.networks import open_detector

    detector = open_detector("mtcnn", None, [])
    return lambda image: len(detect_in_photo(detector, image).boxes)


def pixels(content):
    """Return what an image file shows, upright."""
    return decode_image(content, "a photo").astype(np.int16)


def chunks(content):
    """Return the kinds of a PNG's chunks."""
    found, at = set(), 8
    while at < len(content):
        found.add(content[at + 4 : at + 8])
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    return found


def unzipped(content):
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def finished(tab):
    return texts.DOWNLOAD_ALL in tab.text and not tab.buttons(texts.CANCEL)


def sentences(tab, path):
    """Return what the page says about a file, but for the uploader's list of names."""
    return [line for line in tab.text.splitlines() if path.name in line and len(line) > len(path.name) + 10]


def protect(tab, paths):
    """Hand photos with a face each in, as they come, and wait until all are done."""
    tab.upload(paths)
    tab.wait(lambda: re.search(rf"Protect \d+ faces? in {len(paths)} photo", tab.text), DONE)
    tab.click("Protect ")
    tab.wait(lambda: finished(tab), DONE)


def smithless(app):
    """Make sure that neither the log nor any file tells of a photo, and that none was written."""
    assert not [mark for mark in MARKS if mark in app.log], app.log
    fresh = app.listing() - app.before
    theirs = {name for name in fresh if name.endswith("/.keras/keras.json")}
    assert fresh - theirs <= {str(app.folder / "log"), *map(str, (app.folder / "home/.config/visor").glob("*.pem"))}
    temporary = {name for name in app.open_files() if "(deleted)" in name or name.startswith(gettempdir())}
    assert temporary <= {str(app.folder / "log")}


def test_three_photos_at_once_have_no_face_left_to_find(app, tab, photos, seen):
    started = time.monotonic()
    protect(tab, photos)
    print(f"three photos: {time.monotonic() - started:.0f} s")
    hidden = unzipped(tab.download(texts.DOWNLOAD_ALL, ".zip"))
    assert sorted(hidden) == sorted(f"{path.stem}.png" for path in photos)
    for path in photos:
        before, content = pixels(path.read_bytes()), hidden[f"{path.stem}.png"]
        after = pixels(content)
        assert after.shape == before.shape
        assert 0 < np.abs(after - before).max() <= LEVELS[DEFAULT_LEVEL].eps
        assert seen(before.astype(np.uint8)) >= 1
        assert seen(after.astype(np.uint8)) == 0
        assert chunks(content) == {b"IHDR", b"IDAT", b"IEND"}
    one = tab.download(texts.DOWNLOAD, ".png")
    assert one in hidden.values()
    assert tab.hosts() == {app.url.partition("//")[2]}
    assert tab.complaints() == []
    smithless(app)


def test_two_sessions_see_only_their_own(app, tab, photos, tmp_path):
    other = Tab(app.url, tmp_path)
    try:
        tab.upload([photos[0]])
        other.upload([photos[1]])
        for one in (tab, other):
            one.wait(lambda one=one: one.buttons("Protect 1"), DONE)
            one.click("Protect 1")
        tab.wait(lambda: tab.buttons(texts.CANCEL) or finished(tab), DONE)
        if tab.buttons(texts.CANCEL):
            tab.click(texts.CANCEL)
        other.wait(lambda: finished(other), DONE)
        assert photos[1].stem in other.text
        assert photos[0].stem not in other.text
        assert photos[1].stem not in tab.text
        own, theirs = tab.pictures(), other.pictures()
        assert own
        assert theirs
        assert not own & theirs
        assert list(unzipped(other.download(texts.DOWNLOAD_ALL, ".zip"))) == [f"{photos[1].stem}.png"]
    finally:
        other.close()


@pytest.fixture
def trouble(tmp_path, photos):
    """Files that nobody should send: 40 megapixels, a text, half a photo."""
    folder = tmp_path / "trouble"
    folder.mkdir()
    Image.new("RGB", (8000, 5000), "white").save(folder / "holiday-large.jpg")
    (folder / "holiday-text.jpg").write_text("no photo at all")
    content = photos[0].read_bytes()
    (folder / "holiday-half.jpg").write_bytes(content[: len(content) // 2])
    return sorted(folder.iterdir())


def test_bad_files_are_refused_in_a_sentence_each(app, tab, trouble, photos):
    tab.upload([*trouble, photos[0]])
    tab.wait(lambda: tab.buttons("Protect 1 face"), DONE)
    assert [len(sentences(tab, path)) for path in trouble] == [1, 1, 1], tab.text
    assert "8000" in sentences(tab, trouble[1])[0]
    assert app.process.poll() is None
    smithless(app)


def test_fifty_files_at_once(app, tab, tmp_path):
    paths = []
    for number in range(50):
        paths.append(tmp_path / f"holiday-{number:02}.png")
        noise = np.random.default_rng(number).integers(90, 110, (48, 64, 3), np.uint8)
        Image.fromarray(noise).save(paths[-1])
    tab.upload(paths)
    tab.wait(lambda: len(tab.buttons(texts.ADD)) == PHOTOS, DONE)
    assert sum(len(sentences(tab, path)) for path in paths) == 50 - PHOTOS, tab.text
    assert app.process.poll() is None
    smithless(app)


def test_a_tab_that_is_closed_in_mid_job_is_forgotten(app, tab, photos, tmp_path):
    tab.upload(photos)
    tab.wait(lambda: tab.buttons("Protect "), DONE)
    tab.click("Protect ")
    tab.wait(lambda: tab.buttons(texts.CANCEL), 60)
    tab.close()
    time.sleep(FORGET + 3)
    after = Tab(app.url, tmp_path)
    try:
        assert not [mark for mark in MARKS if mark in after.text]
        after.upload([photos[2]])  # the desk is free again: nobody waits for what nobody wants
        after.wait(lambda: after.buttons("Protect 1"), DONE)
        after.click("Protect 1")
        after.wait(lambda: finished(after), DONE)
    finally:
        after.close()
    assert app.process.poll() is None
    smithless(app)


def test_a_phone_shows_no_more_than_its_width(app, photos, tmp_path):
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


def test_https_and_a_locked_bundle(photos, tmp_path):
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
        tab.open_part(texts.LOCKED)
        field = tab.wait(lambda: tab.find("input[type=password]"), 30)
        field.send_keys(PASSWORD, "\n")
        bundle = tmp_path / "visor.zip.age"
        bundle.write_bytes(tab.download(texts.DOWNLOAD_LOCKED, ".age"))
        assert tab.hosts() == {app.url.partition("//")[2]}
        smithless(app)
    finally:
        if tab:
            tab.close()
        status = app.end()
    assert status == 0
    assert "Traceback" not in app.log
    photo = pixels(decrypt(bundle.read_bytes(), PASSWORD)[f"{photos[2].stem}.png"])
    assert 0 < np.abs(photo - pixels(photos[2].read_bytes())).max() <= LEVELS[DEFAULT_LEVEL].eps


def test_the_server_ends_without_a_word_about_anybody(app):
    """Last: it ends the server."""
    assert app.end() == 0
    assert not [mark for mark in MARKS if mark in app.log]
    assert "Traceback" not in app.log
    assert app.log.rstrip().endswith("all photos are forgotten")
