"""The page: what it draws, what it says, and that a visitor sees what is theirs alone."""

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
from visor.app.job_queue import Job
from visor.app.networks import NetworkOptions, Spot
from visor.app.protect import Distance, NetworkOutcome, ProtectionResult
from visor.app.settings import DEFAULT_LEVEL, IDLE_SECONDS, LEVELS
from visor.core.errors import UserError

FACE = Spot((180.0, 70.0, 90.0, 120.0), 0.0, 0.99)
OTHER = Spot((20.0, 300.0, 60.0, 60.0), 0.0, 0.9)


def grey(height, width, value=128):
    return np.full((height, width, 3), value, np.uint8)


def test_a_change_is_shown_ten_times_as_large_around_grey():
    before = grey(1, 6, 100)
    after = before.copy()
    after[0, :, 0] = [100, 108, 92, 113, 87, 101]
    shown = drawing.amplified_difference(before, after, drawing.whole(before.shape))
    assert shown[0, :, 0].tolist() == [128, 208, 48, 255, 0, 138]
    assert (shown[..., 1:] == 128).all()


def test_a_change_of_a_large_photo_is_not_averaged_away():
    before = grey(4, 3 * drawing.SHOWN - 1)
    after = before + (8 * (-1) ** np.arange(before.shape[1], dtype=int)[None, :, None]).astype(np.uint8)
    shown = drawing.amplified_difference(before, after, drawing.whole(before.shape))
    assert shown.shape == (2, drawing.SHOWN, 3)
    assert set(np.unique(shown)) == {48, 208}


def test_only_a_window_of_a_change_is_shown():
    before, after = grey(30, 40), grey(30, 40)
    after[10, 20] += 1
    shown = drawing.amplified_difference(before, after, drawing.Window(10, 12, 20, 23))
    assert shown.shape == (2, 3, 3)
    assert shown[0, 0].tolist() == [138, 138, 138]
    assert (shown != 128).sum() == 3


def test_a_box_is_turned_clockwise_about_its_centre():
    points = drawing.corners((10, 20, 40, 20), 90.0, 2.0, (1000, 1000))
    assert np.allclose(points, [(80, 20), (80, 100), (40, 100), (40, 20)])


@pytest.mark.parametrize("box", [(-30, -30, 50, 50), (90, 70, 50, 50), (-10, -10, 300, 300)])
@pytest.mark.parametrize("angle", [0.0, 33.0])
def test_boxes_are_drawn_inside_the_picture(box, angle):
    points = np.array(drawing.corners(box, angle, 1.0, (100, 80)))
    assert (points >= 0).all()
    assert (points <= [99, 79]).all()
    image = grey(80, 100)
    drawn = drawing.draw_face_boxes(image, [drawing.FaceBox(box, angle, "1", "ticked")], 100)
    assert drawn.shape == image.shape
    assert (image == 128).all()
    assert (drawn == drawing.BOX_STYLES["ticked"][0]).all(-1).any()


def test_a_box_is_drawn_where_the_face_is_and_large_photos_get_smaller():
    image = grey(5 * drawing.SHOWN // 4, 5 * drawing.SHOWN // 2)
    mark = drawing.FaceBox((750, 500, 250, 250), 0.0, "7", "left out")
    drawn = drawing.draw_face_boxes(drawing.thumbnail(image), [mark], image.shape[1])
    assert drawn.shape == (drawing.SHOWN // 2, drawing.SHOWN, 3)
    changed = np.argwhere((drawn != 128).any(-1))
    assert (np.abs(changed.min(0) - [200, 300]) <= 4).all()
    assert (np.abs(changed.max(0) - [300, 400]) <= 4).all()
    assert (drawn[240:290, 340:390] == 128).all()


def test_a_face_is_shown_with_half_its_longer_side_around_it():
    assert drawing.face_window((100, 200, 40, 60), (1000, 1000)) == (170, 290, 60, 180)
    assert drawing.face_window((0, 0, 40, 60), (50, 1000)) == (0, 50, 0, 80)
    image = np.arange(12, dtype=np.uint8).reshape(3, 4, 1).repeat(3, 2)
    assert drawing.crop_window(image, drawing.Window(1, 3, 1, 2))[..., 0].tolist() == [[5], [9]]


def pick(x1, y1, x2, y2):
    return {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "width": 100, "height": 50}


@pytest.mark.parametrize(
    ("pick", "box"),
    [
        (pick(50, 25, 50, 25), [190, 85, 20, 30]),  # a tap: the middle of the box that there was
        (pick(50, 25, 57, 25), [190, 85, 20, 30]),
        (pick(0, 0, 0, 0), [0, 0, 20, 30]),
        (pick(100, 50, 100, 50), [380, 170, 20, 30]),
        (pick(10, 5, 30, 25), [40, 20, 80, 80]),  # a drag, whichever way
        (pick(30, 25, 10, 5), [40, 20, 80, 80]),
        (pick(90, 40, 160, 90), [360, 160, 40, 40]),  # beyond the picture's edge
        (pick(100, 20, 120, 40), [388, 80, 12, 80]),
    ],
)
def test_taps_and_drags_make_boxes_of_the_photo(pick, box):
    assert drawing.box_from_click(pick, (200, 400, 3), (1, 2, 20, 30)).tolist() == box


def test_a_picture_is_its_own_address_and_says_nothing_else():
    head, content = drawing.data_url(grey(20, 30, 200)).split(",")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert head == "data:image/jpeg;base64"
    assert image.size == (30, 20)
    assert not image.getexif()
    assert np.abs(np.asarray(image).astype(int) - 200).max() <= 2


def verdict(kind="detector", before=True, after=False, used=True, onlooker="mtcnn", face=0):
    return NetworkOutcome(face, onlooker, kind, used, before, after, 0.99, None if after is None else 0.2, 0.8)


SAID = {
    ("detector", True, True): "✗ still sees it",
    ("detector", True, False): "✓ no longer sees it",
    ("detector", False, True): "✗ sees it only now",
    ("detector", False, None): "– never saw it",
    ("recogniser", True, True): "✗ still matches it",
    ("recogniser", True, False): "✓ no longer matches it",
    ("recogniser", None, None): "– nobody saw a face to compare",
}


@pytest.mark.parametrize(("case", "said"), SAID.items())
def test_every_verdict_is_said_in_words(case, said):
    assert texts.outcome_text(verdict(*case)) == said


def test_a_face_is_summed_up_by_those_who_saw_it_before():
    verdicts = [
        verdict(),
        verdict(after=True, used=False, onlooker="ssd"),
        verdict(before=None, after=None, onlooker="faster_rcnn"),
        verdict("recogniser"),
    ]
    said = texts.summary(verdicts)
    assert said == "no longer seen by 1 of 2 detectors; no longer matched by 1 of 1 recogniser."
    assert texts.summary(verdicts[2:3]) == "nobody who was asked saw it before."
    late = [verdict(), verdict(before=False, after=True, used=False, onlooker="ssd")]
    assert texts.summary(late) == "no longer seen by 1 of 1 detector; seen only now by 1 detector."


def test_the_table_parts_those_that_the_attack_used_from_the_others():
    html = results_view.outcome_table("Face <1>", [verdict(used=False, onlooker="<b>"), verdict()], None)
    assert html.index(texts.USED[True]) < html.index("MTCNN") < html.index(texts.USED[False]) < html.index("&lt;b&gt;")
    assert "0.99 → 0.20 (0.80)" in html
    assert 'aria-label="Face &lt;1&gt;"' in html
    assert texts.USED[False] not in results_view.outcome_table("Face 1", [verdict()], None)


def test_networks_that_this_project_trained_are_marked():
    assert texts.network_name("facenet", None) == "FaceNet (trained here)"
    assert texts.network_name("facenet", "facenet") == "FaceNet"
    assert texts.network_name("vgg_face", "facenet") == "VGG-Face (trained here)"
    assert texts.network_name("mtcnn", None) == "MTCNN"


def test_a_strangers_words_stay_words():
    assert texts.escape_markdown("![a](http://b) $x$\n:red[c]") == r"\!\[a\]\(http\:\/\/b\) \$x\$ \:red\[c\]"


class Desk:
    """A desk that works when it is told to."""

    opened = True

    def __init__(self):
        self.held, self.asked, self.lives = {}, [], []

    def eyes(self):
        return SimpleNamespace(options=NetworkOptions())

    def alive(self, session):
        self.lives.append(session)

    def submit(self, session, upload, faces, level, target):
        job = Job(f"job{len(self.asked)}", session, upload.name, "waiting", 0.0, "", 1, None, None)
        self.asked.append((upload, faces, level, target))
        self.held[job.id] = job
        return job

    def jobs(self, session):
        return [job for job in self.held.values() if job.session == session]

    def change(self, job, **fields):
        self.held[job] = self.held[job]._replace(**fields)

    def cancel(self, session, job):
        assert self.held[job].session == session
        self.change(job, state="cancelled", place=None)

    def drop(self, session, job):
        assert self.held.pop(job).session == session

    def forget(self, session):
        self.held = {key: job for key, job in self.held.items() if job.session != session}

    def finish(self, job):
        upload, faces, level, _ = self.asked[int(job.removeprefix("job"))]
        verdicts = [verdict(face=0), verdict("recogniser", after=True, used=False, onlooker="vgg_face")]
        distance = Distance(8, 0.9, 31.0)
        after = upload.image + 1
        told = [distance] * len(faces)
        done = ProtectionResult(
            upload.name, upload.image, after, b"PNG", faces, verdicts, told, distance, 2.0, level.eps
        )
        self.change(job, state="done", place=None, result=done)


@pytest.fixture
def desk(monkeypatch):
    made = Desk()
    monkeypatch.setattr(session, "job_queue", lambda: made)
    monkeypatch.setattr(upload_view, "find_faces", lambda eyes, image: [FACE, OTHER])
    return made


@pytest.fixture
def page(desk, monkeypatch):
    """Open a page of a session; it is run as the one whose turn it is."""

    def opened(session="ann"):
        monkeypatch.setattr(session, "register_session", lambda: session)
        return AppTest.from_file(SOURCE / "app/page.py", default_timeout=20)

    return opened


def file(image, name="me.jpg"):
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG")
    return name, content.getvalue(), "image/jpeg"


@pytest.fixture(scope="module")
def photo():
    return file(data.astronaut())


def said(app):
    return " ".join(str(one.value) for one in [*app.markdown, *app.caption, *app.info, *app.warning, *app.error])


def button(app, words):
    return next(one for one in app.button if one.label == texts)


def test_the_empty_page_says_what_it_protects_from(page):
    app = page().run()
    assert not app.exception
    assert not app.error
    assert "Other and future models may still see the face" in said(app)
    assert "drawn faces only" in said(app)
    assert "Visor writes them to no file" in said(app)
    assert not app.button


def test_the_page_and_the_manual_tell_of_the_same_measurement():
    manual = " ".join((ROOT / "docs/app.md").read_text().split())
    photos, faces = (int(re.search(rf"(\d+) {thing}", texts.LIMITS)[1]) for thing in ("photos", "faces"))
    found, quality = (int(number) for number in re.search(r"found (\d+) .* of quality (\d+)", texts.LIMITS).groups())
    assert sum(int(number) for number in re.findall(r"(\d+) (?:photos )?of (?:LFW|WIDER)", manual)) == photos
    assert f"of the {faces} faces that MTCNN found, it finds none" in manual
    assert f"{found} in those of quality {quality}" in manual


def test_what_is_refused_is_said_by_name_and_the_rest_goes_on(page, photo):
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


def test_more_photos_than_may_be_held_are_refused(page, photo, monkeypatch):
    monkeypatch.setattr(session.settings, "MAX_PHOTO_MEMORY", 3 * data.astronaut().nbytes)
    app = page().run()
    app.file_uploader[0].set_value([photo, file(data.astronaut(), "second.jpg")]).run()
    assert r"second\.jpg" in app.warning[0].value
    assert len(app.checkbox) == 2


def test_the_ticked_faces_are_handed_in_once(page, photo, desk):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.checkbox[0].uncheck().run()
    app.button(key="protect").click().run()
    ((upload, faces, level, target),) = desk.asked
    assert upload.image.shape == (512, 512, 3)
    assert tuple(faces) == (OTHER,)
    assert (level, target) == (LEVELS[DEFAULT_LEVEL], "both")
    app.button(key="protect").click().run()
    assert len(desk.asked) == 1
    assert app.info[0].value == texts.SAME_AGAIN
    app.select_slider[0].set_value(LEVELS[0].name).run()
    app.radio[0].set_value("detectors").run()
    app.button(key="protect").click().run()
    assert desk.asked[1][2:] == (LEVELS[0], "detectors")


def test_a_photo_waits_is_cancelled_and_removed(page, photo, desk):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.button(key="protect").click().run()
    assert texts.QUEUE_HEADING in [one.value for one in app.subheader]
    button(app, texts.CANCEL).click().run()
    assert desk.held["job0"].state == "cancelled"
    assert texts.CANCELLED in said(app)
    button(app, texts.DISMISS).click().run()
    assert not desk.held


def test_a_full_queue_is_said_until_the_next_try(page, photo, desk, monkeypatch):
    def full(*args):
        raise UserError("the queue is full; try again later")

    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    with monkeypatch.context() as patched:
        patched.setattr(desk, "submit", full)
        app.button(key="protect").click().run()
        app.run()
        assert [one.value for one in app.error] == [texts.escape_markdown("the queue is full; try again later")]
    app.button(key="protect").click().run()
    assert not app.error
    assert len(desk.asked) == 1


def test_a_photo_that_is_refused_does_not_keep_the_next_from_the_queue(page, photo, desk, monkeypatch):
    submit = desk.submit

    def picky(session, upload, *others):
        if upload.name != "third":
            raise UserError("too many faces")
        return submit(session, upload, *others)

    monkeypatch.setattr(desk, "submit", picky)
    app = page().run()
    app.file_uploader[0].set_value([photo, file(data.astronaut(), "second.jpg"), file(data.astronaut(), "third.jpg")])
    app.run()
    app.button(key="protect").click().run()
    assert [upload.name for upload, *_ in desk.asked] == ["third"]
    assert [one.value for one in app.error] == ["too many faces"]


def test_a_failed_photo_says_why(page, photo, desk):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.button(key="protect").click().run()
    desk.change("job0", state="failed", place=None, error="me is too dark; take another")
    app.run()
    assert [one.value for one in app.error] == [texts.escape_markdown("me is too dark; take another")]


def test_a_result_names_the_faces_as_they_were_chosen(page, photo, desk):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.checkbox[0].uncheck().run()
    app.button(key="protect").click().run()
    desk.finish("job0")
    app.run()
    assert not app.exception
    assert not app.error
    told = [one.label for one in app.expander if one.label.startswith("Face")]
    assert told == ["Face 2: no longer seen by 1 of 1 detector; no longer matched by 0 of 1 recogniser."]
    assert "SSIM 0.900" in said(app)
    assert "PSNR 31.0 dB" in said(app)
    assert texts.RESULTS_NOTICE in said(app)


def test_a_short_password_locks_nothing(page, photo, desk):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.button(key="protect").click().run()
    desk.finish("job0")
    app.run()
    assert not app.error
    app.text_input[0].set_value("short")
    button(app, texts.LOCK).click().run()
    assert texts.PASSWORD_SHORT in said(app)
    labels = [one.label for one in app.get("download_button")]
    assert texts.DOWNLOAD_ALL in labels
    assert texts.DOWNLOAD_LOCKED not in labels
    app.text_input[0].set_value("four words and more")
    button(app, texts.LOCK).click().run()
    assert texts.PASSWORD_SHORT not in said(app)
    assert texts.DOWNLOAD_LOCKED in [one.label for one in app.get("download_button")]


def test_a_face_is_added_by_hand_in_numbers_and_removed(page, photo, desk):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    button(app, texts.ADD).click().run()
    assert [one.value for one in app.number_input] == [171, 171, 170, 170]
    app.number_input[0].set_value(100).run()
    button(app, texts.ADD_THIS).click().run()
    assert [box.label for box in app.checkbox] == ["Face 1", "Face 2", "Face 3"]
    app.button(key="protect").click().run()
    assert desk.asked[0][1][2] == Spot((100.0, 171.0, 170.0, 170.0), 0.0, None)
    button(app, texts.REMOVE_FACE.format(3)).click().run()
    assert len(app.checkbox) == 2


def test_everything_is_forgotten_at_a_click(page, photo, desk):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.button(key="protect").click().run()
    app.button(key="forget").click().run()
    assert not desk.held
    assert not app.checkbox
    assert texts.FORGOTTEN in said(app)
    assert not app.session_state["visit"].photos


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def test_everything_is_forgotten_though_the_browser_sleeps(page, photo, clock):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    here = app.session_state["visit"]
    (image,) = [weakref.ref(kept.upload.image) for kept in here.photos.values()]
    clock.seconds += IDLE_SECONDS
    session.expire_idle_sessions()
    assert image() is not None
    clock.seconds += 1
    for _ in range(2):
        session.expire_idle_sessions()
    gc.collect()
    assert image() is None
    assert here.round == 1
    app.run()
    assert not app.checkbox
    assert texts.TIMED_OUT in said(app)


def test_a_photo_in_the_queue_counts_as_a_click_until_it_is_done(page, photo, desk, clock):
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.button(key="protect").click().run()
    here = app.session_state["visit"]
    clock.seconds += IDLE_SECONDS + 1
    session.expire_idle_sessions()
    desk.finish("job0")
    session.expire_idle_sessions()
    assert here.photos
    assert desk.held
    clock.seconds += IDLE_SECONDS + 1
    session.expire_idle_sessions()
    assert not here.photos
    assert not desk.held


def test_locking_counts_as_a_click(desk, clock, monkeypatch):
    here = session.new_session("ann")
    clock.seconds += 5
    monkeypatch.setattr(results_view.st, "download_button", lambda *args, **named: None)
    results_view._downloads(here)
    assert here.clicked == clock.seconds
    assert desk.lives == ["ann"]


@pytest.fixture
def files(monkeypatch):
    """Streamlit's keeper of downloads, asked by threads without a page, as in its server."""
    made = MediaFileManager(MemoryMediaFileStorage("/media"))
    add = made.add
    monkeypatch.setattr(made, "add", lambda *args, **named: (time.sleep(0.02), add(*args, **named))[1])
    monkeypatch.setattr(Runtime, "_instance", SimpleNamespace(media_file_mgr=made))
    monkeypatch.setattr(results_view, "get_script_run_ctx", lambda: SimpleNamespace(session_id="ann"))
    return made


def fetched(files, url):
    return files._storage.get_file(url.removeprefix("/media/")).content


def test_a_download_outlives_other_sessions_and_ends_with_the_next_or_when_forgotten(desk, files, clock):
    here, contents = session.new_session("ann"), iter([b"one", b"two"])
    button = files.add_deferred(
        results_view.keep_download(here, lambda: next(contents), *results_view.ZIP),
        results_view.ZIP[1],
        "1",
        results_view.ZIP[0],
    )
    files._files_by_session_and_coord = {"ann": {"1": button}}  # whose page it is
    clock.seconds += 5
    first = files.execute_deferred(button)
    assert here.clicked == clock.seconds
    for _ in range(3):  # scripts of others end
        files.remove_orphaned_files()
    assert fetched(files, first) == b"one"
    second = files.execute_deferred(button)
    for _ in range(2):
        files.remove_orphaned_files()
    with pytest.raises(MediaFileStorageError):
        fetched(files, first)
    assert fetched(files, second) == b"two"
    here.forget(texts.FORGOTTEN)
    with pytest.raises(MediaFileStorageError):
        fetched(files, second)


def test_streamlit_is_given_no_photo_that_would_outlive_being_forgotten(page, photo, desk, monkeypatch):
    given = []
    fragment = results_view.st.fragment

    def watched(draw, **named):
        return lambda *args: given.extend(args) or fragment(draw, **named)(*args)

    monkeypatch.setattr(results_view.st, "fragment", watched)
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.button(key="protect").click().run()
    desk.finish("job0")
    app.run()
    assert "job0" in given
    assert {type(one) for one in given} == {str, session.Session}


def test_visitors_who_come_while_memory_is_counted_do_no_harm(monkeypatch):
    monkeypatch.setattr(session, "SESSIONS", weakref.WeakSet())
    here = session.new_session("here")
    kept = [here, *(session.new_session(str(number)) for number in range(100))]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    small = session.UploadedPhoto("key", SimpleNamespace(image=grey(2, 2)))
    try:
        with ThreadPoolExecutor(2) as pool:
            coming = pool.submit(lambda: kept.extend(session.new_session("new") for _ in range(500)))
            while not coming.done():
                assert here.try_add_photo(small)
            coming.result()
    finally:
        sys.setswitchinterval(interval)
    assert len(session.SESSIONS) == 601


def test_two_who_come_at_once_do_not_both_get_the_last_memory(monkeypatch):
    monkeypatch.setattr(session, "SESSIONS", weakref.WeakSet())
    monkeypatch.setattr(session.settings, "MAX_PHOTO_MEMORY", 4 * grey(8, 8).nbytes)
    held = session.Session.photo_bytes
    monkeypatch.setattr(session.Session, "held", lambda self: (held(self), time.sleep(0.002))[0])
    visitors = [session.new_session(str(number)) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        kept = list(
            pool.map(lambda one: one.keep(session.UploadedPhoto("k", SimpleNamespace(image=grey(8, 8)))), visitors)
        )
    assert sum(kept) == sum(len(one.photos) for one in visitors) == 4


def test_faces_are_looked_for_in_one_photo_at_a_time(desk, monkeypatch):
    looking, most = [], []

    def slow(eyes, image):
        looking.append(image)
        most.append(len(looking))
        time.sleep(0.01)
        looking.pop()
        return [FACE]

    monkeypatch.setattr(upload_view, "find_faces", slow)
    visitors = [session.new_session(name) for name in "abc"]
    for one in visitors:
        for key in "xy":
            one.try_add_photo(session.UploadedPhoto(key, SimpleNamespace(image=grey(8, 8))))
    threads = [threading.Thread(target=upload_view._detect_faces, args=[one]) for one in visitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6


def test_a_photo_in_which_nobody_can_look_does_not_stop_the_others(page, photo, monkeypatch, caplog):
    looked = []

    def picky(eyes, image):
        looked.append(len(image))
        if len(image) == 512:
            raise RuntimeError("IMG_1234 of Ann")
        return [FACE]

    monkeypatch.setattr(upload_view, "find_faces", picky)
    app = page().run()
    app.file_uploader[0].set_value([photo, file(data.astronaut()[:400], "second.jpg")]).run()
    app.run()
    assert looked == [512, 400]
    assert [box.label for box in app.checkbox] == ["Face 1"]
    assert texts.NO_FACE in said(app)
    assert "RuntimeError" in caplog.text
    assert "Ann" not in caplog.text


def test_a_photo_is_shrunk_once_and_drawn_anew_only_if_its_boxes_changed(page, photo, monkeypatch):
    shrunk, drawn = [], []
    reduced, marked = drawing.thumbnail, drawing.draw_face_boxes
    monkeypatch.setattr(drawing, "thumbnail", lambda image: shrunk.append(1) or reduced(image))
    monkeypatch.setattr(drawing, "draw_face_boxes", lambda *args: drawn.append(1) or marked(*args))
    app = page().run()
    app.file_uploader[0].set_value([photo]).run()
    app.run()
    assert (len(shrunk), len(drawn)) == (1, 1)
    app.checkbox[0].uncheck().run()
    app.run()
    assert (len(shrunk), len(drawn)) == (1, 2)


def test_a_fault_is_one_sentence_and_the_log_does_not_learn_of_the_photo(page, photo, monkeypatch, caplog):
    def broken(name, data):
        raise RuntimeError("IMG_1234 of Ann")

    monkeypatch.setattr(upload_view, "read_upload", broken)
    app = page().run()
    with caplog.at_level(logging.DEBUG):
        app.file_uploader[0].set_value([photo]).run()
    assert [one.value for one in app.error] == [texts.UNEXPECTED]
    assert "RuntimeError" in caplog.text
    assert "Ann" not in caplog.text
    assert "IMG_1234" not in said(app)
    assert not app.exception


def test_visitors_do_not_see_each_other(page, photo, desk):
    ann = page("ann").run()
    ann.file_uploader[0].set_value([photo]).run()
    ann.button(key="protect").click().run()
    desk.finish("job0")
    bob = page("bob").run()
    assert not bob.checkbox
    assert not bob.expander[0].label.startswith("Face")
    assert texts.RESULTS_HEADING not in [one.value for one in bob.subheader]
    bob.file_uploader[0].set_value([file(data.astronaut()[:, ::-1], "bob.jpg")]).run()
    assert [job.name for job in desk.jobs("bob")] == []
    assert "me" not in said(bob).split()
    page("ann")  # it is her turn again
    ann.run()
    assert not ann.error
    assert texts.RESULTS_HEADING in [one.value for one in ann.subheader]
    assert "bob" not in said(ann)
