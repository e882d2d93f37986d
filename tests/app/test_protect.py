"""The app's engine: untrusted files, faces, the attack within its bound, and the outcome for all networks."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms
from skimage import data

from tests.support import linear_recogniser
from visor.app import settings
from visor.app.networks import NetworkOptions, Networks, face_from_box, find_faces, load_networks
from visor.app.protect import JobCancelled, photo_distance, protect
from visor.app.settings import DEFAULT_LEVEL, LEVELS, TARGETS
from visor.app.uploads import Upload, accept_files, read_upload
from visor.core.errors import UserError
from visor.data.crops import region, sampled_mask
from visor.models.detectors import Detections, Detector
from visor.models.mtcnn import MTCNN
from visor.photos import evade, hide
from visor.photos.faces import Face
from visor.photos.identify import photo_recogniser, recognise_faces
from visor.photos.restarts import RegionPerturbation, best_of_restarts

ASTRONAUT = data.astronaut()
CUT = np.ascontiguousarray(ASTRONAUT[20:236, 120:310])
LEVEL = LEVELS[DEFAULT_LEVEL]
NOWHERE = Path("no/such/folder")


def saved(image, kind, **more):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **more)
    return file.getvalue()


def heic(image, **more):
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(image)).save(file, quality=-1, **more)
    return file.getvalue()


FILES = {
    "me.png": saved(CUT, "PNG"),
    "me.webp": saved(CUT, "WEBP", lossless=True),
    "me.jpg": saved(CUT, "JPEG", quality=98),
    "me.heic": heic(CUT),
}


@pytest.mark.parametrize("name", FILES)
def test_photos_of_four_kinds_become_their_pixels(name):
    upload = read_upload(name, FILES[name])
    assert upload.name == "me"
    assert upload.image.dtype == np.uint8
    tolerance = 0 if name in ("me.png", "me.webp") else 6
    assert np.abs(upload.image.astype(int) - CUT).mean() <= tolerance / 2
    assert upload.image.shape == CUT.shape


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIF"])
def test_a_photo_is_turned_upright(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera that was held upright
    upload = read_upload("turned", saved(np.ascontiguousarray(np.rot90(CUT)), kind, exif=exif.tobytes()))
    assert upload.image.shape == CUT.shape
    assert np.abs(upload.image.astype(int) - CUT).mean() < 4


GREY = np.ascontiguousarray(CUT[..., 1])
SEEN = np.where(np.arange(CUT.shape[1]) % 50 < 25, 255, 0).astype(np.uint8) * np.ones_like(GREY)  # in stripes
COLOURS = Image.fromarray(CUT).quantize(200)
NUMBERS = np.asarray(COLOURS)
NONE = np.uint8(NUMBERS[100, 90])  # the colour of a palette that is transparent
ON_WHITE = np.where(SEEN[..., np.newaxis] == 255, CUT, 255)
HALF = np.rint(255 - (255 - CUT.astype(float)) * 128 / 255)


def alpha(colours, opacity=SEEN):
    return np.dstack([colours, opacity])


def painted(kind, image, **more):
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


UNUSUAL = {  # a file, its pixels, and by how much the mean may be off
    "transparent PNG": (saved(alpha(CUT), "PNG"), ON_WHITE, 0),
    "half transparent PNG": (saved(alpha(CUT, np.full_like(GREY, 128)), "PNG"), HALF, 1),
    "transparent grey PNG": (saved(alpha(GREY), "PNG"), np.where(SEEN == 255, GREY, 255)[..., np.newaxis], 0),
    "transparent WebP": (saved(alpha(CUT), "WEBP", lossless=True, exact=True), ON_WHITE, 0),
    "transparent HEIC": (heic(alpha(CUT)), ON_WHITE, 3),
    "palette": (painted("PNG", COLOURS), np.asarray(COLOURS.convert("RGB")), 0),
    "transparent palette": (
        painted("PNG", COLOURS, transparency=int(NONE)),
        np.where((NUMBERS == NONE)[..., np.newaxis], 255, np.asarray(COLOURS.convert("RGB"))),
        0,
    ),
    "transparent colour": (
        saved(CUT, "PNG", transparency=tuple(CUT[0, 0].tolist())),
        np.where((CUT[0, 0] == CUT).all(axis=2, keepdims=True), 255, CUT),
        0,
    ),
    "grey": (saved(GREY, "JPEG", quality=98), GREY[..., np.newaxis], 1),
    "16 bits": (saved(GREY.astype(np.uint16) * 257, "PNG"), GREY[..., np.newaxis], 0),
    "CMYK": (painted("JPEG", Image.fromarray(CUT).convert("CMYK"), quality=98), CUT, 4),
    "moving PNG": (saved(CUT, "PNG", save_all=True, append_images=[Image.fromarray(255 - CUT)]), CUT, 0),
    "moving WebP": (
        saved(CUT, "WEBP", save_all=True, append_images=[Image.fromarray(255 - CUT)], lossless=True),
        CUT,
        0,
    ),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_a_photo_is_what_a_viewer_shows_on_white(what):
    content, shown, tolerance = UNUSUAL[what]
    image = read_upload("photo", content).image
    assert (image.shape, image.dtype) == (CUT.shape, np.uint8)
    assert np.abs(image - shown.astype(float)).mean() <= tolerance


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SWAPPED = SRGB.replace(b"rXYZ", b"****").replace(b"bXYZ", b"rXYZ").replace(b"****", b"bXYZ")  # what is red is blue
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIF"])
@pytest.mark.parametrize(("profile", "order"), [(SRGB, 1), (SWAPPED, -1), (LAB, 1), (SRGB[:200], 1), (b"none", 1)])
def test_colours_become_those_of_srgb(kind, profile, order):
    image = read_upload("photo", saved(CUT, kind, quality=98, icc_profile=profile)).image
    assert np.abs(image.astype(int) - CUT[..., ::order]).mean() < 4


def test_colours_of_transparent_grey_and_printed_photos():
    image = read_upload("photo", saved(alpha(CUT), "PNG", icc_profile=SWAPPED)).image
    assert np.abs(image.astype(int) - ON_WHITE[..., ::-1]).max() <= 2
    printed = Image.fromarray(CUT).convert("CMYK")
    image = read_upload("photo", painted("JPEG", printed, quality=98, icc_profile=SRGB)).image
    assert np.abs(image.astype(int) - CUT).mean() < 4  # a profile of another kind is left alone
    image = read_upload("photo", saved(GREY, "PNG", icc_profile=SRGB)).image
    assert (image == GREY[..., np.newaxis]).all()


WIDE = saved(np.zeros((7000, 8000, 3), np.uint8), "PNG")
REFUSED = {
    "text": (b"Dear Sir, this is no photo.", "not an image"),
    "nothing": (b"", "not an image"),
    "cut off": (FILES["me.jpg"][: len(FILES["me.jpg"]) // 2], "truncated"),
    "cut off HEIC": (FILES["me.heic"][:400], "cannot be used"),
    "too many pixels": (WIDE, "8000×7000 pixels, more than 50,000,000"),
    "another kind": (saved(CUT, "ICO"), "not an image"),
    "tiny": (saved(CUT[:31], "PNG"), "190×31 pixels"),
    "a strip": (saved(np.zeros((40, 16_001, 3), np.uint8), "PNG"), "16001×40 pixels"),
    "a heavy file": (b"x" * (settings.PHOTO_BYTES + 1), "at most 192 MiB"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_unusable_files_are_rejected_by_name(what):
    content, reason = REFUSED[what]
    with pytest.raises(UserError, match=reason) as error:
        read_upload("photo.jpg", content)
    assert str(error.value).startswith("photo.jpg ")
    assert "\n" not in str(error.value)


def test_too_many_pixels_are_rejected_before_they_are_decoded():
    code = (
        "import resource, sys; from visor.app.uploads import read_upload; from visor.core.errors import UserError\n"
        "data = sys.stdin.buffer.read(); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_upload('photo.png', data)\n"
        "except UserError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=WIDE, capture_output=True, check=True)
    assert int(done.stdout) < 20_000  # KiB: the pixels alone would be 164,000


def test_twenty_of_fifty_files_are_accepted_and_each_other_one_is_reported():
    files = [(f"{number}.jpg", 1000) for number in range(50)]
    accepted, messages = accept_files(files, 3)
    assert accepted == list(range(17))
    assert [message.split()[0] for message in messages] == [f"{number}.jpg" for number in range(17, 50)]
    accepted, messages = accept_files([("a.jpg", settings.PHOTO_BYTES + 1), ("b.jpg", settings.PHOTO_BYTES)], 19)
    assert accepted == [1]
    assert messages == ["a.jpg is 192 MiB; choose a file of at most 192 MiB"]


def test_an_unsafe_name_becomes_a_safe_file_name():
    name = "../../etc/pass\x00wd\n.png"
    assert not set(read_upload(name, FILES["me.png"]).name) & set("/\\\0\n")


def test_a_box_by_hand_is_cut_to_the_photo():
    assert face_from_box((-10.0, 20.2, 40.0, 500.0), (100, 80, 3)) == Face((0.0, 20.0, 30.0, 80.0))
    for box in ((75.0, 10.0, 50.0, 50.0), (10.0, 10.0, 11.0, 50.0), (300.0, 300.0, 50.0, 50.0)):
        with pytest.raises(UserError, match="12 pixels a side"):
            face_from_box(box, (100, 80, 3))


def test_distances_of_strips_are_those_of_the_photo(monkeypatch):
    noise = np.random.default_rng(1).integers(-4, 5, CUT.shape)
    changed = np.clip(CUT + noise, 0, 255).astype(np.uint8)
    whole = photo_distance(CUT, changed)
    monkeypatch.setattr("visor.app.protect.SSIM_STRIP_PIXELS", 8000)
    strips = photo_distance(CUT, changed)
    assert strips.linf == whole.linf == 4
    assert strips.psnr == pytest.approx(whole.psnr, abs=1e-9)
    assert strips.ssim == pytest.approx(whole.ssim, abs=0.01)
    assert photo_distance(CUT, CUT) == (0, 1.0, None)


# Networks that cost nothing: a detector with fixed boxes, and a linear recogniser.
SHAPE = (120, 160, 3)
PLACES = [(20.0, 30.0, 40.0, 40.0), (90.0, 50.0, 36.0, 36.0)]
FACES = [Face(place, 0.0, 0.9) for place in PLACES]
FAINT = LEVELS[0]._replace(eps=5, iterations=2, attempts=2)


def scene():
    image = np.random.default_rng(2).integers(60, 190, SHAPE).astype(np.uint8)
    for x, y, width, height in PLACES:
        image[int(y) : int(y + height), int(x) : int(x + width)] += 10
    return image


def fixed(places, name="mtcnn", moved=0.0):
    """A detector that finds faces in some places, ``moved`` pixels to the right once the photo has changed."""
    first = scene()

    def detect(images):
        shift = 0.0 if (images[0, : SHAPE[0], : SHAPE[1]] == first).all() else moved
        boxes = np.array(places, np.float32).reshape(-1, 4) + np.float32([shift, 0, 0, 0])
        return [Detections(boxes, np.linspace(0.9, 0.8, len(boxes), dtype=np.float32))]

    return Detector(name, 0.5, detect, None, None)


def networks_of(detectors, find=lambda image: FACES):
    recogniser = photo_recogniser(linear_recogniser.linear(), find, 0.2)
    return Networks(NetworkOptions(), find, detectors, {"facenet": recogniser}, {"facenet": 0.5}, [])


class FakeAttack:
    """An attack that goes to the bound, and a record of its calls: eps, number of faces, attempt."""

    def __init__(self):
        self.calls = []

    def __call__(self, image, frames, eps, attempt):
        levels = round(eps * 255)
        self.calls.append((levels, len(frames), attempt))
        parts = [region(image, frame, (80, 80)) for frame in frames]
        return [RegionPerturbation(part, sampled_mask(part) * np.float32(levels + 0.4)) for part in parts]


@pytest.fixture
def fake_attack(monkeypatch):
    attack = FakeAttack()

    def hiding_attack(detector, settings):
        return lambda image, groups, attempt: attack(
            image, [hide.attack_frame(boxes[0]) for boxes in groups], settings.eps, attempt
        )

    def evasion_attack(recogniser, goal, settings):
        return lambda image, frame, target, attempt: attack(image, [frame], settings.eps, attempt)[0]

    monkeypatch.setattr(hide, "compile_hiding_attack", hiding_attack)
    monkeypatch.setattr(evade, "compile_evasion_attack", evasion_attack)
    return attack


@pytest.mark.parametrize("target", TARGETS)
def test_the_bound_holds_exactly_for_each_target(fake_attack, target):
    networks = networks_of({"mtcnn": fixed(PLACES)})
    done = protect(networks, Upload("me", scene()), FACES, FAINT, target, lambda *_: None, lambda: False)
    moved = np.abs(done.after.astype(int) - done.before)
    assert moved.max() == 5
    assert done.whole.linf == done.eps == 5
    assert {eps for eps, *_ in fake_attack.calls} == ({1, 5} if target == "both" else {5})  # 1 and 5 are cut to 5


def test_faces_that_are_not_chosen_stay_as_they_are(fake_attack):
    networks = networks_of({"mtcnn": fixed(PLACES)})
    done = protect(networks, Upload("me", scene()), FACES[:1], FAINT, "both", lambda *_: None, lambda: False)
    moved = (done.after != done.before).any(axis=2)
    x, y, width, height = (int(side) for side in PLACES[1])
    assert not moved[y : y + height, x : x + width].any()
    assert moved[30:70, 20:60].all()
    assert len(done.distances) == 1
    assert done.whole.psnr > done.distances[0].psnr


def outcomes_of(result):
    return {(o.face, o.network): (o.before, o.after, o.attacked) for o in result.outcomes}


def test_outcomes_tell_what_was_never_detected(fake_attack):
    detectors = {
        "mtcnn": fixed(PLACES, moved=300.0),  # both vanish
        "ssd": fixed(PLACES[:1], "ssd", moved=16.0),  # a box still touches it: it has moved, which is no success
        "faster_rcnn": fixed([], "faster_rcnn"),
    }
    networks = networks_of(detectors)
    done = protect(networks, Upload("me", scene()), FACES, FAINT, "detectors", lambda *_: None, lambda: False)
    outcomes = outcomes_of(done)
    assert outcomes[0, "mtcnn"] == outcomes[1, "mtcnn"] == (True, False, True)
    assert outcomes[0, "ssd"] == (True, True, False)
    assert outcomes[1, "ssd"] == outcomes[0, "faster_rcnn"] == (False, None, False)
    assert outcomes[0, "facenet"][0] is True
    assert outcomes[0, "facenet"][2] is False
    assert len(fake_attack.calls) == 1  # both at once, and no second attempt: the detector finds neither
    values = {(o.face, o.network): (o.score_before, o.score_after) for o in done.outcomes}
    assert values[0, "mtcnn"] == (pytest.approx(0.9), None)
    assert values[1, "ssd"] == (None, None)


def test_a_box_without_a_face_has_no_similarity(fake_attack):
    wall, face = Face((60.0, 5.0, 30.0, 30.0)), Face(PLACES[1])
    networks = networks_of({"mtcnn": fixed([]), "ssd": fixed(PLACES[1:], "ssd")})
    done = protect(networks, Upload("me", scene()), [wall, face], FAINT, "recognition", lambda *_: None, lambda: False)
    outcomes = outcomes_of(done)
    assert outcomes[0, "facenet"] == (None, None, True)
    assert outcomes[1, "facenet"][0] is True  # another detector finds it
    values = {(o.face, o.network): (o.score_before, o.score_after) for o in done.outcomes}
    assert values[0, "facenet"] == (None, None)
    assert values[1, "facenet"][0] == 1.0


@pytest.mark.parametrize(("moved", "seen", "score"), [(16.0, True, 0.9), (-12.0, None, None)])
def test_a_face_that_is_only_detected_afterwards_is_reported(fake_attack, moved, seen, score):
    x, y, width, height = PLACES[0]
    beside = {"mtcnn": fixed(PLACES), "ssd": fixed([(x - 16, y, width, height)], "ssd", moved)}
    done = protect(networks_of(beside), Upload("me", scene()), FACES[:1], FAINT, "both", lambda *_: None, lambda: False)
    assert outcomes_of(done)[0, "ssd"] == (False, seen, False)
    (ssd,) = (o for o in done.outcomes if o.network == "ssd")
    assert (ssd.score_before, ssd.score_after) == (None, score and pytest.approx(score))


@pytest.mark.parametrize(("scale", "shift"), [(1.6, 0.0), (0.65, 0.0), (1.0, 0.3), (0.5, 0.9)])
def test_a_loose_box_by_hand_is_no_success(monkeypatch, scale, shift):
    attacked = []
    monkeypatch.setattr(
        "visor.app.protect.attack_photo", lambda networks, image, faces, *_: attacked.extend(faces) or image
    )
    x, y, width, height = PLACES[0]
    sides = width * scale, height * scale
    hand = Face((x + width * shift - (sides[0] - width) / 2, y - (sides[1] - height) / 2, *sides))
    networks = networks_of({"mtcnn": fixed(PLACES), "ssd": fixed(PLACES, "ssd")})
    networks.recognisers["vgg_face"] = photo_recogniser(linear_recogniser.linear(), networks.find, 0.3)
    networks.thresholds["vgg_face"] = 0.9
    done = protect(networks, Upload("me", scene()), [hand], FAINT, "both", lambda *_: None, lambda: False)
    recognised = [o for o in done.outcomes if o.kind == "recogniser"]
    near = shift < 0.5
    assert [o.network for o in recognised] == ["facenet", "vgg_face"]
    assert all((o.before, o.after) == ((True, True) if near else (None, None)) for o in recognised)
    assert all(o.score_after >= 0.999 for o in recognised if near)
    assert [face.box for face in attacked] == [PLACES[0] if near else hand.box]  # what is measured is attacked
    assert all(o.before and o.after for o in done.outcomes if o.kind == "detector" and near)
    assert done.faces == [hand]


def test_a_face_that_is_still_detected_is_attacked_again_alone(fake_attack):
    networks = networks_of({"mtcnn": fixed(PLACES[1:])})
    protect(networks, Upload("me", scene()), FACES, FAINT, "detectors", lambda *_: None, lambda: False)
    assert fake_attack.calls == [(5, 2, 0), (5, 1, 1)]


def test_a_face_that_a_neighbour_spoils_is_attacked_again():
    attempts, scored = [], []
    scores = iter([[np.inf, -0.9], [-0.5, np.inf], [-0.6, np.inf], [np.inf, np.inf]])

    def attempt_fn(faces, attempt):
        attempts.append(faces)
        return {face: (face, attempt) for face in faces}

    def score_fn(changes):
        scored.append(changes)
        return next(scores)

    assert best_of_restarts(2, 9, attempt_fn, score_fn) == [(0, 3), (1, 1)]
    assert attempts == [[0, 1], [1], [0], [0]]
    assert scored[2] == [(0, 2), (1, 1)]


@pytest.mark.parametrize(("moved", "shift"), [(0.0, 0.0), (6.0, 6.0), (300.0, 0.0)])
def test_recognisers_crop_the_current_place_of_a_face(fake_attack, monkeypatch, moved, shift):
    calls = []

    def recorded(recogniser, image, faces):
        calls.append((image, [face.box for face in faces], [face.angle for face in faces]))
        return recognise_faces(recogniser, image, faces)

    monkeypatch.setattr("visor.app.protect.recognise_faces", recorded)
    faces = [Face(place, 7.0, 0.9) for place in PLACES]
    networks = networks_of({"mtcnn": fixed(PLACES, moved=moved)})
    done = protect(networks, Upload("me", scene()), faces, FAINT, "recognition", lambda *_: None, lambda: False)
    (clean, boxes, _), _, (changed, places, angles) = calls
    assert clean is done.before
    assert changed is done.after  # what is downloaded
    assert boxes == PLACES
    assert places == [(x + shift, y, width, height) for x, y, width, height in PLACES]
    assert angles == [7.0, 7.0]


def test_the_png_is_what_was_measured_and_has_no_metadata(fake_attack):
    networks = networks_of({"mtcnn": fixed(PLACES)})
    done = protect(networks, Upload("me", scene()), FACES, FAINT, "both", lambda *_: None, lambda: False)
    with Image.open(io.BytesIO(done.png)) as opened:
        assert (np.asarray(opened) == done.after).all()
        assert not opened.info
        assert not opened.getexif()


def test_progress_rises_and_a_cancelled_photo_ends_at_the_next_step(fake_attack):
    networks, shares = networks_of({"mtcnn": fixed(PLACES)}), []
    arguments = networks, Upload("me", scene()), FACES, FAINT, "both", lambda share, message: shares.append(share)
    protect(*arguments, lambda: False)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    steps = len(shares)
    for limit in range(steps):
        shares.clear()
        with pytest.raises(JobCancelled):
            protect(*arguments, lambda limit=limit: len(shares) == limit)
        assert len(shares) == limit


# The real networks, once.


@pytest.fixture(scope="module")
def opened():
    """All networks that need no training, and how often MTCNN's graph was traced for an attack."""
    traced = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("visor.models.training.configure_tensorflow", lambda compute, seed: None)
        patch.setattr("visor.photos.networks.open_recogniser", lambda *_: linear_recogniser.linear())
        patch.setattr("visor.photos.networks.DETECTOR_FOLDER", NOWHERE)
        patch.setattr("visor.photos.networks.RECOGNISER_FOLDER", NOWHERE)
        networks = load_networks(NetworkOptions())
    mtcnn = networks.detectors["mtcnn"]

    def candidates(images):
        traced.append(images.shape)
        return mtcnn.pre_nms(images)

    networks.detectors["mtcnn"] = replace(mtcnn, pre_nms=candidates)
    return networks, traced


def test_untrained_networks_are_listed(opened):
    networks, _ = opened
    assert list(networks.detectors) == ["mtcnn", "cascade"]
    assert list(networks.recognisers) == list(networks.thresholds) == ["facenet"]
    assert networks.untrained == ["faster_rcnn", "ssd", "resnet50", "senet50", "vgg_face"]


def test_a_fetched_recogniser_is_attacked(monkeypatch):
    monkeypatch.setattr("visor.models.training.configure_tensorflow", lambda compute, seed: None)
    monkeypatch.setattr("visor.photos.networks.open_recogniser", lambda name, *_: linear_recogniser.linear())
    monkeypatch.setattr("visor.photos.networks.open_detector", lambda *_: None)
    monkeypatch.setattr("visor.app.networks.face_finder", lambda: None)
    monkeypatch.setattr("visor.photos.networks.DETECTOR_FOLDER", NOWHERE)
    monkeypatch.setattr("visor.photos.networks.RECOGNISER_FOLDER", NOWHERE)
    loaded = load_networks(NetworkOptions("dlib_resnet"))
    assert list(loaded.recognisers) == ["dlib_resnet"]
    assert loaded.thresholds == {"dlib_resnet": 0.91}
    assert loaded.recognisers["dlib_resnet"].margin == 0.2
    assert load_networks(NetworkOptions("faceres")).recognisers["faceres"].margin == 0.1
    options = [("dlib_resnet", None), ("facenet", None), ("facenet", "a.h5"), ("folder/a.tflite", None)]
    assert [NetworkOptions(*each).published for each in options] == ["dlib_resnet", None, "facenet", "a.tflite"]


def test_the_astronaut_vanishes_from_photos_of_any_size_by_one_graph(opened):
    networks, traced = opened
    wide = np.pad(ASTRONAUT, ((60, 0), (300, 91), (0, 0)), mode="edge")
    for photo in (ASTRONAUT, wide):
        faces = find_faces(networks, photo)
        assert len(faces) == 1
        done = protect(networks, Upload("me", photo), faces, LEVEL, "detectors", lambda *_: None, lambda: False)
        assert 0 < np.abs(done.after.astype(int) - photo).max() <= LEVEL.eps
        assert MTCNN().detect_faces(done.after) == []
        outcomes = outcomes_of(done)
        assert outcomes[0, "mtcnn"] == (True, False, True)
        assert outcomes[0, "cascade"][0] is True
        graphs, traced[:] = len(traced), []
    assert graphs == 0


def test_evading_lowers_the_similarity(opened):
    networks, _ = opened
    (face,) = find_faces(networks, CUT)
    done = protect(networks, Upload("me", CUT), [face], LEVEL, "recognition", lambda *_: None, lambda: False)
    (outcome,) = (o for o in done.outcomes if o.network == "facenet")
    assert outcome.attacked
    assert outcome.score_after < 0.99 * outcome.score_before
    assert outcome.after == (outcome.score_after >= outcome.threshold)


def test_boxes_that_only_the_detector_finds_can_be_selected(opened, monkeypatch):
    networks, _ = opened
    (face,) = find_faces(networks, CUT)
    blind = networks._replace(find=lambda image: [])
    (other,) = find_faces(blind, CUT)
    assert other.box == pytest.approx(face.box, abs=12)
    twice = networks._replace(find=lambda image: [Face((500.0, 500.0, 40.0, 40.0)), face])
    assert find_faces(twice, CUT) == [face]
    monkeypatch.setattr(settings, "FACES", 0)
    assert find_faces(networks, CUT) == []
