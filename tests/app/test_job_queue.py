"""The desk: turns, cancelling, forgetting, and that nobody gets what is another's."""

import threading

import numpy as np
import pytest

from visor.app import settings
from visor.app.job_queue import FAILED, OPENING, JobQueue
from visor.app.networks import Spot
from visor.app.protect import Distance, JobCancelled, ProtectionResult
from visor.app.settings import LEVELS
from visor.app.uploads import Upload
from visor.core.errors import UserError

IMAGE = np.zeros((40, 40, 3), np.uint8)
FACES = [Spot((5.0, 5.0, 20.0, 20.0))]
PATIENCE = 20  # seconds: only a test that fails waits so long


class Worker:
    """Protects nothing: says how far it is, waits to be let on, and remembers whose turn it was."""

    def __init__(self):
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.names, self.error = [], None

    def __call__(self, eyes, upload, faces, level, target, say, cancelled):
        assert eyes == "eyes"
        self.names.append(upload.name)
        say(0.5, "half")
        self.begun.release()
        assert self.go.acquire(timeout=PATIENCE)
        if cancelled():
            raise JobCancelled
        if self.error:
            raise self.error
        nothing = Distance(0, 1.0, None)
        return ProtectionResult(
            upload.name, upload.image, upload.image, b"", faces, [], [nothing], nothing, 0.0, level.eps
        )


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def worker():
    return Worker()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def desk(worker, clock):
    desk = JobQueue(lambda: "eyes", worker, clock)
    yield desk
    desk.close()
    for _ in range(99):
        worker.go.release()


def hand_in(desk, session, name, faces=FACES):
    return desk.submit(session, Upload(name, IMAGE), faces, LEVELS[0], "both")


def begin(worker):
    assert worker.begun.acquire(timeout=PATIENCE)


def wait(desk, session, *states):
    """Wait until the photos of a session are in these states."""
    for _ in range(PATIENCE * 200):
        if [job.state for job in desk.jobs(session)] == list(states):
            return desk.jobs(session)
        threading.Event().wait(0.005)
    raise AssertionError(desk.jobs(session))


def test_a_photo_waits_is_worked_on_and_is_done(desk, worker):
    first, second = hand_in(desk, "ann", "one"), hand_in(desk, "ann", "two")
    begin(worker)
    running, waiting = desk.jobs("ann")
    assert (running.id, running.state, running.progress, running.words) == (first.id, "running", 0.5, "half")
    assert (waiting.id, waiting.state, waiting.place) == (second.id, "waiting", 1)
    worker.go.release()
    begin(worker)
    done = desk.jobs("ann")[0]
    assert (done.state, done.place, done.result.name, done.error) == ("done", None, "one", None)
    worker.go.release()
    assert wait(desk, "ann", "done", "done")[1].result.before is IMAGE


def test_sessions_have_turns(desk, worker):
    for name in ("a1", "a2", "a3", "a4"):
        hand_in(desk, "ann", name)
    begin(worker)
    assert [hand_in(desk, "bob", name).place for name in ("b1", "b2")] == [1, 3]
    assert hand_in(desk, "cleo", "c1").place == 2
    places = {job.name: job.place for session in ("ann", "bob", "cleo") for job in desk.jobs(session)}
    for _ in range(6):
        worker.go.release()
        begin(worker)
    assert worker.names == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    order = sorted((place, name) for name, place in places.items() if place)
    assert [name for _, name in order] == worker.names[1:]


def test_nobody_sees_or_stops_what_is_anothers(desk, worker):
    running, waiting = hand_in(desk, "ann", "one"), hand_in(desk, "ann", "two")
    begin(worker)
    for job in (running, waiting):
        desk.cancel("bob", job.id)
        desk.drop("bob", job.id)
    desk.forget("bob")
    assert desk.jobs("bob") == []
    worker.go.release()
    begin(worker)
    worker.go.release()
    done = wait(desk, "ann", "done", "done")
    assert {job.session for job in done} == {"ann"}
    assert len({job.id for job in done}) == 2
    hand_in(desk, "bob", "one")
    assert [job.result for job in desk.jobs("bob")] == [None]


def test_what_waits_and_what_runs_can_be_cancelled(desk, worker):
    running, waiting = hand_in(desk, "ann", "one"), hand_in(desk, "ann", "two")
    begin(worker)
    desk.cancel("ann", running.id)
    desk.cancel("ann", waiting.id)
    assert [job.state for job in desk.jobs("ann")] == ["cancelled", "cancelled"]
    hand_in(desk, "ann", "three")
    worker.go.release()
    begin(worker)
    worker.go.release()
    done = wait(desk, "ann", "cancelled", "cancelled", "done")
    assert worker.names == ["one", "three"]
    assert [job.result is None for job in done] == [True, True, False]
    desk.cancel("ann", done[2].id)
    assert desk.jobs("ann")[2].state == "done"


@pytest.mark.parametrize(
    ("error", "sentence"), [(ValueError("secret.jpg"), FAILED), (UserError("Choose another"), "Choose another")]
)
def test_the_worker_outlives_a_photo_that_fails(desk, worker, caplog, error, sentence):
    worker.error = error
    hand_in(desk, "ann", "one")
    begin(worker)
    worker.go.release()
    assert wait(desk, "ann", "failed")[0].error == sentence
    worker.error = None
    hand_in(desk, "ann", "two")
    worker.go.release()
    wait(desk, "ann", "failed", "done")
    assert "secret" not in caplog.text
    assert ("ValueError" in caplog.text) == (sentence == FAILED)


def test_results_are_forgotten_after_a_silence(desk, worker, clock):
    for session in ("ann", "bob"):
        hand_in(desk, session, session)
        worker.go.release()
        wait(desk, session, "done")
    clock.now += settings.IDLE_SECONDS
    desk.alive("ann")
    desk.alive("stranger")
    clock.now += 1
    desk.sweep()
    assert [len(desk.jobs(session)) for session in ("ann", "bob", "stranger")] == [1, 0, 0]
    desk.forget("ann")
    assert desk.jobs("ann") == []


def test_a_session_that_leaves_stops_its_photo_and_leaves_nothing(desk, worker):
    hand_in(desk, "ann", "one")
    begin(worker)
    desk.forget("ann")
    assert desk.jobs("ann") == []
    worker.go.release()
    hand_in(desk, "bob", "two")
    worker.go.release()
    wait(desk, "bob", "done")
    assert desk.jobs("ann") == []


def test_a_dropped_photo_is_gone_and_makes_room(desk, worker, monkeypatch):
    monkeypatch.setattr(settings, "MAX_PHOTO_MEMORY", 4 * 3 * IMAGE.nbytes)
    kept, dropped = hand_in(desk, "ann", "one"), hand_in(desk, "ann", "two")
    with pytest.raises(UserError, match="your share of the memory"):
        hand_in(desk, "ann", "three")
    for session in ("cleo", "dan"):
        hand_in(desk, session, "theirs")
    with pytest.raises(UserError, match="memory for photos is full"):
        hand_in(desk, "bob", "three")
    desk.drop("ann", dropped.id)
    assert [job.id for job in desk.jobs("ann")] == [kept.id]
    assert hand_in(desk, "bob", "three").state == "waiting"


def test_the_queue_is_bounded(desk, monkeypatch):
    monkeypatch.setattr(settings, "PHOTOS", 2)
    monkeypatch.setattr(settings, "MAX_QUEUED", 3)
    hand_in(desk, "ann", "one")
    hand_in(desk, "ann", "two")
    with pytest.raises(UserError, match="2 photos at once"):
        hand_in(desk, "ann", "three")
    hand_in(desk, "bob", "four")
    with pytest.raises(UserError, match="queue is full"):
        hand_in(desk, "bob", "five")
    assert len(desk.jobs("ann")) == 2


@pytest.mark.parametrize("count", [0, settings.FACES + 1])
def test_a_photo_has_some_faces_and_not_too_many(desk, count):
    with pytest.raises(UserError, match=f"{count} chosen faces"):
        hand_in(desk, "ann", "one", FACES * count)
    assert desk.jobs("ann") == []


def test_networks_are_loaded_once_and_that_is_seen(worker):
    loading, loaded, calls = threading.Event(), threading.Event(), []

    def load():
        calls.append(1)
        loading.set()
        assert loaded.wait(PATIENCE)
        return "eyes"

    desk = JobQueue(load, worker)
    assert not desk.networks_loaded
    hand_in(desk, "ann", "one")
    assert loading.wait(PATIENCE)
    assert desk.jobs("ann")[0].status_text == OPENING
    loaded.set()
    begin(worker)
    assert desk.networks() == "eyes"
    assert desk.networks_loaded
    assert calls == [1]
    worker.go.release()
    wait(desk, "ann", "done")
    desk.close()


def test_networks_that_cannot_be_had_are_told_of(worker):
    def load():
        raise UserError("Train facenet first")

    desk = JobQueue(load, worker)
    hand_in(desk, "ann", "one")
    assert wait(desk, "ann", "failed")[0].error == "Train facenet first"
    desk.close()
