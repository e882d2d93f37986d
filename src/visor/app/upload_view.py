"""Upper part of the page: upload, and selection of faces, also by hand."""

import logging
import threading
from collections.abc import Sequence
from html import escape

import streamlit as st
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec
from streamlit_image_coordinates import streamlit_image_coordinates

from visor.app import drawing, error_logging, settings, texts
from visor.app.networks import face_from_box, find_faces
from visor.app.session import Session, UploadedPhoto, show_errors
from visor.app.uploads import accept_files, read_upload
from visor.core.errors import UserError
from visor.photos.files import MIN_FACE_SIDE

LOG = logging.getLogger(__name__)
DETECTION_LOCK = threading.Lock()  # visitors take turns, photo by photo: each has a thread, all share the processor
SUFFIXES = ("jpg", "jpeg", "png", "webp", "heic", "heif")


@show_errors
def upload_section(session: Session) -> None:
    """Draw the uploader, read new files once, and list those that are skipped."""
    st.subheader(texts.UPLOAD, anchor=False)
    files = st.file_uploader(
        texts.UPLOAD_HINT,
        type=SUFFIXES,
        accept_multiple_files=True,
        key=f"files-{session.uploader_key}",
        max_upload_size=settings.PHOTO_BYTES >> 20,
    )
    st.caption(texts.PRIVACY)
    _read(session, files)
    if session.skipped:
        reasons = (f"- {texts.escape_markdown(reason)}" for reason in session.skipped.values())
        st.warning("\n".join([texts.SKIPPED, *reasons]))
    _detect_faces(session)


def _read(session: Session, files: Sequence[UploadedFile]) -> None:
    """Decode new files; forget those that were removed from the uploader."""
    present = {file.file_id for file in files}
    for container in (session.photos, session.skipped):
        for key in container.keys() - present:
            del container[key]
    new = [file for file in files if file.file_id not in session.photos and file.file_id not in session.skipped]
    accepted, reasons = accept_files([(file.name, file.size) for file in new], len(session.photos))
    skipped = [file.file_id for number, file in enumerate(new) if number not in accepted]
    session.skipped.update(zip(skipped, reasons, strict=True))
    progress = st.empty()
    for number, index in enumerate(accepted, 1):
        progress.progress((number - 1) / len(accepted), texts.READING.format(number, len(accepted)))
        _add_photo(session, new[index])
    for file in new:
        _discard_upload(session, file)
    progress.empty()


def _add_photo(session: Session, file: UploadedFile) -> None:
    try:
        if not session.try_add_photo(UploadedPhoto(file.file_id, read_upload(file.name, file.getvalue()))):
            raise UserError(f"{file.name} {texts.FULL}")
    except UserError as error:
        session.skipped[file.file_id] = str(error)


def _discard_upload(session: Session, file: UploadedFile) -> None:
    """Drop the bytes of a file that was read, and its metadata with them; the uploader still lists it."""
    context = get_script_run_ctx()
    if context and isinstance(context.uploaded_file_mgr, MemoryUploadedFileManager):
        context.uploaded_file_mgr.add_file(session.id, UploadedFileRec(file.file_id, file.name, file.type, b""))


def _detect_faces(session: Session) -> None:
    """Detect the faces of new photos."""
    new = [photo for photo in session.photos.values() if photo.faces is None]
    if not new:
        return
    if not session.queue.networks_loaded:
        with st.spinner(texts.LOADING):
            session.queue.networks()
    networks, progress = session.queue.networks(), st.empty()
    for number, photo in enumerate(new, 1):
        progress.progress((number - 1) / len(new), texts.DETECTING.format(number, len(new)))
        try:
            with DETECTION_LOCK:
                photo.add(find_faces(networks, photo.upload.image))
        except Exception as error:  # other photos go on; faces of this one can be added by hand
            LOG.error("face detection failed: %s", error_logging.error_location(error))
            photo.add([])
    progress.empty()


@show_errors
def face_section(session: Session) -> None:
    """Draw each photo with its faces, to select, add and remove."""
    st.subheader(texts.FACES_HEADING, anchor=False)
    st.caption(texts.FACES_HINT)
    for photo in session.photos.values():
        if photo.faces is not None:
            with st.container(border=True):
                _photo_card(session, photo, list(photo.faces))


def _photo_card(session: Session, photo: UploadedPhoto, numbers: Sequence[int]) -> None:
    preview, controls = st.columns([3, 2])
    name, face_count = photo.upload.name, texts.pluralise(len(numbers), "face")
    with controls:
        st.markdown(f"**{texts.escape_markdown(name)}** · {face_count}")
        if not numbers:
            st.caption(texts.NO_FACE)
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            for number in numbers:
                _face_checkbox(photo, number)
        if session.adding == photo.key:
            _new_face(session, photo)
        elif st.button(texts.ADD, key=f"add-{photo.key}", icon=":material/add:"):
            session.adding = photo.key
            st.rerun()
    with preview:
        if session.adding == photo.key:
            _click_canvas(photo)
        else:
            description = escape(texts.PREVIEW.format(name, face_count))
            st.html(f'<img class="visor" src="{photo.preview_url()}" alt="{description}">')


def _face_checkbox(photo: UploadedPhoto, number: int) -> None:
    """Draw the checkbox of a face; one that was added by hand can be removed."""
    faces, key = photo.faces or {}, f"face-{photo.key}-{number}"
    photo.selected[number] = st.checkbox(texts.FACE.format(number), photo.selected[number], key=key, width="content")
    if faces[number].score is None:
        label, key = texts.REMOVE_FACE.format(number), f"remove-{photo.key}-{number}"
        if st.button(label, key=key, icon=":material/delete:"):
            del faces[number]
            st.rerun()


def _field_keys(photo: UploadedPhoto) -> list[str]:
    """Return the keys of the four numbers of a new face."""
    return [f"{name}-{photo.key}" for name in texts.BOX_FIELDS]


def _new_box(photo: UploadedPhoto) -> list[int]:
    """Return the box [x, y, w, h] of a new face from the four numbers."""
    default = drawing.default_box(photo.upload.image.shape)
    return [int(st.session_state.get(key, value)) for key, value in zip(_field_keys(photo), default, strict=True)]


def _new_face(session: Session, photo: UploadedPhoto) -> None:
    """Draw the numbers of a new face and the buttons that add it or cancel."""
    st.caption(texts.ADD_HINT)
    clicked = st.session_state.pop(f"clicked-{photo.key}", None)
    keys, box = _field_keys(photo), clicked or _new_box(photo)
    height, width = photo.upload.image.shape[:2]
    minima = 0, 0, MIN_FACE_SIDE, MIN_FACE_SIDE
    maxima = width - MIN_FACE_SIDE, height - MIN_FACE_SIDE, width, height
    with st.container(horizontal=True):
        for key, name, value, low, high in zip(keys, texts.BOX_FIELDS, box, minima, maxima, strict=True):
            if clicked or key not in st.session_state:
                st.session_state[key] = value
            st.number_input(name, low, high, step=max(1, width // 100), key=key, width=130)
    with st.container(horizontal=True):
        add = st.button(texts.ADD_THIS, key=f"add-this-{photo.key}", type="primary")
        cancel = st.button(texts.STOP_ADDING, key=f"stop-{photo.key}")
    if add:
        photo.add([face_from_box([float(value) for value in _new_box(photo)], photo.upload.image.shape)])
    if add or cancel:
        session.adding = None
        st.rerun()


def _click_canvas(photo: UploadedPhoto) -> None:
    """Draw the photo so that a click or a drag on it sets the box of the new face."""
    x, y, width, height = map(float, _new_box(photo))
    click = streamlit_image_coordinates(
        photo.with_boxes(drawing.FaceBox((x, y, width, height), 0.0, "new", "new")),
        width="stretch",
        key=f"tap-{photo.key}",
        click_and_drag=True,
        image_format="JPEG",
        cursor="crosshair",
    )
    if click and click["unix_time"] != photo.last_tap:
        photo.last_tap = click["unix_time"]
        box = drawing.box_from_click(click, photo.upload.image.shape, (x, y, width, height))
        st.session_state[f"clicked-{photo.key}"] = box.tolist()
        st.rerun()
