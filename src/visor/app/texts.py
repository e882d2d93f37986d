"""Every text of the page, and results as text."""

import re
from collections.abc import Sequence

from visor.app.downloads import MIN_PASSWORD_LENGTH
from visor.app.drawing import DIFFERENCE_GAIN
from visor.app.protect import Distance, ProtectionResult
from visor.app.settings import IDLE_SECONDS, PHOTO_BYTES, PHOTOS, PIXELS, TARGETS, ProtectionLevel
from visor.photos.outcome import NetworkOutcome

MINUTES = IDLE_SECONDS // 60
TITLE = "Visor"
LEAD = "Change photos slightly so that software finds and recognises the faces in them less easily."

UPLOAD = "1 · Choose photos"
UPLOAD_HINT = (
    f"JPEG, PNG, WebP or HEIC; up to {PHOTOS} photos, each of at most {PHOTO_BYTES >> 20} MB and "
    f"{PIXELS // 1_000_000} megapixels. Of an animation, the first frame is used."
)
PRIVACY = (
    "Photos stay in the memory of the computer that runs this page. Place, time and camera are removed when a photo "
    f"is read. Everything is deleted {MINUTES} minutes after your last click, or soon after you close this page."
)
SKIPPED = "These files were skipped:"
FULL = "was not added: photo memory is full. Remove some photos or try again later."
READING = "Reading photo {} of {}"
DETECTING = "Finding faces in photo {} of {}"
LOADING = "Loading networks (some seconds, once)"

FACES_HEADING = "2 · Choose faces"
FACES_HINT = "Selected faces will be protected. Add a face by hand if one was missed."
NO_FACE = "No face was found. Add one by hand if you see one."
ADD = "Add a face by hand"
ADD_HINT = "Tap the middle of the face, or drag a box across it with a mouse. Or type its position below, in pixels."
ADD_THIS = "Add this face"
STOP_ADDING = "Cancel"
REMOVE_FACE = "Remove face {}"
FACE = "Face {}"
PREVIEW = "{}, with boxes around {}"
BOX_FIELDS = ("Left", "Top", "Width", "Height")

STRENGTH_HEADING = "3 · Choose strength"
STRENGTH = "How much may the photo change?"
STRENGTH_HINT = "Further left: less visible, protects less. Further right: protects more, more visible."
TARGET = "Protect against"
PROTECT = "Protect"
NOTHING_SELECTED = "Select at least one face."
SAME_AGAIN = "These faces are already queued or protected with these settings; change something first."

QUEUE_HEADING = "In the queue"
CANCEL = "Cancel"
REMOVE = "Remove"
CANCELLED = "cancelled"

RESULTS_HEADING = "4 · Check and download"
RESULTS_NOTICE = (
    "Other and future models may still detect these faces, and saving as JPEG or posting to social networks can weaken "
    "the protection; see the end of this page."
)
WHOLE = "Whole photo"
ZOOM = "Show"
VIEWS = ("Before", "After", f"Change × {DIFFERENCE_GAIN}; grey: none")
DOWNLOAD = "Download PNG"
DOWNLOAD_ALL = "Download all as ZIP"
ENCRYPTED = "Encrypted ZIP"
PASSWORD = "Password"
ENCRYPT = "Encrypt"
PASSWORD_HINT = (
    f"At least {MIN_PASSWORD_LENGTH} characters. Visor stores it in no file: without it the ZIP cannot be opened."
)
PASSWORD_SHORT = f"The password is too short; use at least {MIN_PASSWORD_LENGTH} characters, for example four words."
DOWNLOAD_ENCRYPTED = "Download encrypted ZIP"
UNLOCK = "Open it with `visor unlock FILE --out FOLDER`, or with any age program (age-encryption.org)."

DELETE_ALL = "Delete everything"
DELETED = "All photos and results were deleted."
TIMED_OUT = f"All photos and results were deleted after {MINUTES} minutes without a click."
UNEXPECTED = f"An error occurred (not caused by your photo). Try again, or press “{DELETE_ALL}” to start over."

TRAINED_HERE = "trained here"
LIMITS_HEADING = "What this does and does not protect against"
LIMITS = f"""
- **Other and future models may still detect the face.** A change is computed for the networks that the attack uses; the
  tables below each photo show the results of these and of others. The models of other sites cannot be tested here.
- **Measured at the default strength,** on 71 photos: MTCNN found none of 178 faces any more. Detectors and recognisers
  that the attack did not use mostly still detected and matched them. “Both” hides slightly less well than detection.
- **People still recognise you**, by your face, the place, your clothes or company.
- **Saving as JPEG, resizing, screenshots and social networks can weaken it**, as they smooth the change; MTCNN
  found 3 of the 178 faces again in JPEGs of quality 75. Share the PNG itself where you can.
- Networks marked “{TRAINED_HERE}” are small and, by default, were trained on **rendered faces only**: their results on
  photographs are unreliable.
- It does not stop anyone who has the original, or who trains a model on such photos. Keep originals to yourself.

**What happens to your photos.** They are sent to the computer that runs this page, and to no other; use an address
that begins with https unless that computer is your own. They are held in memory; Visor writes them to no file, though
that computer may swap memory to disk. Other visitors cannot see them. Metadata (place, time, camera, thumbnail) are
removed when a file is read; the PNG has none.
Everything is deleted {MINUTES} minutes after your last click, some minutes after this page is closed or your phone
sleeps, or at once when you press “{DELETE_ALL}”. Files that you have downloaded are not affected.
"""

NAMES = {
    "mtcnn": "MTCNN",
    "ssd": "SSD",
    "faster_rcnn": "Faster R-CNN",
    "cascade": "Cascade",
    "facenet": "FaceNet",
    "resnet50": "ResNet-50",
    "senet50": "SENet-50",
    "vgg_face": "VGG-Face",
    "dlib_resnet": "dlib",
    "faceres": "FaceRes",
}
PRETRAINED = ("mtcnn", "cascade")  # come with published weights
OUTCOMES: dict[tuple[str, bool | None, bool | None], str] = {
    ("detector", True, False): "✓ no longer detected",
    ("detector", True, True): "✗ still detected",
    ("detector", False, True): "✗ detected only now",
    ("recogniser", True, False): "✓ no longer matched",
    ("recogniser", True, True): "✗ still matched",
}
NO_OUTCOME = {"detector": "– never detected", "recogniser": "– no face to compare"}
NETWORK_GROUPS = {True: "Attacked networks", False: "Other networks"}
COLUMNS = ("Result", "Score before → after")
SCORES = "A face counts as detected or matched if its score is at least the one in brackets."


def escape_markdown(text: str) -> str:
    """Escape untrusted text so that Markdown renders no links, images or formulas."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def strength(level: ProtectionLevel) -> str:
    """Return a level's name and numbers."""
    return (
        f"**{level.name}**: each pixel value changes by at most {level.eps} of 255 levels (eps), in "
        f"{level.iterations} iterations per attack."
    )


def protect_label(photos: int, faces: int) -> str:
    """Return the label of the button that submits the selected faces."""
    return f"{PROTECT} {pluralise(faces, 'face')} in {pluralise(photos, 'photo')}" if faces else PROTECT


def pluralise(number: int, noun: str) -> str:
    """Return a number and its noun, with an s unless it is one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def network_name(network: str, published: str | None) -> str:
    """Return the displayed name of a network; ``published`` is the recogniser that has published weights."""
    name = NAMES.get(network, network)
    return name if network in PRETRAINED or network == published else f"{name} ({TRAINED_HERE})"


def outcome_text(outcome: NetworkOutcome) -> str:
    """Return an outcome in words, with a sign that does not depend on colour."""
    return OUTCOMES.get((outcome.kind, outcome.before, outcome.after), NO_OUTCOME[outcome.kind])


def score_text(outcome: NetworkOutcome) -> str:
    """Return the scores of an outcome: before → after (threshold)."""
    scores = outcome.score_before, outcome.score_after
    return f"{' → '.join('none' if score is None else f'{score:.2f}' for score in scores)} ({outcome.threshold:.2f})"


def summary(outcomes: Sequence[NetworkOutcome]) -> str:
    """Return how many networks no longer detect or match a face, and how many detect it only now."""
    parts = []
    for kind, verb in (("detector", "detected"), ("recogniser", "matched")):
        after = [outcome.after for outcome in outcomes if outcome.kind == kind and outcome.before]
        if after:
            parts.append(f"no longer {verb} by {after.count(False)} of {pluralise(len(after), kind)}")
    if newly := sum(outcome.before is False and bool(outcome.after) for outcome in outcomes):
        parts.append(f"detected only now by {pluralise(newly, 'detector')}")
    return ("; ".join(parts) or "no network detected it before") + "."


def similarity_text(distance: Distance) -> str:
    """Return the similarity of before and after in the usual measures."""
    psnr = "–" if distance.psnr is None else f"{distance.psnr:.1f} dB"
    ssim = f"Similarity: SSIM {distance.ssim:.3f} (1: identical)"
    return f"{ssim}, PSNR {psnr}; largest change {distance.linf} of 255 levels"


def result_caption(level: ProtectionLevel, target: str, result: ProtectionResult) -> str:
    """Return the settings of a result, its duration and the similarity of the photos."""
    options = f"{level.name} (eps {level.eps} of 255, {level.iterations} iterations). {TARGETS[target]}"
    return f"{options}. Took {result.seconds:.0f} seconds. {similarity_text(result.whole)}."


def queue_position(position: int) -> str:
    """Return a position in the queue as text."""
    return "next in the queue" if position == 1 else f"number {position} in the queue"
