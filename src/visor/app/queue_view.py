"""Middle of the page: strength, target, submission, and the queue."""

import streamlit as st

from visor.app import texts
from visor.app.job_queue import Job, JobRequest
from visor.app.session import Session, UploadedPhoto, show_errors
from visor.app.settings import DEFAULT_LEVEL, LEVELS, TARGETS, ProtectionLevel
from visor.core.errors import UserError

POLL_SECONDS, IDLE_POLL_SECONDS = 2.0, 60.0  # between two updates of the queue, while jobs are pending and otherwise


@show_errors
def settings_section(session: Session) -> None:
    """Draw the slider, the targets and the button that submits the selected faces."""
    st.subheader(texts.STRENGTH_HEADING, anchor=False)
    name = st.select_slider(texts.STRENGTH, [level.name for level in LEVELS], LEVELS[DEFAULT_LEVEL].name)
    level = next(level for level in LEVELS if level.name == name)
    st.markdown(texts.strength(level))
    st.caption(texts.STRENGTH_HINT)
    target = st.radio(texts.TARGET, TARGETS, format_func=TARGETS.__getitem__, index=len(TARGETS) - 1)
    photos = [photo for photo in session.photos.values() if photo.selected_faces()]
    label = texts.protect_label(len(photos), sum(len(photo.selected_faces()) for photo in photos))
    if st.button(label, key="protect", type="primary", width="stretch", disabled=not photos):
        session.rejected.clear()
        _submit(session, photos, level, target)
    for reason in dict.fromkeys(session.rejected):  # each reason once: a full queue concerns every photo
        st.error(texts.escape_markdown(reason))
    if not photos:
        st.caption(texts.NOTHING_SELECTED)


def _submit(session: Session, photos: list[UploadedPhoto], level: ProtectionLevel, target: str) -> None:
    """Queue photos, except those that are pending or done with the same faces and settings."""
    submitted = {job.request for job in session.jobs() if job.is_pending or job.state == "done"}
    repeated = 0
    for photo in photos:
        faces = photo.selected_faces()
        request = JobRequest(photo.key, tuple(faces), tuple(faces.values()), level, target)
        if request in submitted:
            repeated += 1
            continue
        try:
            session.submit(photo, request)
        except UserError as error:
            session.rejected.append(str(error))
    if repeated == len(photos):
        st.info(texts.SAME_AGAIN)


def queue_section(session: Session) -> None:
    """Draw the queue as a fragment that updates itself without the rest of the page."""
    pending = session.has_pending_jobs()
    if session.has_content():
        st.fragment(_queue, run_every=POLL_SECONDS if pending else IDLE_POLL_SECONDS)(session)


@show_errors
def _queue(session: Session) -> None:
    jobs = session.jobs()
    if session.message:  # everything was deleted meanwhile
        st.rerun()
    finished = frozenset(job.id for job in jobs if not job.is_pending)
    if finished != session.finished_jobs:
        session.finished_jobs = finished
        st.rerun()
    unfinished = [job for job in jobs if job.state != "done"]
    if unfinished:
        st.subheader(texts.QUEUE_HEADING, anchor=False)
    for job in unfinished:
        with st.container(border=True, key=f"job-{job.id}"):
            _job_row(session, job)


def _job_row(session: Session, job: Job) -> None:
    """Draw a job's progress, or why it is not done, and the button that cancels or removes it."""
    name = texts.escape_markdown(job.name)
    if job.is_pending:
        text = texts.queue_position(job.position) if job.position else texts.escape_markdown(job.status_text)
        st.progress(min(1.0, max(0.0, job.progress)), f"**{name}**: {text}")
        if st.button(texts.CANCEL, key=f"cancel-{job.id}", icon=":material/close:"):
            session.queue.cancel(session.id, job.id)
            st.rerun()
        return
    if job.state == "failed":
        st.error(texts.escape_markdown(job.error or texts.UNEXPECTED))
    else:
        st.markdown(f"**{name}**: {texts.CANCELLED}")
    if st.button(texts.REMOVE, key=f"dismiss-{job.id}", icon=":material/close:"):
        session.queue.remove(session.id, job.id)
        st.rerun()
