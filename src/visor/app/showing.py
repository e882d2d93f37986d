"""The lower half of the page: photos before and after, who still sees the faces, and what can be downloaded."""

import threading
from collections.abc import Callable, Sequence
from html import escape

import streamlit as st
from streamlit.runtime import Runtime
from streamlit.runtime.scriptrunner import add_script_run_ctx, get_script_run_ctx

from visor.app import pictures, process, words
from visor.app.bundle import LEAST_PASSWORD, archive, locked
from visor.app.protecting import Protected, Verdict
from visor.app.visit import Visit, guarded

ZIP = "visor.zip", "application/zip"
AGE = "visor.zip.age", "application/octet-stream"


def picture(address: str, told: str) -> None:
    """Draw a picture; ``told`` is what a screen reader says."""
    st.html(f'<img class="visor" src="{address}" alt="{escape(told)}">')


def results(visit: Visit) -> None:
    """Draw every photo that is done, then what all of them can be downloaded as."""
    done = _done(visit)
    visit.pictures = {key: kept for key, kept in visit.pictures.items() if key[0] in done}
    if not done:
        return
    st.subheader(words.RESULTS_HEADING, anchor=False)
    st.info(words.REMEMBER)
    # Streamlit keeps what a fragment and a download are given: no photos, or these would outlive being forgotten.
    for job in done:
        with st.container(border=True):
            st.fragment(_result)(visit, job)
    st.fragment(_downloads)(visit)


def _done(visit: Visit) -> dict[str, Protected]:
    jobs = process.desk().jobs(visit.session)
    return {job.id: job.result for job in jobs if job.id in visit.requests and job.result}


def lasting(visit: Visit, make: Callable[[], bytes], name: str, kind: str) -> Callable[[], bytes]:
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


@guarded
def _result(visit: Visit, job: str) -> None:
    visit.touch()
    result = _done(visit).get(job)
    if result is None:
        st.rerun()
    request = visit.requests[job]
    numbers = request.numbers
    st.markdown(f"**{words.plain(result.name)}**")
    st.caption(words.made(request.level, request.target, result))
    titles = [words.WHOLE, *(words.FACE.format(number) for number in numbers)]
    view = st.pills(words.ZOOM, titles, default=titles[-1] if len(numbers) == 1 else titles[0], key=f"zoom-{job}")
    st.html(_compared(visit, job, result, titles.index(view or titles[0]) - 1))
    options = process.desk().eyes().options
    published = options.recogniser if options.weights else None
    for face, title in enumerate(titles[1:]):
        verdicts = [one for one in result.verdicts if one.face == face]
        with st.expander(f"{title}: {words.summary(verdicts)}", expanded=len(numbers) == 1):
            st.html(table(title, verdicts, published))
            st.caption(f"{words.SCORES} {words.likeness(result.distances[face])}.")
    with st.container(horizontal=True):
        name, kind = f"{result.name}.png", "image/png"
        st.download_button(
            words.DOWNLOAD,
            lasting(visit, lambda: _done(visit)[job].png, name, kind),
            name,
            kind,
            key=f"png-{job}",
            on_click="ignore",
            icon=":material/download:",
        )
        if st.button(words.DISMISS, key=f"drop-{job}", icon=":material/close:"):
            process.desk().drop(visit.session, job)
            st.rerun()


def _compared(visit: Visit, job: str, result: Protected, face: int) -> str:
    """Return three pictures side by side: before, after, and the change; ``face`` -1 is the whole photo."""
    if (job, face) not in visit.pictures:
        shape = result.before.shape
        window = pictures.whole(shape) if face < 0 else pictures.around(result.faces[face].box, shape)
        views = (
            pictures.reduced(pictures.seen(result.before, window)),
            pictures.reduced(pictures.seen(result.after, window)),
            pictures.magnified(result.before, result.after, window),
        )
        shown = [
            f'<figure><img src="{pictures.data_url(view)}" alt="{escape(result.name)}: {told}"><figcaption>{told}'
            "</figcaption></figure>"
            for view, told in zip(views, words.VIEWS, strict=True)
        ]
        visit.pictures[job, face] = f'<div class="visor-views">{"".join(shown)}</div>'
    return visit.pictures[job, face]


def table(title: str, verdicts: Sequence[Verdict], published: str | None) -> str:
    """Return what all onlookers make of a face as an HTML table, those that the attack used before the others.

    published: the recogniser whose weights are not this project's.
    """
    head = "".join(f'<th scope="col">{column}</th>' for column in words.COLUMNS)
    body = ""
    for used in (True, False):
        group = [one for one in verdicts if one.used is used]
        if group:
            body += f'<tr><th scope="rowgroup" colspan="{len(words.COLUMNS)}">{words.USED[used]}</th></tr>'
        for one in group:
            name = escape(words.name(one.onlooker, published))
            body += f'<tr><th scope="row">{name}</th><td>{words.verdict(one)}</td><td>{words.score(one)}</td></tr>'
    return (
        f'<table class="visor" aria-label="{escape(title)}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def _bundle(visit: Visit) -> bytes:
    return archive((one.name, one.png) for one in _done(visit).values())


@guarded
def _downloads(visit: Visit) -> None:
    """Draw the ways to take everything: as a ZIP, or as one that a password locks."""
    visit.touch()
    st.download_button(
        words.DOWNLOAD_ALL,
        lasting(visit, lambda: _bundle(visit), *ZIP),
        *ZIP,
        on_click="ignore",
        type="primary",
        width="stretch",
        icon=":material/folder_zip:",
    )
    with st.expander(words.LOCKED):
        with st.form("lock", border=False):
            password = st.text_input(words.PASSWORD, type="password", autocomplete="new-password")
            st.caption(words.PASSWORD_HINT)
            st.form_submit_button(words.LOCK, icon=":material/lock:")
        if 0 < len(password) < LEAST_PASSWORD:
            st.warning(words.PASSWORD_SHORT)
        if len(password) >= LEAST_PASSWORD:
            st.download_button(
                words.DOWNLOAD_LOCKED,
                lasting(visit, lambda: locked(_bundle(visit), password), *AGE),
                *AGE,
                on_click="ignore",
                type="primary",
                icon=":material/download:",
            )
        st.caption(words.UNLOCK)
