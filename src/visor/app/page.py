"""The page of the app: the script that Streamlit runs for each visitor, from top to bottom, at each click."""

import streamlit as st

from visor.app import queue_view, results_view, texts, upload_view
from visor.app.session import current_session, show_errors

# A data URL: an image by name would be fetched from the network.
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' "
    "rx='7' fill='%2300796b'/%3E%3Cpath d='M4 12h24v4a6 6 0 0 1-11 3h-2a6 6 0 0 1-11-3z' fill='white'/%3E%3C/svg%3E"
)
STYLE = """<style>
.stMainBlockContainer { max-width: 62rem; padding: 2rem 1rem 3rem; }
.stMainBlockContainer button { min-height: 2.75rem; min-width: 2.75rem; }
.stCheckbox label, .stRadio label { min-height: 2.75rem; align-items: center; }
[data-testid=stFileChipDeleteBtn] { align-self: center; }
img.visor { display: block; max-width: 100%; max-height: 30rem; border-radius: 0.5rem; }
.visor-views { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 0.5rem; }
@media (max-width: 40rem) { .visor-views figure:last-child { grid-column: 1 / -1; } }
.visor-views figure { margin: 0; }
.visor-views img { width: 100%; border-radius: 0.5rem; }
.stMainBlockContainer [data-testid=stCaptionContainer] { opacity: 0.75; }
.visor-views figcaption { font-size: 0.875rem; opacity: 0.8; }
table.visor { width: 100%; margin-bottom: 0.75rem; table-layout: fixed; border-collapse: collapse; font-size: 0.9rem; }
table.visor th, table.visor td { text-align: left; padding: 0.35rem 0.5rem 0.35rem 0; vertical-align: top;
  border-bottom: 1px solid rgba(128, 128, 128, 0.25); font-weight: normal; }
table.visor thead th { font-weight: 600; }
</style>"""


@show_errors
def main() -> None:
    """Draw the page."""
    session = current_session()
    st.title(texts.TITLE, anchor=False)
    st.markdown(texts.LEAD)
    if session.message:
        st.info(session.message)
        session.message = None
    upload_view.upload_section(session)
    if session.photos:
        upload_view.face_section(session)
        queue_view.settings_section(session)
    queue_view.queue_section(session)
    results_view.results_section(session)
    if session.has_content() and st.button(
        texts.DELETE_ALL, key="delete-all", width="stretch", icon=":material/delete_forever:"
    ):
        session.delete_all(texts.DELETED)
        st.rerun()
    with st.expander(texts.LIMITS_HEADING, expanded=not session.photos):
        st.markdown(texts.LIMITS)


st.set_page_config(texts.TITLE, ICON, "centered")
st.html(STYLE)
main()
