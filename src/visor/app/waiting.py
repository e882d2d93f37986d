"""The middle of the page: how strong, what for, hand in, and the queue."""

import streamlit as st

from visor.app import process, words
from visor.app.desk import Job
from visor.app.jobs import OPEN
from visor.app.levels import DEFAULT, LEVELS, TARGETS, Level
from visor.app.visit import Photo, Request, Visit, guarded
from visor.errors import UserError

POLL, IDLE = 1.0, 20.0  # seconds between two looks at the desk, while something is in the queue and else


@guarded
def ask(visit: Visit) -> None:
    """Draw the slider, the targets and the button that hands in what is ticked."""
    st.subheader(words.STRENGTH_HEADING, anchor=False)
    chosen = st.select_slider(words.STRENGTH, [level.words for level in LEVELS], LEVELS[DEFAULT].words)
    level = words.level_of(chosen)
    st.markdown(words.strength(level))
    st.caption(words.STRENGTH_HINT)
    target = st.radio(words.TARGET, TARGETS, format_func=TARGETS.__getitem__, index=len(TARGETS) - 1)
    photos = [photo for photo in visit.photos.values() if photo.chosen()]
    label = words.photos_chosen(len(photos), sum(len(photo.chosen()) for photo in photos))
    if st.button(label, key="protect", type="primary", width="stretch", disabled=not photos):
        visit.unsent.clear()
        _hand_in(visit, photos, level, target)
    for why in dict.fromkeys(visit.unsent):  # a full queue is said once
        st.error(words.plain(why))
    if not photos:
        st.caption(words.NOTHING_CHOSEN)


def _hand_in(visit: Visit, photos: list[Photo], level: Level, target: str) -> None:
    """Put photos in the queue, but for those that are there, or done, with the same faces in the same way."""
    lasting = {job.id for job in process.desk().jobs(visit.session) if job.state in (*OPEN, "done")}
    asked = {request for job, request in visit.requests.items() if job in lasting}
    repeated = 0
    for photo in photos:
        faces = photo.chosen()
        request = Request(photo.key, tuple(faces), tuple(faces.values()), level, target)
        if request in asked:
            repeated += 1
            continue
        try:
            job = process.desk().submit(visit.session, photo.upload, request.spots, level, target)
        except UserError as error:
            visit.unsent.append(str(error))
        else:
            visit.requests[job.id] = request
    if repeated == len(photos):
        st.info(words.SAME_AGAIN)


def queue(visit: Visit) -> None:
    """Draw the queue as a fragment that looks at the desk again and again, without the rest of the page."""
    busy = any(job.state in OPEN for job in process.desk().jobs(visit.session))
    if busy or visit.photos or visit.requests:
        st.fragment(_queue, run_every=POLL if busy else IDLE)(visit)


@guarded
def _queue(visit: Visit) -> None:
    jobs = process.desk().jobs(visit.session)
    if visit.message:  # all was forgotten meanwhile
        st.rerun()
    settled = frozenset(job.id for job in jobs if job.state not in OPEN)
    if settled != visit.settled:
        visit.settled = settled
        st.rerun()
    pending = [job for job in jobs if job.state != "done"]
    if pending:
        st.subheader(words.QUEUE_HEADING, anchor=False)
    for job in pending:
        with st.container(border=True, key=f"job-{job.id}"):
            _row(visit, job)


def _row(visit: Visit, job: Job) -> None:
    """Draw one photo of the queue: how far it is, or why it is not done, and a way to be rid of it."""
    name = words.plain(job.name)
    said = words.place(job.place) if job.state == "waiting" and job.place is not None else words.plain(job.words)
    if job.state in OPEN:
        st.progress(min(1.0, max(0.0, job.progress)), f"**{name}**: {said}")
        if st.button(words.CANCEL, key=f"cancel-{job.id}", icon=":material/close:"):
            process.desk().cancel(visit.session, job.id)
            st.rerun()
        return
    if job.state == "failed":
        st.error(words.plain(job.error or words.UNEXPECTED))
    else:
        st.markdown(f"**{name}**: {words.CANCELLED}")
    if st.button(words.DISMISS, key=f"dismiss-{job.id}", icon=":material/close:"):
        process.desk().drop(visit.session, job.id)
        st.rerun()
