"""The upper half of the page: photos come in, and faces are chosen or added by hand."""

import logging
import threading
from collections.abc import Sequence

import streamlit as st
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec
from streamlit_image_coordinates import streamlit_image_coordinates

from visor.app import drawing, error_logging, session, settings, texts
from visor.app.networks import face_from_box, find_faces
from visor.app.results_view import image
from visor.app.session import Session, UploadedPhoto, show_errors
from visor.app.uploads import accept_files, read_upload
from visor.core.errors import UserError
from visor.photos.files import MIN_FACE_SIDE

LOG = logging.getLogger(__name__)
DETECTION_LOCK = threading.Lock()  # visitors take turns, photo by photo: each has a thread, all share the processor
KINDS = ("jpg", "jpeg", "png", "webp", "heic", "heif")


@show_errors
def upload_section(visit: Session) -> None:
    """Draw the uploader, read what is new in it once, and say what is refused."""
    st.subheader(texts.UPLOAD, anchor=False)
    files = st.file_uploader(
        texts.UPLOAD_HINT,
        type=KINDS,
        accept_multiple_files=True,
        key=f"files-{visit.uploader_key}",
        max_upload_size=settings.PHOTO_BYTES >> 20,
    )
    st.caption(texts.PRIVACY)
    _read(visit, files)
    if visit.refused:
        st.warning("\n".join([texts.REFUSED, *(f"- {texts.escape_markdown(why)}" for why in visit.refused.values())]))
    _detect_faces(visit)


def _read(visit: Session, files: Sequence[UploadedFile]) -> None:
    """Decode the files that were not there before; forget those that are there no more."""
    present = {file.file_id for file in files}
    for kept in (visit.photos, visit.refused):
        for key in kept.keys() - present:
            del kept[key]
    fresh = [file for file in files if file.file_id not in visit.photos and file.file_id not in visit.refused]
    taken, refused = accept_files([(file.name, file.size) for file in fresh], len(visit.photos))
    others = [file for number, file in enumerate(fresh) if number not in taken]
    visit.refused.update({file.file_id: why for file, why in zip(others, refused, strict=True)})
    progress = st.empty()
    for number, index in enumerate(taken, 1):
        progress.progress((number - 1) / len(taken), texts.READING.format(number, len(taken)))
        _add_photo(visit, fresh[index])
    for file in fresh:
        _discard_upload(visit, file)
    progress.empty()


def _add_photo(visit: Session, file: UploadedFile) -> None:
    try:
        if not visit.try_add_photo(UploadedPhoto(file.file_id, read_upload(file.name, file.getvalue()))):
            raise UserError(f"{file.name} {texts.FULL}")
    except UserError as error:
        visit.refused[file.file_id] = str(error)


def _discard_upload(visit: Session, file: UploadedFile) -> None:
    """Drop the bytes of a file that was read, with all that they say besides pixels; the uploader still lists it."""
    context = get_script_run_ctx()
    if context and isinstance(context.uploaded_file_mgr, MemoryUploadedFileManager):
        record = UploadedFileRec(file.file_id, file.name, file.type, b"")
        context.uploaded_file_mgr.add_file(visit.session, record)


def _detect_faces(visit: Session) -> None:
    """Look for faces in the photos in which nobody looked yet."""
    fresh = [photo for photo in visit.photos.values() if photo.faces is None]
    if not fresh:
        return
    if not session.job_queue().networks_loaded:
        with st.spinner(texts.OPENING):
            session.job_queue().networks()
    eyes, progress = session.job_queue().networks(), st.empty()
    for number, photo in enumerate(fresh, 1):
        progress.progress((number - 1) / len(fresh), texts.FINDING.format(number, len(fresh)))
        try:
            with DETECTION_LOCK:
                photo.add(find_faces(eyes, photo.upload.image))
        except Exception as error:  # the others are looked at; in this one faces can be added by hand
            LOG.error("faces in a photo could not be looked for: %s", error_logging.error_location(error))
            photo.add([])
    progress.empty()


@show_errors
def face_section(visit: Session) -> None:
    """Draw each photo with its faces, to tick, add and remove."""
    st.subheader(texts.FACES_HEADING, anchor=False)
    st.caption(texts.FACES_HINT)
    for photo in visit.photos.values():
        if photo.faces is not None:
            with st.container(border=True):
                _photo_card(visit, photo, list(photo.faces))


def _photo_card(visit: Session, photo: UploadedPhoto, numbers: Sequence[int]) -> None:
    shown, controls = st.columns([3, 2])
    with controls:
        st.markdown(f"**{texts.escape_markdown(photo.upload.name)}** · {texts.pluralise(len(numbers), 'face')}")
        if not numbers:
            st.caption(texts.NO_FACE)
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            for number in numbers:
                _face(photo, number)
        if visit.adding != photo.key:
            if st.button(texts.ADD, key=f"add-{photo.key}", icon=":material/add:"):
                visit.adding = photo.key
                st.rerun()
        else:
            _new_face(visit, photo)
    with shown:
        if visit.adding == photo.key:
            _click_canvas(photo)
        else:
            image(
                photo.preview_url(), texts.PICTURE_OF.format(photo.upload.name, texts.pluralise(len(numbers), "face"))
            )


def _face(photo: UploadedPhoto, number: int) -> None:
    """Draw the tick of a face; one that was added by hand can be removed."""
    spots = photo.faces or {}
    key = f"face-{photo.key}-{number}"
    photo.selected[number] = st.checkbox(texts.FACE.format(number), photo.selected[number], key=key, width="content")
    if spots[number].score is None:
        removed = st.button(
            texts.REMOVE_FACE.format(number), key=f"remove-{photo.key}-{number}", icon=":material/delete:"
        )
        if removed:
            del spots[number]
            st.rerun()


def _places(photo: UploadedPhoto) -> list[str]:
    """Return the keys of the four numbers of a new face."""
    return [f"{name}-{photo.key}" for name in texts.PLACES]


def _box(photo: UploadedPhoto) -> list[int]:
    """Return the box [x, y, w, h] of a new face as the four numbers have it."""
    begin = drawing.default_box(photo.upload.image.shape)
    return [int(st.session_state.get(key, value)) for key, value in zip(_places(photo), begin, strict=True)]


def _new_face(visit: Session, photo: UploadedPhoto) -> None:
    """Draw the numbers of a new face and the buttons that end adding."""
    st.caption(texts.ADD_HINT)
    for key, value in zip(_places(photo), st.session_state.pop(f"picked-{photo.key}", ()), strict=False):
        st.session_state[key] = value
    height, width = photo.upload.image.shape[:2]
    begin, least, most = (
        _box(photo),
        (0, 0, MIN_FACE_SIDE, MIN_FACE_SIDE),
        (width - MIN_FACE_SIDE, height - MIN_FACE_SIDE, width, height),
    )
    with st.container(horizontal=True):
        for key, name, value, low, high in zip(_places(photo), texts.PLACES, begin, least, most, strict=True):
            st.session_state.setdefault(key, value)
            st.number_input(name, low, high, step=max(1, width // 100), key=key, width=130)
    with st.container(horizontal=True):
        add = st.button(texts.ADD_THIS, key=f"add-this-{photo.key}", type="primary")
        stop = st.button(texts.STOP_ADDING, key=f"stop-{photo.key}")
    if add:
        photo.add([face_from_box([float(place) for place in _box(photo)], photo.upload.image.shape)])
    if add or stop:
        visit.adding = None
        st.rerun()


def _click_canvas(photo: UploadedPhoto) -> None:
    """Draw the photo so that a tap or a drag on it says where the new face is."""
    box = _box(photo)
    new = drawing.FaceBox((float(box[0]), float(box[1]), float(box[2]), float(box[3])), 0.0, "new", "new")
    pick = streamlit_image_coordinates(
        photo.with_boxes(new),
        width="stretch",
        key=f"tap-{photo.key}",
        click_and_drag=True,
        image_format="JPEG",
        cursor="crosshair",
    )
    if pick and pick["unix_time"] != photo.last_tap:
        photo.last_tap = pick["unix_time"]
        st.session_state[f"picked-{photo.key}"] = drawing.box_from_click(pick, photo.upload.image.shape, box).tolist()
        st.rerun()
