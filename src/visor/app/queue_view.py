"""The middle of the page: how strong, what for, hand in, and the queue."""

import streamlit as st

from visor.app import session, texts
from visor.app.job_queue import PENDING_STATES, Job
from visor.app.session import Session, SubmittedJob, UploadedPhoto, show_errors
from visor.app.settings import DEFAULT_LEVEL, LEVELS, TARGETS, ProtectionLevel
from visor.core.errors import UserError

POLL_SECONDS, IDLE = 1.0, 20.0  # seconds between two looks at the desk, while something is in the queue and else


@show_errors
def settings_section(visit: Session) -> None:
    """Draw the slider, the targets and the button that hands in what is ticked."""
    st.subheader(texts.STRENGTH_HEADING, anchor=False)
    chosen = st.select_slider(texts.STRENGTH, [level.name for level in LEVELS], LEVELS[DEFAULT_LEVEL].name)
    level = texts.level_of(chosen)
    st.markdown(texts.strength(level))
    st.caption(texts.STRENGTH_HINT)
    target = st.radio(texts.TARGET, TARGETS, format_func=TARGETS.__getitem__, index=len(TARGETS) - 1)
    photos = [photo for photo in visit.photos.values() if photo.selected_faces()]
    label = texts.photos_chosen(len(photos), sum(len(photo.selected_faces()) for photo in photos))
    if st.button(label, key="protect", type="primary", width="stretch", disabled=not photos):
        visit.rejected.clear()
        _submit(visit, photos, level, target)
    for why in dict.fromkeys(visit.rejected):  # a full queue is said once
        st.error(texts.escape_markdown(why))
    if not photos:
        st.caption(texts.NOTHING_CHOSEN)


def _submit(visit: Session, photos: list[UploadedPhoto], level: ProtectionLevel, target: str) -> None:
    """Put photos in the queue, but for those that are there, or done, with the same faces in the same way."""
    lasting = {job.id for job in session.job_queue().jobs(visit.session) if job.state in (*PENDING_STATES, "done")}
    asked = {request for job, request in visit.requests.items() if job in lasting}
    repeated = 0
    for photo in photos:
        faces = photo.selected_faces()
        request = SubmittedJob(photo.key, tuple(faces), tuple(faces.values()), level, target)
        if request in asked:
            repeated += 1
            continue
        try:
            job = session.job_queue().submit(visit.session, photo.upload, request.faces, level, target)
        except UserError as error:
            visit.rejected.append(str(error))
        else:
            visit.requests[job.id] = request
    if repeated == len(photos):
        st.info(texts.SAME_AGAIN)


def queue_section(visit: Session) -> None:
    """Draw the queue as a fragment that looks at the desk again and again, without the rest of the page."""
    busy = any(job.state in PENDING_STATES for job in session.job_queue().jobs(visit.session))
    if busy or visit.photos or visit.requests:
        st.fragment(_queue, run_every=POLL_SECONDS if busy else IDLE)(visit)


@show_errors
def _queue(visit: Session) -> None:
    jobs = session.job_queue().jobs(visit.session)
    if visit.message:  # all was forgotten meanwhile
        st.rerun()
    settled = frozenset(job.id for job in jobs if job.state not in PENDING_STATES)
    if settled != visit.finished_jobs:
        visit.finished_jobs = settled
        st.rerun()
    pending = [job for job in jobs if job.state != "done"]
    if pending:
        st.subheader(texts.QUEUE_HEADING, anchor=False)
    for job in pending:
        with st.container(border=True, key=f"job-{job.id}"):
            _row(visit, job)


def _row(visit: Session, job: Job) -> None:
    """Draw one photo of the queue: how far it is, or why it is not done, and a way to be rid of it."""
    name = texts.escape_markdown(job.name)
    said = (
        texts.queue_position(job.position)
        if job.state == "waiting" and job.position is not None
        else texts.escape_markdown(job.status_text)
    )
    if job.state in PENDING_STATES:
        st.progress(min(1.0, max(0.0, job.progress)), f"**{name}**: {said}")
        if st.button(texts.CANCEL, key=f"cancel-{job.id}", icon=":material/close:"):
            session.job_queue().cancel(visit.session, job.id)
            st.rerun()
        return
    if job.state == "failed":
        st.error(texts.escape_markdown(job.error or texts.UNEXPECTED))
    else:
        st.markdown(f"**{name}**: {texts.CANCELLED}")
    if st.button(texts.DISMISS, key=f"dismiss-{job.id}", icon=":material/close:"):
        session.job_queue().remove(visit.session, job.id)
        st.rerun()
