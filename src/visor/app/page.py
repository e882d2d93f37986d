"""The page of the privacy app: the script that Streamlit runs for each visitor, from top to bottom, at each click."""

import streamlit as st

from visor.app import queue_view, results_view, texts, upload_view
from visor.app.session import Session, current_session, show_errors

# A picture by name would be fetched from the network.
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
.visor-views figcaption { font-size: 0.875rem; opacity: 0.8; }
table.visor { width: 100%; border-collapse: collapse; font-size: 0.9rem; }
table.visor th, table.visor td { text-align: left; padding: 0.35rem 0.5rem 0.35rem 0; vertical-align: top;
  border-bottom: 1px solid rgba(128, 128, 128, 0.25); font-weight: normal; }
table.visor thead th, table.visor th[scope=rowgroup] { font-weight: 600; }
</style>"""


@show_errors
def main() -> None:
    """Draw the page."""
    here = current_session()
    st.title(texts.TITLE, anchor=False)
    st.markdown(texts.LEAD)
    if here.message:
        st.info(here.message)
        here.message = None
    upload_view.upload_section(here)
    if here.photos:
        upload_view.face_section(here)
        queue_view.settings_section(here)
    queue_view.queue_section(here)
    results_view.results_section(here)
    if here.photos or here.requests or here.refused:
        forget(here)
    with st.expander(texts.LIMITS_HEADING, expanded=not here.photos):
        st.markdown(texts.LIMITS)


def forget(here: Session) -> None:
    """Draw the button that drops everything at once."""
    if st.button(texts.FORGET, key="forget", width="stretch", icon=":material/delete_forever:"):
        here.forget(texts.FORGOTTEN)
        st.rerun()


st.set_page_config(texts.TITLE, ICON, "centered")
st.html(STYLE)
main()
