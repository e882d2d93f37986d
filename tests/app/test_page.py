"""Page of the app: drawings, texts, and that a visitor has access to their own photos only."""

import base64
import gc
import io
import logging
import re
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from skimage import data
from streamlit.runtime import Runtime
from streamlit.runtime.media_file_manager import MediaFileManager
from streamlit.runtime.media_file_storage import MediaFileStorageError
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.testing.v1 import AppTest

from tests.project.test_architecture import SOURCE
from tests.support.tiny_project import ROOT
from visor.app import drawing, results_view, session, texts, upload_view
from visor.app.job_queue import Job, JobRequest
from visor.app.networks import NetworkOptions
from visor.app.protect import Distance, ProtectionResult
from visor.app.settings import DEFAULT_LEVEL, IDLE_SECONDS, LEVELS
from visor.app.uploads import Upload
from visor.core.errors import UserError
from visor.photos.faces import Face
from visor.photos.outcome import NetworkOutcome

FACE = Face((180.0, 70.0, 90.0, 120.0), 0.0, 0.99)
OTHER = Face((20.0, 300.0, 60.0, 60.0), 0.0, 0.9)


def grey(height, width, value=128):
    return np.full((height, width, 3), value, np.uint8)


def test_a_difference_is_amplified_ten_times_around_grey():
    before = grey(1, 6, 100)
    after = before.copy()
    after[0, :, 0] = [100, 108, 92, 113, 87, 101]
    image = drawing.difference(before, after, drawing.WHOLE_PHOTO)
    assert image[0, :, 0].tolist() == [128, 208, 48, 255, 0, 138]
    assert (image[..., 1:] == 128).all()


def test_the_difference_of_a_large_photo_is_not_averaged_away():
    before = grey(4, 3 * drawing.MAX_SIDE - 1)
    after = before + (8 * (-1) ** np.arange(before.shape[1], dtype=int)[None, :, None]).astype(np.uint8)
    image = drawing.difference(before, after, drawing.WHOLE_PHOTO)
    assert image.shape == (2, drawing.MAX_SIDE, 3)
    assert set(np.unique(image)) == {48, 208}


def test_a_difference_is_cropped_to_its_window():
    before, after = grey(30, 40), grey(30, 40)
    after[10, 20] += 1
    image = drawing.difference(before, after, np.s_[10:12, 20:23])
    assert image.shape == (2, 3, 3)
    assert image[0, 0].tolist() == [138, 138, 138]
    assert (image != 128).sum() == 3


def test_a_box_is_rotated_clockwise_about_its_centre():
    points = drawing.corners((10, 20, 40, 20), 90.0, 2.0, (1000, 1000))
    assert np.allclose(points, [(80, 20), (80, 100), (40, 100), (40, 20)])


@pytest.mark.parametrize("box", [(-30, -30, 50, 50), (90, 70, 50, 50), (-10, -10, 300, 300)])
@pytest.mark.parametrize("angle", [0.0, 33.0])
def test_boxes_are_drawn_inside_the_image(box, angle):
    points = np.array(drawing.corners(box, angle, 1.0, (100, 80)))
    assert (points >= 0).all()
    assert (points <= [99, 79]).all()
    image = grey(80, 100)
    drawn = drawing.draw_face_boxes(image, [drawing.FaceBox(box, angle, "1", "selected")], 100)
    assert drawn.shape == image.shape
    assert (image == 128).all()
    assert (drawn == drawing.BOX_STYLES["selected"].colour).all(-1).any()


def test_a_box_is_drawn_where_the_face_is_and_large_photos_get_smaller():
    image = grey(5 * drawing.MAX_SIDE // 4, 5 * drawing.MAX_SIDE // 2)
    mark = drawing.FaceBox((750, 500, 250, 250), 0.0, "7", "unselected")
    drawn = drawing.draw_face_boxes(drawing.thumbnail(image), [mark], image.shape[1])
    assert drawn.shape == (drawing.MAX_SIDE // 2, drawing.MAX_SIDE, 3)
    changed = np.argwhere((drawn != 128).any(-1))
    assert (np.abs(changed.min(0) - [200, 300]) <= 4).all()
    assert (np.abs(changed.max(0) - [300, 400]) <= 4).all()
    assert (drawn[240:290, 340:390] == 128).all()


def test_a_face_is_shown_with_half_its_longer_side_around_it():
    assert drawing.face_window((100, 200, 40, 60), (1000, 1000)) == np.s_[170:290, 60:180]
    assert drawing.face_window((0, 0, 40, 60), (50, 1000)) == np.s_[0:50, 0:80]


def click(x1, y1, x2, y2):
    return {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "width": 100, "height": 50}


@pytest.mark.parametrize(
    ("clicked", "box"),
    [
        (click(50, 25, 50, 25), [190, 85, 20, 30]),  # a click moves the box
        (click(50, 25, 57, 25), [190, 85, 20, 30]),
        (click(0, 0, 0, 0), [0, 0, 20, 30]),
        (click(100, 50, 100, 50), [380, 170, 20, 30]),
        (click(10, 5, 30, 25), [40, 20, 80, 80]),  # a drag in either direction
        (click(30, 25, 10, 5), [40, 20, 80, 80]),
        (click(90, 40, 160, 90), [360, 160, 40, 40]),  # beyond the edge of the image
        (click(100, 20, 120, 40), [388, 80, 12, 80]),
    ],
)
def test_clicks_and_drags_become_boxes_of_the_photo(clicked, box):
    assert drawing.box_from_click(clicked, (200, 400, 3), (1, 2, 20, 30)).tolist() == box


def test_a_data_url_is_a_jpeg_without_metadata():
    head, content = drawing.data_url(grey(20, 30, 200)).split(",")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert head == "data:image/jpeg;base64"
    assert image.size == (30, 20)
    assert not image.getexif()
    assert np.abs(np.asarray(image).astype(int) - 200).max() <= 2


def outcome(kind="detector", before=True, after=False, attacked=True, network="mtcnn", face=0):
    return NetworkOutcome(face, network, kind, attacked, before, after, 0.99, None if after is None else 0.2, 0.8)


TEXTS = {
    ("detector", True, True): "✗ still detected",
    ("detector", True, False): "✓ no longer detected",
    ("detector", False, True): "✗ detected only now",
    ("detector", False, None): "– never detected",
    ("recogniser", True, True): "✗ still matched",
    ("recogniser", True, False): "✓ no longer matched",
    ("recogniser", None, None): "– no face to compare",
}


@pytest.mark.parametrize(("case", "text"), TEXTS.items())
def test_every_outcome_has_a_text(case, text):
    assert texts.outcome_text(outcome(*case)) == text


def test_a_summary_counts_the_networks_that_detected_or_matched_the_face_before():
    outcomes = [
        outcome(),
        outcome(after=True, attacked=False, network="ssd"),
        outcome(before=None, after=None, network="faster_rcnn"),
        outcome("recogniser"),
    ]
    summary = "no longer detected by 1 of 2 detectors; no longer matched by 1 of 1 recogniser."
    assert texts.summary(outcomes) == summary
    assert texts.summary(outcomes[2:3]) == "no network detected it before."
    newly = [outcome(), outcome(before=False, after=True, attacked=False, network="ssd")]
    assert texts.summary(newly) == "no longer detected by 1 of 1 detector; detected only now by 1 detector."


def test_attacked_and_other_networks_have_tables_of_their_own():
    html = results_view.outcome_tables("Face <1>", [outcome(attacked=False, network="<b>"), outcome()], None)
    attacked, other = texts.NETWORK_GROUPS[True], texts.NETWORK_GROUPS[False]
    assert html.index(f">{attacked}<") < html.index("MTCNN") < html.index(f">{other}<") < html.index("&lt;b&gt;")
    assert "0.99 → 0.20 (0.80)" in html
    assert f'aria-label="Face &lt;1&gt;: {attacked}"' in html
    assert other not in results_view.outcome_tables("Face 1", [outcome()], None)


def test_networks_that_this_project_trained_are_marked():
    assert texts.network_name("facenet", None) == "FaceNet (trained here)"
    assert texts.network_name("facenet", "facenet") == "FaceNet"
    assert texts.network_name("vgg_face", "facenet") == "VGG-Face (trained here)"
    assert texts.network_name("mtcnn", None) == "MTCNN"


def test_untrusted_text_is_escaped():
    assert texts.escape_markdown("![a](http://b) $x$\n:red[c]") == r"\!\[a\]\(http\:\/\/b\) \$x\$ \:red\[c\]"


class FakeQueue:
    """A job queue whose jobs are finished by the test."""

    networks_loaded = True

    def __init__(self):
        self.held, self.submitted = {}, []

    def networks(self):
        return SimpleNamespace(options=NetworkOptions())

    def submit(self, session, upload, request):
        job = Job(f"job{len(self.submitted)}", session, upload.name, request, position=1)
        self.submitted.append((upload, request))
        self.held[job.id] = job
        return job

    def jobs(self, session):
        return [job for job in self.held.values() if job.session == session]

    def change(self, job, **fields):
        self.held[job] = self.held[job]._replace(**fields)

    def cancel(self, session, job):
        assert self.held[job].session == session
        self.change(job, state="cancelled", position=None)

    def remove(self, session, job):
        assert self.held.pop(job).session == session

    def clear_session(self, session):
        self.held = {key: job for key, job in self.held.items() if job.session != session}

    def finish(self, job):
        upload, request = self.submitted[int(job.removeprefix("job"))]
        distance, faces, outcomes = Distance(8, 0.9, 31.0), request.faces, []
        for face in range(len(faces)):
            outcomes += [outcome(face=face), outcome("recogniser", True, True, False, "vgg_face", face)]
        photos = upload.image, upload.image + 1, b"PNG"
        distances = [distance] * len(faces)
        result = ProtectionResult(upload.name, *photos, faces, outcomes, distances, distance, 2.0, request.level.eps)
        self.change(job, state="done", position=None, result=result)


@pytest.fixture(autouse=True)
def queue(monkeypatch):
    queue = FakeQueue()
    monkeypatch.setattr(session, "SESSIONS", {})
    monkeypatch.setattr(session, "job_queue", lambda: queue)
    monkeypatch.setattr(upload_view, "find_faces", lambda networks, image: [FACE, OTHER])
    return queue


@pytest.fixture
def page(monkeypatch):
    """Open a page of a session; it runs as the session that was opened last."""

    def open_page(name="ann"):
        monkeypatch.setattr(session, "get_script_run_ctx", lambda: SimpleNamespace(session_id=name))
        return AppTest.from_file(SOURCE / "app/page.py", default_timeout=20)

    return open_page


def file(image, name="me.jpg"):
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG")
    return name, content.getvalue(), "image/jpeg"


@pytest.fixture(scope="module")
def photo():
    return file(data.astronaut())


def text_of(app):
    elements = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error]
    return " ".join(str(element.value) for element in elements)


def button(app, label):
    return next(button for button in app.button if button.label == label)


def test_the_empty_page_shows_the_limits(page):
    app = page().run()
    assert not app.exception
    assert not app.error
    assert "Other and future models may still detect the face" in text_of(app)
    assert "rendered faces only" in text_of(app)
    assert "Visor writes them to no file" in text_of(app)
    assert not app.button


def test_the_page_and_the_manual_state_the_same_measurement():
    manual = " ".join((ROOT / "docs/app.md").read_text().split())
    photos, faces = (int(re.search(rf"(\d+) {thing}", texts.LIMITS)[1]) for thing in ("photos", "faces"))
    found, quality = (int(number) for number in re.search(r"found (\d+) .* of quality (\d+)", texts.LIMITS).groups())
    assert sum(int(number) for number in re.findall(r"(\d+) (?:photos )?of (?:LFW|WIDER)", manual)) == photos
    assert f"of the {faces} faces that MTCNN found, it finds none" in manual
    assert f"{found} in those of quality {quality}" in manual


def test_skipped_files_are_listed_by_name_and_the_others_are_added(page, photo):
    app = page().run()
    app.file_uploader[0].set_value([("notes.jpg", b"no image", "image/jpeg"), photo, ("cut.jpg", photo[1][:900], "")])
    app.run()
    (warning,) = app.warning
    assert warning.value.count("\n- ") == 2
    assert r"notes\.jpg" in warning.value
    assert r"cut\.jpg" in warning.value
    assert [box.label for box in app.checkbox] == ["Face 1", "Face 2"]


def test_a_file_is_read_once_and_its_bytes_are_dropped(page, photo, monkeypatch):
    read, kept = [], []
    add = MemoryUploadedFileManager.add_file
    monkeypatch.setattr(upload_view, "read_upload", lambda name, data: read.append(name) or REAL(name, data))
    monkeypatch.setattr(
        MemoryUploadedFileManager, "add_file", lambda self, session, file: kept.append(file) or add(self, session, file)
    )
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    assert kept[-1].data == b""
    app.checkbox[1].uncheck().run()
    app.run()
    assert read == ["me.jpg"]


REAL = upload_view.read_upload


def test_photos_beyond_the_memory_limit_are_skipped(page, photo, monkeypatch):
    monkeypatch.setattr(session.settings, "MAX_SESSION_MEMORY", 3 * data.astronaut().nbytes // 2)
    app = page().run()
    app.file_uploader[0].set_value([photo, file(data.astronaut(), "second.jpg")]).run()
    assert r"second\.jpg" in app.warning[0].value
    assert len(app.checkbox) == 2


def test_selected_faces_are_submitted_once(page, photo, queue):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.checkbox[0].uncheck().run()
    app.button(key="protect").click().run()
    ((upload, request),) = queue.submitted
    assert upload.image.shape == (512, 512, 3)
    assert request.faces == (OTHER,)
    assert (request.level, request.target) == (LEVELS[DEFAULT_LEVEL], "both")
    app.button(key="protect").click().run()
    assert len(queue.submitted) == 1
    assert app.info[0].value == texts.SAME_AGAIN
    app.select_slider[0].set_value(LEVELS[0].name).run()
    app.radio[0].set_value("detectors").run()
    app.button(key="protect").click().run()
    assert queue.submitted[1][1][-2:] == (LEVELS[0], "detectors")


def test_a_waiting_photo_is_cancelled_and_removed(page, photo, queue):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.button(key="protect").click().run()
    assert texts.QUEUE_HEADING in [element.value for element in app.subheader]
    button(app, texts.CANCEL).click().run()
    assert queue.held["job0"].state == "cancelled"
    assert texts.CANCELLED in text_of(app)
    button(app, texts.REMOVE).click().run()
    assert not queue.held


def test_a_full_queue_is_reported_until_the_next_attempt(page, photo, queue, monkeypatch):
    def full(*args):
        raise UserError("the queue is full; try again later")

    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    with monkeypatch.context() as patched:
        patched.setattr(queue, "submit", full)
        app.button(key="protect").click().run()
        app.run()
        assert [element.value for element in app.error] == [texts.escape_markdown("the queue is full; try again later")]
    app.button(key="protect").click().run()
    assert not app.error
    assert len(queue.submitted) == 1


def test_a_photo_that_is_rejected_does_not_block_the_next(page, photo, queue, monkeypatch):
    submit = queue.submit

    def reject_others(session, upload, request):
        if upload.name != "third":
            raise UserError("too many faces")
        return submit(session, upload, request)

    monkeypatch.setattr(queue, "submit", reject_others)
    app = page().run()
    app.file_uploader[0].set_value([photo, file(data.astronaut(), "second.jpg"), file(data.astronaut(), "third.jpg")])
    app.run()
    app.button(key="protect").click().run()
    assert [upload.name for upload, _ in queue.submitted] == ["third"]
    assert [element.value for element in app.error] == ["too many faces"]


def test_a_failed_photo_shows_the_reason(page, photo, queue):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.button(key="protect").click().run()
    queue.change("job0", state="failed", position=None, error="me is too dark; take another")
    app.run()
    assert [element.value for element in app.error] == [texts.escape_markdown("me is too dark; take another")]


def test_a_result_numbers_the_faces_as_they_were_selected(page, photo, queue):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.checkbox[0].uncheck().run()
    app.button(key="protect").click().run()
    queue.finish("job0")
    app.run()
    assert not app.exception
    assert not app.error
    labels = [expander.label for expander in app.expander if expander.label.startswith("Face")]
    assert labels == ["Face 2: no longer detected by 1 of 1 detector; no longer matched by 0 of 1 recogniser."]
    assert "SSIM 0.900" in text_of(app)
    assert "PSNR 31.0 dB" in text_of(app)
    assert texts.RESULTS_NOTICE in text_of(app)


def test_a_short_password_encrypts_nothing(page, photo, queue):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.button(key="protect").click().run()
    queue.finish("job0")
    app.run()
    assert not app.error
    app.text_input[0].set_value("short")
    button(app, texts.ENCRYPT).click().run()
    assert texts.PASSWORD_SHORT in text_of(app)
    labels = [element.label for element in app.get("download_button")]
    assert texts.DOWNLOAD_ALL in labels
    assert texts.DOWNLOAD_ENCRYPTED not in labels
    app.text_input[0].set_value("four words and more")
    button(app, texts.ENCRYPT).click().run()
    assert texts.PASSWORD_SHORT not in text_of(app)
    assert texts.DOWNLOAD_ENCRYPTED in [element.label for element in app.get("download_button")]


def test_a_face_is_added_by_hand_and_removed(page, photo, queue):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    button(app, texts.ADD).click().run()
    assert [element.value for element in app.number_input] == [171, 171, 170, 170]
    app.number_input[0].set_value(100).run()
    button(app, texts.ADD_THIS).click().run()
    assert [box.label for box in app.checkbox] == ["Face 1", "Face 2", "Face 3"]
    app.button(key="protect").click().run()
    assert queue.submitted[0][1].faces[2] == Face((100.0, 171.0, 170.0, 170.0), 0.0, None)
    button(app, texts.REMOVE_FACE.format(3)).click().run()
    assert len(app.checkbox) == 2


def test_everything_is_deleted_at_a_click(page, photo, queue):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.button(key="protect").click().run()
    app.button(key="delete-all").click().run()
    assert not queue.held
    assert not app.checkbox
    assert texts.DELETED in text_of(app)
    assert not session.SESSIONS["ann"].photos


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def expire_idle():
    session.expire_sessions(lambda name: True, 120)


def test_everything_is_deleted_though_the_browser_sleeps(page, photo, clock):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    visitor = session.SESSIONS["ann"]
    (image,) = [weakref.ref(photo.upload.image) for photo in visitor.photos.values()]
    clock.seconds += IDLE_SECONDS
    expire_idle()
    assert image() is not None
    clock.seconds += 1
    for _ in range(2):
        expire_idle()
    gc.collect()
    assert image() is None
    assert visitor.uploader_key == 1
    app.run()
    assert not app.checkbox
    assert texts.TIMED_OUT in text_of(app)


def test_a_photo_in_the_queue_counts_as_a_click_until_it_is_done(page, photo, queue, clock):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.button(key="protect").click().run()
    visitor = session.SESSIONS["ann"]
    clock.seconds += IDLE_SECONDS + 1
    expire_idle()
    queue.finish("job0")
    expire_idle()
    assert visitor.photos
    assert queue.held
    clock.seconds += IDLE_SECONDS + 1
    expire_idle()
    assert not visitor.photos
    assert not queue.held


def test_encrypting_counts_as_a_click(clock, monkeypatch):
    visitor = session.get_session("ann")
    clock.seconds += 5
    monkeypatch.setattr(results_view.st, "download_button", lambda *args, **options: None)
    results_view._downloads(visitor)
    assert visitor.clicked == clock.seconds


def test_results_of_idle_sessions_are_deleted(queue, clock):
    request = JobRequest("key", (1,), (FACE,), LEVELS[0], "both")
    for name in ("ann", "bob"):
        upload = Upload(name, grey(8, 8))
        session.get_session(name).submit(session.UploadedPhoto("key", upload), request)
    for job in ("job0", "job1"):
        queue.finish(job)
    clock.seconds += IDLE_SECONDS
    session.get_session("ann").touch()
    clock.seconds += 1
    expire_idle()
    assert [job.session for job in queue.held.values()] == ["ann"]
    assert session.get_session("bob").message == texts.TIMED_OUT


def test_a_closed_tab_is_given_time_to_come_back(queue, clock):
    start, connected = clock.seconds, set()
    for name in "abc":  # c leaves before the first check
        session.get_session(name)
    for seconds, names, remaining in [
        (60, "ab", "abc"),
        (120, "a", "abc"),
        (180, "ab", "ab"),
        (181, "b", "ab"),
        (300, "b", "ab"),
        (301, "b", "b"),
        (999, "b", "b"),
    ]:
        clock.seconds, connected = start + seconds, set(names)
        session.expire_sessions(connected.__contains__, 120)
        assert "".join(session.SESSIONS) == remaining, seconds


def test_closing_a_session_deletes_its_photos_and_what_its_script_still_adds(queue, clock):
    visitor = session.get_session("ann")
    photo = session.UploadedPhoto("key", Upload("me", grey(8, 8)))
    request = JobRequest("key", (1,), (FACE,), LEVELS[0], "both")

    def close():
        clock.seconds += 121
        session.expire_sessions(lambda name: False, 120)
        assert not session.SESSIONS
        assert not visitor.photos
        assert not queue.held

    for add in (lambda: visitor.try_add_photo(photo), lambda: visitor.submit(photo, request)):
        close()
        add()
    close()


@pytest.fixture
def files(monkeypatch):
    """Streamlit's media files, called by threads without a page, as in its server."""
    files = MediaFileManager(MemoryMediaFileStorage("/media"))
    add = files.add
    monkeypatch.setattr(files, "add", lambda *args, **options: (time.sleep(0.02), add(*args, **options))[1])
    monkeypatch.setattr(Runtime, "_instance", SimpleNamespace(media_file_mgr=files))
    monkeypatch.setattr(results_view, "get_script_run_ctx", lambda: SimpleNamespace(session_id="ann"))
    return files


def fetched(files, url):
    return files._storage.get_file(url.removeprefix("/media/")).content


def test_a_download_outlives_other_sessions_until_the_next_or_deletion(queue, files, clock):
    visitor, contents = session.get_session("ann"), iter([b"one", b"two"])
    visitor.visitor = "cookie of ann"
    button = files.add_deferred(
        results_view.keep_download(visitor, lambda: next(contents), *results_view.ZIP),
        results_view.ZIP[1],
        "1",
        results_view.ZIP[0],
    )
    files._files_by_session_and_coord = {"ann": {"1": button}}  # whose page it is
    clock.seconds += 5
    first = files.execute_deferred(button)
    assert visitor.clicked == clock.seconds
    for _ in range(3):  # scripts of others end
        files.remove_orphaned_files()
    assert fetched(files, first) == b"one"
    second = files.execute_deferred(button)
    for _ in range(2):
        files.remove_orphaned_files()
    with pytest.raises(MediaFileStorageError):
        fetched(files, first)
    assert fetched(files, second) == b"two"
    assert session.owns_download("cookie of ann", second)
    session.get_session("bob").visitor = "cookie of bob"
    session.get_session("eve")  # without a cookie
    assert not any(session.owns_download(cookie, second) for cookie in ("cookie of bob", ""))
    visitor.delete_all(texts.DELETED)
    with pytest.raises(MediaFileStorageError):
        fetched(files, second)
    assert not session.owns_download("cookie of ann", second)


def test_fragments_get_no_photo_that_would_outlive_its_deletion(page, photo, queue, monkeypatch):
    arguments = []
    fragment = results_view.st.fragment

    def watched(draw, **options):
        return lambda *args: arguments.extend(args) or fragment(draw, **options)(*args)

    monkeypatch.setattr(results_view.st, "fragment", watched)
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.button(key="protect").click().run()
    queue.finish("job0")
    app.run()
    assert "job0" in arguments
    assert {type(argument) for argument in arguments} == {str, session.Session}


def test_new_visitors_while_memory_is_counted_do_no_harm():
    visitor = session.get_session("visitor")
    for number in range(100):
        session.get_session(f"early {number}")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    small = session.UploadedPhoto("key", SimpleNamespace(image=grey(2, 2)))
    try:
        with ThreadPoolExecutor(2) as pool:
            coming = pool.submit(lambda: [session.get_session(f"late {number}") for number in range(500)])
            while not coming.done():
                assert visitor.try_add_photo(small)
            coming.result()
    finally:
        sys.setswitchinterval(interval)
    assert len(session.SESSIONS) == 601


def test_two_visitors_at_once_do_not_both_get_the_last_memory(monkeypatch):
    monkeypatch.setattr(session.settings, "MAX_PHOTO_MEMORY", 4 * grey(8, 8).nbytes)
    photo_bytes = session.Session.photo_bytes
    monkeypatch.setattr(session.Session, "photo_bytes", lambda self: (photo_bytes(self), time.sleep(0.002))[0])
    visitors = [session.get_session(str(number)) for number in range(8)]
    photo = session.UploadedPhoto("key", SimpleNamespace(image=grey(8, 8)))
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda visitor: visitor.try_add_photo(photo), visitors))
    assert sum(added) == sum(len(visitor.photos) for visitor in visitors) == 4


def test_faces_are_detected_in_one_photo_at_a_time(monkeypatch):
    running, counts = [], []

    def slow(networks, image):
        running.append(image)
        counts.append(len(running))
        time.sleep(0.01)
        running.pop()
        return [FACE]

    monkeypatch.setattr(upload_view, "find_faces", slow)
    visitors = [session.get_session(name) for name in "abc"]
    for visitor in visitors:
        for key in "xy":
            visitor.try_add_photo(session.UploadedPhoto(key, SimpleNamespace(image=grey(8, 8))))
    threads = [threading.Thread(target=upload_view._detect_faces, args=[visitor]) for visitor in visitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1] * 6


def test_a_photo_whose_detection_fails_does_not_stop_the_others(page, photo, monkeypatch, caplog):
    heights = []

    def fail_first(networks, image):
        heights.append(len(image))
        if len(image) == 512:
            raise RuntimeError("IMG_1234 of Ann")
        return [FACE]

    monkeypatch.setattr(upload_view, "find_faces", fail_first)
    app = page().run()
    app.file_uploader[0].set_value([photo, file(data.astronaut()[:400], "second.jpg")]).run()
    app.run()
    assert heights == [512, 400]
    assert [box.label for box in app.checkbox] == ["Face 1"]
    assert texts.NO_FACE in text_of(app)
    assert "RuntimeError" in caplog.text
    assert "Ann" not in caplog.text


def test_a_photo_is_reduced_once_and_drawn_again_only_if_its_boxes_changed(page, photo, monkeypatch):
    reduced, drawn = [], []
    thumbnail, draw_face_boxes = drawing.thumbnail, drawing.draw_face_boxes
    monkeypatch.setattr(drawing, "thumbnail", lambda image: reduced.append(1) or thumbnail(image))
    monkeypatch.setattr(drawing, "draw_face_boxes", lambda *args: drawn.append(1) or draw_face_boxes(*args))
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.run()
    assert (len(reduced), len(drawn)) == (1, 1)
    app.checkbox[0].uncheck().run()
    app.run()
    assert (len(reduced), len(drawn)) == (1, 2)


def test_an_error_is_one_sentence_and_the_log_does_not_name_the_photo(page, photo, monkeypatch, caplog):
    def broken(name, data):
        raise RuntimeError("IMG_1234 of Ann")

    monkeypatch.setattr(upload_view, "read_upload", broken)
    app = page().run()
    with caplog.at_level(logging.DEBUG):
        app.file_uploader[0].set_value([photo]).run()
    assert [element.value for element in app.error] == [texts.UNEXPECTED]
    assert "RuntimeError" in caplog.text
    assert "Ann" not in caplog.text
    assert "IMG_1234" not in text_of(app)
    assert not app.exception


def test_visitors_do_not_see_each_others_photos(page, photo, queue):
    ann = page("ann").run()
    ann.file_uploader[0].set_value([photo]).run()
    ann.button(key="protect").click().run()
    queue.finish("job0")
    bob = page("bob").run()
    assert not bob.checkbox
    assert not bob.expander[0].label.startswith("Face")
    assert texts.RESULTS_HEADING not in [element.value for element in bob.subheader]
    bob.file_uploader[0].set_value([file(data.astronaut()[:, ::-1], "bob.jpg")]).run()
    assert [job.name for job in queue.jobs("bob")] == []
    assert "me" not in text_of(bob).split()
    page("ann")  # it is her turn again
    ann.run()
    assert not ann.error
    assert texts.RESULTS_HEADING in [element.value for element in ann.subheader]
    assert "bob" not in text_of(ann)
