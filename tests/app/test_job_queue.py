"""Job queue: turns, cancelling, deletion, and that a session has access to its own jobs only."""

import threading

import numpy as np
import pytest

from visor.app import settings
from visor.app.job_queue import FAILED, LOADING, JobQueue, JobRequest
from visor.app.protect import Distance, JobCancelled, ProtectionResult
from visor.app.settings import LEVELS
from visor.app.uploads import Upload
from visor.core.errors import UserError
from visor.photos.faces import Face

IMAGE = np.zeros((40, 40, 3), np.uint8)
FACES = (Face((5.0, 5.0, 20.0, 20.0)),)
TIMEOUT = 20  # seconds: only a test that fails waits so long


class Worker:
    """Protects nothing: reports progress, waits for ``proceed``, and records the names of the photos."""

    def __init__(self):
        self.started, self.proceed = threading.Semaphore(0), threading.Semaphore(0)
        self.names, self.error = [], None

    def __call__(self, networks, upload, faces, level, target, report_progress, is_cancelled):
        assert networks == "networks"
        self.names.append(upload.name)
        report_progress(0.5, "half")
        self.started.release()
        assert self.proceed.acquire(timeout=TIMEOUT)
        if is_cancelled():
            raise JobCancelled
        if self.error:
            raise self.error
        distance, image = Distance(0, 1.0, None), upload.image
        return ProtectionResult(upload.name, image, image, b"", faces, [], [distance], distance, 0.0, level.eps)


@pytest.fixture
def worker():
    return Worker()


@pytest.fixture
def queue(worker):
    queue = JobQueue(lambda: "networks", worker)
    yield queue
    queue.close()
    for _ in range(99):
        worker.proceed.release()


def submit(queue, session, name, faces=FACES):
    request = JobRequest(name, tuple(range(1, 1 + len(faces))), faces, LEVELS[0], "both")
    return queue.submit(session, Upload(name, IMAGE), request)


def wait_for_start(worker):
    assert worker.started.acquire(timeout=TIMEOUT)


def wait(queue, session, *states):
    """Wait until the photos of a session are in these states."""
    for _ in range(TIMEOUT * 200):
        if [job.state for job in queue.jobs(session)] == list(states):
            return queue.jobs(session)
        threading.Event().wait(0.005)
    raise AssertionError(queue.jobs(session))


def test_a_photo_waits_runs_and_is_done(queue, worker):
    first, second = submit(queue, "ann", "one"), submit(queue, "ann", "two")
    wait_for_start(worker)
    running, waiting = queue.jobs("ann")
    assert (running.id, running.state, running.progress, running.status_text) == (first.id, "running", 0.5, "half")
    assert (waiting.id, waiting.state, waiting.position) == (second.id, "waiting", 1)
    worker.proceed.release()
    wait_for_start(worker)
    done = queue.jobs("ann")[0]
    assert (done.state, done.position, done.result.name, done.error) == ("done", None, "one", None)
    worker.proceed.release()
    assert wait(queue, "ann", "done", "done")[1].result.before is IMAGE


def test_sessions_take_turns(queue, worker):
    for name in ("a1", "a2", "a3", "a4"):
        submit(queue, "ann", name)
    wait_for_start(worker)
    assert [submit(queue, "bob", name).position for name in ("b1", "b2")] == [1, 3]
    assert submit(queue, "cleo", "c1").position == 2
    positions = {job.name: job.position for session in ("ann", "bob", "cleo") for job in queue.jobs(session)}
    for _ in range(6):
        worker.proceed.release()
        wait_for_start(worker)
    assert worker.names == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    order = sorted((position, name) for name, position in positions.items() if position)
    assert [name for _, name in order] == worker.names[1:]


def test_a_session_cannot_see_or_stop_jobs_of_another(queue, worker):
    running, waiting = submit(queue, "ann", "one"), submit(queue, "ann", "two")
    wait_for_start(worker)
    for job in (running, waiting):
        queue.cancel("bob", job.id)
        queue.remove("bob", job.id)
    queue.clear_session("bob")
    assert queue.jobs("bob") == []
    worker.proceed.release()
    wait_for_start(worker)
    worker.proceed.release()
    done = wait(queue, "ann", "done", "done")
    assert {job.session for job in done} == {"ann"}
    assert len({job.id for job in done}) == 2
    submit(queue, "bob", "one")
    assert [job.result for job in queue.jobs("bob")] == [None]


def test_waiting_and_running_jobs_can_be_cancelled(queue, worker):
    running, waiting = submit(queue, "ann", "one"), submit(queue, "ann", "two")
    wait_for_start(worker)
    queue.cancel("ann", running.id)
    queue.cancel("ann", waiting.id)
    assert [job.state for job in queue.jobs("ann")] == ["cancelled", "cancelled"]
    submit(queue, "ann", "three")
    worker.proceed.release()
    wait_for_start(worker)
    worker.proceed.release()
    done = wait(queue, "ann", "cancelled", "cancelled", "done")
    assert worker.names == ["one", "three"]
    assert [job.result is None for job in done] == [True, True, False]
    queue.cancel("ann", done[2].id)
    assert queue.jobs("ann")[2].state == "done"


@pytest.mark.parametrize(
    ("error", "message"), [(ValueError("secret.jpg"), FAILED), (UserError("Choose another"), "Choose another")]
)
def test_the_worker_survives_a_job_that_fails(queue, worker, caplog, error, message):
    worker.error = error
    submit(queue, "ann", "one")
    wait_for_start(worker)
    worker.proceed.release()
    assert wait(queue, "ann", "failed")[0].error == message
    worker.error = None
    submit(queue, "ann", "two")
    worker.proceed.release()
    wait(queue, "ann", "failed", "done")
    assert "secret" not in caplog.text
    assert ("ValueError" in caplog.text) == (message == FAILED)


def test_clearing_a_session_stops_its_job_and_leaves_nothing(queue, worker):
    submit(queue, "ann", "one")
    wait_for_start(worker)
    queue.clear_session("ann")
    assert queue.jobs("ann") == []
    worker.proceed.release()
    submit(queue, "bob", "two")
    worker.proceed.release()
    wait(queue, "bob", "done")
    assert queue.jobs("ann") == []


def test_removing_a_photo_frees_its_memory(queue, worker, monkeypatch):
    monkeypatch.setattr(settings, "MAX_PHOTO_MEMORY", 4 * 3 * IMAGE.nbytes)
    monkeypatch.setattr(settings, "MAX_SESSION_MEMORY", 2 * 3 * IMAGE.nbytes)
    kept, removed = submit(queue, "ann", "one"), submit(queue, "ann", "two")
    with pytest.raises(UserError, match="all the memory available to you"):
        submit(queue, "ann", "three")
    for session in ("cleo", "dan"):
        submit(queue, session, "theirs")
    with pytest.raises(UserError, match="Photo memory is full"):
        submit(queue, "bob", "three")
    queue.remove("ann", removed.id)
    assert [job.id for job in queue.jobs("ann")] == [kept.id]
    assert submit(queue, "bob", "three").state == "waiting"


def test_the_queue_is_limited(queue, monkeypatch):
    monkeypatch.setattr(settings, "PHOTOS", 2)
    monkeypatch.setattr(settings, "MAX_QUEUED", 3)
    submit(queue, "ann", "one")
    submit(queue, "ann", "two")
    with pytest.raises(UserError, match="at most 2 photos"):
        submit(queue, "ann", "three")
    submit(queue, "bob", "four")
    with pytest.raises(UserError, match="queue is full"):
        submit(queue, "bob", "five")
    assert len(queue.jobs("ann")) == 2


@pytest.mark.parametrize("count", [0, settings.FACES + 1])
def test_the_number_of_faces_is_limited(queue, count):
    with pytest.raises(UserError, match=f"{count} selected faces"):
        submit(queue, "ann", "one", FACES * count)
    assert queue.jobs("ann") == []


def test_networks_are_loaded_once_and_the_job_shows_it(worker):
    loading, loaded, calls = threading.Event(), threading.Event(), []

    def load():
        calls.append(1)
        loading.set()
        assert loaded.wait(TIMEOUT)
        return "networks"

    queue = JobQueue(load, worker)
    assert not queue.networks_loaded
    submit(queue, "ann", "one")
    assert loading.wait(TIMEOUT)
    assert queue.jobs("ann")[0].status_text == LOADING
    loaded.set()
    wait_for_start(worker)
    assert queue.networks() == "networks"
    assert queue.networks_loaded
    assert calls == [1]
    worker.proceed.release()
    wait(queue, "ann", "done")
    queue.close()


def test_a_failure_to_load_networks_is_reported(worker):
    def load():
        raise UserError("Train facenet first")

    queue = JobQueue(load, worker)
    submit(queue, "ann", "one")
    assert wait(queue, "ann", "failed")[0].error == "Train facenet first"
    queue.close()
