"""Lower part of the page: photos before and after, the result of each network, and downloads."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import Any

import streamlit as st
from streamlit.runtime import Runtime
from streamlit.runtime.scriptrunner import add_script_run_ctx, get_script_run_ctx

from visor.app import drawing, texts
from visor.app.downloads import MIN_PASSWORD_LENGTH, encrypt, make_zip
from visor.app.protect import ProtectionResult
from visor.app.session import Session, show_errors
from visor.core.tables import text_table
from visor.photos.outcome import NetworkOutcome

ZIP = "visor.zip", "application/zip"
AGE = "visor.zip.age", "application/octet-stream"


def results_section(session: Session) -> None:
    """Draw every finished photo, then the downloads of all."""
    results = _results(session)
    session.comparisons = {key: html for key, html in session.comparisons.items() if key[0] in results}
    if not results:
        return
    st.subheader(texts.RESULTS_HEADING, anchor=False)
    st.info(texts.RESULTS_NOTICE)
    # Streamlit keeps the arguments of fragments and downloads: no photos among them, or these outlive their deletion.
    for job_id in results:
        with st.container(border=True):
            st.fragment(_result)(session, job_id)
    st.fragment(_downloads)(session)


def _results(session: Session) -> dict[str, ProtectionResult]:
    return {job.id: job.result for job in session.jobs() if job.result}


def download_button(
    session: Session, label: str, make: Callable[[], bytes], name: str, kind: str, icon: str, **options: Any
) -> None:
    """Draw a download button whose content is made when it is clicked."""
    content = keep_download(session, make, name, kind)
    st.download_button(label, content, name, kind, on_click="ignore", icon=f":material/{icon}:", **options)


def keep_download(session: Session, make: Callable[[], bytes], name: str, kind: str) -> Callable[[], bytes]:
    """Return ``make`` for a download button: it counts as a click, and its content lasts until the next download.

    Streamlit drops the content of a button when scripts of any visitor have ended twice; the browser may request it
    later. So it is registered as something that the page shows, and as a download of this session alone.
    """
    context = get_script_run_ctx()

    def make_and_register() -> bytes:
        session.touch()
        content = make()

        def register() -> None:
            files = Runtime.instance().media_file_mgr
            session.downloads.add(files.add(content, kind, "visor", name, is_for_static_download=True))

        thread = threading.Thread(target=register)
        add_script_run_ctx(thread, context).start()  # a thread of the server's does not know whose page it is
        thread.join()
        return content

    return make_and_register


@show_errors
def _result(session: Session, job_id: str) -> None:
    session.touch()
    job = next((job for job in session.jobs() if job.id == job_id), None)
    if job is None or job.result is None:
        st.rerun()
    request, result = job.request, job.result
    st.markdown(f"**{texts.escape_markdown(result.name)}**")
    st.caption(texts.result_caption(request.level, request.target, result))
    titles = [texts.WHOLE, *(texts.FACE.format(number) for number in request.numbers)]
    view = st.pills(texts.ZOOM, titles, default=titles[-1] if len(titles) == 2 else titles[0], key=f"zoom-{job_id}")
    st.html(_comparison(session, job_id, result, titles.index(view or titles[0]) - 1))
    options = session.queue.networks().options
    published = options.published
    for face, title in enumerate(titles[1:]):
        outcomes = [outcome for outcome in result.outcomes if outcome.face == face]
        with st.expander(f"{title}: {texts.summary(outcomes)}", expanded=len(titles) == 2):
            st.html(outcome_tables(title, outcomes, published))
            st.caption(f"{texts.SCORES} {texts.similarity_text(result.distances[face])}.")
    with st.container(horizontal=True):
        make, name = (lambda: _results(session)[job_id].png), f"{result.name}.png"
        download_button(session, texts.DOWNLOAD, make, name, "image/png", "download", key=f"png-{job_id}")
        if st.button(texts.REMOVE, key=f"drop-{job_id}", icon=":material/close:"):
            session.queue.remove(session.id, job_id)
            st.rerun()


def _comparison(session: Session, job_id: str, result: ProtectionResult, face: int) -> str:
    """Return before, after and difference side by side as HTML; ``face`` -1 is the whole photo."""
    if (job_id, face) not in session.comparisons:
        before, after = result.before, result.after
        window = drawing.WHOLE_PHOTO if face < 0 else drawing.face_window(result.faces[face].box, before.shape)
        difference = drawing.difference(before, after, window)
        views = drawing.thumbnail(before[window]), drawing.thumbnail(after[window]), difference
        figures = [
            f'<figure><img src="{drawing.data_url(view)}" alt="{escape(result.name)}: {caption}"><figcaption>{caption}'
            "</figcaption></figure>"
            for view, caption in zip(views, texts.VIEWS, strict=True)
        ]
        session.comparisons[job_id, face] = f'<div class="visor-views">{"".join(figures)}</div>'
    return session.comparisons[job_id, face]


def outcome_tables(title: str, outcomes: Sequence[NetworkOutcome], published: str | None) -> str:
    """Return the outcomes of a face as HTML: a table of the attacked networks, and one of the others.

    Args:
        title: Caption for screen readers.
        outcomes: Outcomes of one face.
        published: The recogniser that has published weights.
    """
    html = ""
    for attacked, group in texts.NETWORK_GROUPS.items():
        rows = [
            (texts.network_name(outcome.network, published), (texts.outcome_text(outcome), texts.score_text(outcome)))
            for outcome in outcomes
            if outcome.attacked is attacked
        ]
        html += text_table(group, texts.COLUMNS, rows, f"{title}: {group}").to_html("visor") if rows else ""
    return html


@show_errors
def _downloads(session: Session) -> None:
    """Draw the downloads of all results: as a ZIP, or encrypted with a password."""
    session.touch()

    def make_archive() -> bytes:
        return make_zip((result.name, result.png) for result in _results(session).values())

    style = {"type": "primary", "width": "stretch"}
    download_button(session, texts.DOWNLOAD_ALL, make_archive, *ZIP, "folder_zip", **style)
    with st.expander(texts.ENCRYPTED):
        with st.form("lock", border=False):
            password = st.text_input(texts.PASSWORD, type="password", autocomplete="new-password")
            st.caption(texts.PASSWORD_HINT)
            st.form_submit_button(texts.ENCRYPT, icon=":material/lock:")
        if len(password) >= MIN_PASSWORD_LENGTH:
            make = partial(lambda password: encrypt(make_archive(), password), password)
            download_button(session, texts.DOWNLOAD_ENCRYPTED, make, *AGE, "download", type="primary")
        elif password:
            st.warning(texts.PASSWORD_SHORT)
        st.caption(texts.UNLOCK)
