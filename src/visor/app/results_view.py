"""The lower half of the page: photos before and after, who still sees the faces, and what can be downloaded."""

import threading
from collections.abc import Callable, Sequence
from html import escape

import streamlit as st
from streamlit.runtime import Runtime
from streamlit.runtime.scriptrunner import add_script_run_ctx, get_script_run_ctx

from visor.app import drawing, session, texts
from visor.app.downloads import MIN_PASSWORD_LENGTH, encrypt, make_zip
from visor.app.protect import NetworkOutcome, ProtectionResult
from visor.app.session import Session, show_errors

ZIP = "visor.zip", "application/zip"
AGE = "visor.zip.age", "application/octet-stream"


def image(address: str, told: str) -> None:
    """Draw a picture; ``told`` is what a screen reader says."""
    st.html(f'<img class="visor" src="{address}" alt="{escape(told)}">')


def results_section(visit: Session) -> None:
    """Draw every photo that is done, then what all of them can be downloaded as."""
    done = _done(visit)
    visit.pictures = {key: kept for key, kept in visit.pictures.items() if key[0] in done}
    if not done:
        return
    st.subheader(texts.RESULTS_HEADING, anchor=False)
    st.info(texts.RESULTS_NOTICE)
    # Streamlit keeps what a fragment and a download are given: no photos, or these would outlive being forgotten.
    for job in done:
        with st.container(border=True):
            st.fragment(_result)(visit, job)
    st.fragment(_downloads)(visit)


def _done(visit: Session) -> dict[str, ProtectionResult]:
    jobs = session.job_queue().jobs(visit.session)
    return {job.id: job.result for job in jobs if job.id in visit.requests and job.result}


def keep_download(visit: Session, make: Callable[[], bytes], name: str, kind: str) -> Callable[[], bytes]:
    """Return ``make`` for a download button: it counts as a click, and what it makes lasts until the next one.

    Streamlit holds what a button made until scripts ended twice, anybody's; the browser may ask for it later than that.
    So it is noted as something that the page shows.
    """
    context = get_script_run_ctx()

    def made() -> bytes:
        visit.touch()
        content = make()
        note = threading.Thread(
            target=lambda: Runtime.instance().media_file_mgr.add(
                content, kind, "visor", name, is_for_static_download=True
            )
        )
        add_script_run_ctx(note, context).start()  # whose page it is, a thread of the server's does not say
        note.join()
        return content

    return made


@show_errors
def _result(visit: Session, job: str) -> None:
    visit.touch()
    result = _done(visit).get(job)
    if result is None:
        st.rerun()
    request = visit.requests[job]
    numbers = request.numbers
    st.markdown(f"**{texts.escape_markdown(result.name)}**")
    st.caption(texts.result_caption(request.level, request.target, result))
    titles = [texts.WHOLE, *(texts.FACE.format(number) for number in numbers)]
    view = st.pills(texts.ZOOM, titles, default=titles[-1] if len(numbers) == 1 else titles[0], key=f"zoom-{job}")
    st.html(_comparison(visit, job, result, titles.index(view or titles[0]) - 1))
    options = session.job_queue().networks().options
    published = options.recogniser if options.weights else None
    for face, title in enumerate(titles[1:]):
        verdicts = [one for one in result.verdicts if one.face == face]
        with st.expander(f"{title}: {texts.summary(verdicts)}", expanded=len(numbers) == 1):
            st.html(outcome_table(title, verdicts, published))
            st.caption(f"{texts.SCORES} {texts.similarity_text(result.distances[face])}.")
    with st.container(horizontal=True):
        name, kind = f"{result.name}.png", "image/png"
        st.download_button(
            texts.DOWNLOAD,
            keep_download(visit, lambda: _done(visit)[job].png, name, kind),
            name,
            kind,
            key=f"png-{job}",
            on_click="ignore",
            icon=":material/download:",
        )
        if st.button(texts.DISMISS, key=f"drop-{job}", icon=":material/close:"):
            session.job_queue().remove(visit.session, job)
            st.rerun()


def _comparison(visit: Session, job: str, result: ProtectionResult, face: int) -> str:
    """Return three pictures side by side: before, after, and the change; ``face`` -1 is the whole photo."""
    if (job, face) not in visit.pictures:
        shape = result.before.shape
        window = drawing.whole(shape) if face < 0 else drawing.face_window(result.faces[face].box, shape)
        views = (
            drawing.thumbnail(drawing.crop_window(result.before, window)),
            drawing.thumbnail(drawing.crop_window(result.after, window)),
            drawing.amplified_difference(result.before, result.after, window),
        )
        shown = [
            f'<figure><img src="{drawing.data_url(view)}" alt="{escape(result.name)}: {told}"><figcaption>{told}'
            "</figcaption></figure>"
            for view, told in zip(views, texts.VIEWS, strict=True)
        ]
        visit.pictures[job, face] = f'<div class="visor-views">{"".join(shown)}</div>'
    return visit.pictures[job, face]


def outcome_table(title: str, verdicts: Sequence[NetworkOutcome], published: str | None) -> str:
    """Return what all onlookers make of a face as an HTML table, those that the attack used before the others.

    published: the recogniser whose weights are not this project's.
    """
    head = "".join(f'<th scope="col">{column}</th>' for column in texts.COLUMNS)
    body = ""
    for used in (True, False):
        group = [one for one in verdicts if one.attacked is used]
        if group:
            body += f'<tr><th scope="rowgroup" colspan="{len(texts.COLUMNS)}">{texts.USED[used]}</th></tr>'
        for one in group:
            name = escape(texts.network_name(one.network, published))
            result, score = texts.outcome_text(one), texts.score_text(one)
            body += f'<tr><th scope="row">{name}</th><td>{result}</td><td>{score}</td></tr>'
    return (
        f'<table class="visor" aria-label="{escape(title)}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def _zip_of_results(visit: Session) -> bytes:
    return make_zip((one.name, one.png) for one in _done(visit).values())


@show_errors
def _downloads(visit: Session) -> None:
    """Draw the ways to take everything: as a ZIP, or as one that a password locks."""
    visit.touch()
    st.download_button(
        texts.DOWNLOAD_ALL,
        keep_download(visit, lambda: _zip_of_results(visit), *ZIP),
        *ZIP,
        on_click="ignore",
        type="primary",
        width="stretch",
        icon=":material/folder_zip:",
    )
    with st.expander(texts.LOCKED):
        with st.form("lock", border=False):
            password = st.text_input(texts.PASSWORD, type="password", autocomplete="new-password")
            st.caption(texts.PASSWORD_HINT)
            st.form_submit_button(texts.LOCK, icon=":material/lock:")
        if 0 < len(password) < MIN_PASSWORD_LENGTH:
            st.warning(texts.PASSWORD_SHORT)
        if len(password) >= MIN_PASSWORD_LENGTH:
            st.download_button(
                texts.DOWNLOAD_LOCKED,
                keep_download(visit, lambda: encrypt(_zip_of_results(visit), password), *AGE),
                *AGE,
                on_click="ignore",
                type="primary",
                icon=":material/download:",
            )
        st.caption(texts.UNLOCK)
