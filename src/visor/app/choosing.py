"""The upper half of the page: photos come in, and faces are chosen or added by hand."""

import logging
import threading
from collections.abc import Sequence

import streamlit as st
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec
from streamlit_image_coordinates import streamlit_image_coordinates

from visor.app import faults, limits, pictures, process, words
from visor.app.faces import by_hand, find_faces
from visor.app.showing import picture
from visor.app.uploads import bounded, read_upload
from visor.app.visit import Photo, Visit, guarded
from visor.errors import UserError
from visor.protection.photos import LEAST

LOG = logging.getLogger(__name__)
LOOKING = threading.Lock()  # visitors take turns, photo by photo: each has a thread, all share the processor
KINDS = ("jpg", "jpeg", "png", "webp", "heic", "heif")


@guarded
def receive(visit: Visit) -> None:
    """Draw the uploader, read what is new in it once, and say what is refused."""
    st.subheader(words.UPLOAD, anchor=False)
    files = st.file_uploader(
        words.UPLOAD_HINT,
        type=KINDS,
        accept_multiple_files=True,
        key=f"files-{visit.round}",
        max_upload_size=limits.PHOTO_BYTES >> 20,
    )
    st.caption(words.PRIVACY)
    _read(visit, files)
    if visit.refused:
        st.warning("\n".join([words.REFUSED, *(f"- {words.plain(why)}" for why in visit.refused.values())]))
    _find(visit)


def _read(visit: Visit, files: Sequence[UploadedFile]) -> None:
    """Decode the files that were not there before; forget those that are there no more."""
    present = {file.file_id for file in files}
    for kept in (visit.photos, visit.refused):
        for key in kept.keys() - present:
            del kept[key]
    fresh = [file for file in files if file.file_id not in visit.photos and file.file_id not in visit.refused]
    taken, refused = bounded([(file.name, file.size) for file in fresh], len(visit.photos))
    others = [file for number, file in enumerate(fresh) if number not in taken]
    visit.refused.update({file.file_id: why for file, why in zip(others, refused, strict=True)})
    progress = st.empty()
    for number, index in enumerate(taken, 1):
        progress.progress((number - 1) / len(taken), words.READING.format(number, len(taken)))
        _take(visit, fresh[index])
    for file in fresh:
        _empty(visit, file)
    progress.empty()


def _take(visit: Visit, file: UploadedFile) -> None:
    try:
        if not visit.keep(Photo(file.file_id, read_upload(file.name, file.getvalue()))):
            raise UserError(f"{file.name} {words.FULL}")
    except UserError as error:
        visit.refused[file.file_id] = str(error)


def _empty(visit: Visit, file: UploadedFile) -> None:
    """Drop the bytes of a file that was read, with all that they say besides pixels; the uploader still lists it."""
    context = get_script_run_ctx()
    if context and isinstance(context.uploaded_file_mgr, MemoryUploadedFileManager):
        record = UploadedFileRec(file.file_id, file.name, file.type, b"")
        context.uploaded_file_mgr.add_file(visit.session, record)


def _find(visit: Visit) -> None:
    """Look for faces in the photos in which nobody looked yet."""
    fresh = [photo for photo in visit.photos.values() if photo.spots is None]
    if not fresh:
        return
    if not process.desk().opened:
        with st.spinner(words.OPENING):
            process.desk().eyes()
    eyes, progress = process.desk().eyes(), st.empty()
    for number, photo in enumerate(fresh, 1):
        progress.progress((number - 1) / len(fresh), words.FINDING.format(number, len(fresh)))
        try:
            with LOOKING:
                photo.add(find_faces(eyes, photo.upload.image))
        except Exception as error:  # the others are looked at; in this one faces can be added by hand
            LOG.error("faces in a photo could not be looked for: %s", faults.describe(error))
            photo.add([])
    progress.empty()


@guarded
def choose(visit: Visit) -> None:
    """Draw each photo with its faces, to tick, add and remove."""
    st.subheader(words.FACES_HEADING, anchor=False)
    st.caption(words.FACES_HINT)
    for photo in visit.photos.values():
        if photo.spots is not None:
            with st.container(border=True):
                _card(visit, photo, list(photo.spots))


def _card(visit: Visit, photo: Photo, numbers: Sequence[int]) -> None:
    shown, controls = st.columns([3, 2])
    with controls:
        st.markdown(f"**{words.plain(photo.upload.name)}** · {words.count(len(numbers), 'face')}")
        if not numbers:
            st.caption(words.NO_FACE)
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            for number in numbers:
                _face(photo, number)
        if visit.adding != photo.key:
            if st.button(words.ADD, key=f"add-{photo.key}", icon=":material/add:"):
                visit.adding = photo.key
                st.rerun()
        else:
            _new_face(visit, photo)
    with shown:
        if visit.adding == photo.key:
            _tap(photo)
        else:
            picture(photo.view(), words.PICTURE_OF.format(photo.upload.name, words.count(len(numbers), "face")))


def _face(photo: Photo, number: int) -> None:
    """Draw the tick of a face; one that was added by hand can be removed."""
    spots = photo.spots or {}
    key = f"face-{photo.key}-{number}"
    photo.ticked[number] = st.checkbox(words.FACE.format(number), photo.ticked[number], key=key, width="content")
    if spots[number].score is None:
        removed = st.button(
            words.REMOVE_FACE.format(number), key=f"remove-{photo.key}-{number}", icon=":material/delete:"
        )
        if removed:
            del spots[number]
            st.rerun()


def _places(photo: Photo) -> list[str]:
    """Return the keys of the four numbers of a new face."""
    return [f"{name}-{photo.key}" for name in words.PLACES]


def _box(photo: Photo) -> list[int]:
    """Return the box [x, y, w, h] of a new face as the four numbers have it."""
    begin = pictures.first_box(photo.upload.image.shape)
    return [int(st.session_state.get(key, value)) for key, value in zip(_places(photo), begin, strict=True)]


def _new_face(visit: Visit, photo: Photo) -> None:
    """Draw the numbers of a new face and the buttons that end adding."""
    st.caption(words.ADD_HINT)
    for key, value in zip(_places(photo), st.session_state.pop(f"picked-{photo.key}", ()), strict=False):
        st.session_state[key] = value
    height, width = photo.upload.image.shape[:2]
    begin, least, most = _box(photo), (0, 0, LEAST, LEAST), (width - LEAST, height - LEAST, width, height)
    with st.container(horizontal=True):
        for key, name, value, low, high in zip(_places(photo), words.PLACES, begin, least, most, strict=True):
            st.session_state.setdefault(key, value)
            st.number_input(name, low, high, step=max(1, width // 100), key=key, width=130)
    with st.container(horizontal=True):
        add = st.button(words.ADD_THIS, key=f"add-this-{photo.key}", type="primary")
        stop = st.button(words.STOP_ADDING, key=f"stop-{photo.key}")
    if add:
        photo.add([by_hand([float(place) for place in _box(photo)], photo.upload.image.shape)])
    if add or stop:
        visit.adding = None
        st.rerun()


def _tap(photo: Photo) -> None:
    """Draw the photo so that a tap or a drag on it says where the new face is."""
    box = _box(photo)
    new = pictures.Mark((float(box[0]), float(box[1]), float(box[2]), float(box[3])), 0.0, "new", "new")
    pick = streamlit_image_coordinates(
        photo.marked(new),
        width="stretch",
        key=f"tap-{photo.key}",
        click_and_drag=True,
        image_format="JPEG",
        cursor="crosshair",
    )
    if pick and pick["unix_time"] != photo.tapped:
        photo.tapped = pick["unix_time"]
        st.session_state[f"picked-{photo.key}"] = pictures.picked(pick, photo.upload.image.shape, box).tolist()
        st.rerun()
