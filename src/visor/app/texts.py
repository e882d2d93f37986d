"""Every sentence that a person reads on the page, and how a verdict is said."""

import re
from collections.abc import Sequence

from visor.app.downloads import MIN_PASSWORD_LENGTH
from visor.app.drawing import DIFFERENCE_GAIN
from visor.app.protect import Distance, NetworkOutcome, ProtectionResult
from visor.app.settings import IDLE_SECONDS, LEVELS, PHOTO_BYTES, PHOTOS, PIXELS, TARGETS, ProtectionLevel

MINUTES = IDLE_SECONDS // 60
TITLE = "Visor"
LEAD = "Change your photos a little, so that machines find or recognise the faces in them less easily."

UPLOAD = "1 · Choose photos"
UPLOAD_HINT = (
    f"JPEG, PNG, WebP or HEIC; up to {PHOTOS} photos, each of at most {PHOTO_BYTES >> 20} MB and "
    f"{PIXELS // 1_000_000} megapixels. Of an animation, the first picture is taken."
)
PRIVACY = (
    "Photos stay in the memory of the computer that runs this page. Place, time and camera are dropped when a photo "
    f"is read. Everything is forgotten {MINUTES} minutes after your last click, or soon after you close this page."
)
REFUSED = "These files were left out:"
FULL = "is refused: the photos that are held now fill the memory set aside for them; remove some, or come back later"
READING = "Reading photo {} of {}"
FINDING = "Looking for faces in photo {} of {}"
OPENING = "Loading the networks; this takes some seconds, once"

FACES_HEADING = "2 · Choose faces"
FACES_HINT = "Ticked faces are protected. If one was missed, add it by hand."
NO_FACE = "No face was found. Add one by hand if you see one."
ADD = "Add a face by hand"
ADD_HINT = "Tap the middle of the face, or drag a box across it with a mouse. Or type its place below, in pixels."
ADD_THIS = "Add this face"
STOP_ADDING = "Do not add"
REMOVE_FACE = "Remove face {}"
FACE = "Face {}"
PICTURE_OF = "{}, with boxes around {}"
PLACES = ("Left", "Top", "Width", "Height")

STRENGTH_HEADING = "3 · Choose how"
STRENGTH = "How much may the photo change?"
STRENGTH_HINT = "Further left: harder to see, protects less. Further right: protects more, easier to see."
TARGET = "What should it be safe from?"
PROTECT = "Protect"
NOTHING_CHOSEN = "Tick at least one face first."
SAME_AGAIN = "These faces are already in the queue or protected in this way; change something first."

QUEUE_HEADING = "In the queue"
CANCEL = "Cancel"
DISMISS = "Remove"
CANCELLED = "cancelled"

RESULTS_HEADING = "4 · Look, and download"
RESULTS_NOTICE = (
    "Other and future models may still see these faces, and saving as JPEG or posting to social networks can weaken "
    "the protection; more about that at the end of this page."
)
WHOLE = "Whole photo"
ZOOM = "Show"
VIEWS = ("Before", "After", f"Change × {DIFFERENCE_GAIN}; grey: none")
DOWNLOAD = "Download PNG"
DOWNLOAD_ALL = "Download all as ZIP"
LOCKED = "Or as a ZIP locked with a password"
PASSWORD = "Password"
LOCK = "Lock"
PASSWORD_HINT = (
    f"At least {MIN_PASSWORD_LENGTH} characters. Visor stores it in no file: without it nobody can open the ZIP."
)
PASSWORD_SHORT = f"The password is too short; take at least {MIN_PASSWORD_LENGTH} characters, say four words."
DOWNLOAD_LOCKED = "Download locked ZIP"
UNLOCK = "Open it by `visor unlock FILE --out FOLDER`, or by any age program (age-encryption.org)."

FORGET = "Forget everything"
FORGOTTEN = "All photos and results are forgotten."
TIMED_OUT = f"Nothing happened for {MINUTES} minutes, so all photos and results were forgotten."
UNEXPECTED = "Something went wrong here, not with your photo; try again, or press “Forget everything” and start anew."

TRAINED_HERE = "trained here"
LIMITS_HEADING = "What this protects from, and what not"
LIMITS = f"""
- **Other and future models may still see the face.** A change is made for the networks that the attack uses; the
  table below each photo says what these and others made of it. Nobody can test those that a site runs, or will run.
- **Measured at the default strength,** on 71 photos: MTCNN found none of 178 faces any more. Detectors and recognisers
  that the attack did not use mostly still saw and matched them. “Both” hides a little less well than detectors alone.
- **People still recognise you.** So does whoever knows place, clothes or company.
- **Saving as JPEG, resizing, screenshots and social networks can weaken it**, for they smooth what was changed; MTCNN
  found 3 of the 178 faces again in JPEGs of quality 75. Share the PNG as it is where you can.
- Those that are “{TRAINED_HERE}” are small and, unless somebody chose otherwise, have seen **drawn faces only**: what
  they say of photographs means little.
- Whoever has the original, or trains a model on such photos, is not stopped. Keep originals to yourself.

**What happens with your photos.** They are sent to the computer that runs this page, and to no other; use an address
that begins with https unless that computer is your own. They are held in memory; Visor writes them to no file, though
that computer may swap memory to disk. Other visitors cannot see them. Metadata (place, time, camera, thumbnail) are
dropped when a file is read; the PNG has none.
All of it is forgotten {MINUTES} minutes after your last click, some minutes after this page is closed or your phone
sleeps, or at once when you press “{FORGET}”. What you have downloaded is yours to look after.
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
}
PRETRAINED = ("mtcnn", "cascade")  # come with weights of their own
VERDICTS: dict[tuple[str, bool | None, bool | None], str] = {
    ("detector", True, False): "✓ no longer sees it",
    ("detector", True, True): "✗ still sees it",
    ("detector", False, True): "✗ sees it only now",
    ("recogniser", True, False): "✓ no longer matches it",
    ("recogniser", True, True): "✗ still matches it",
}
UNKNOWN = {"detector": "– never saw it", "recogniser": "– nobody saw a face to compare"}
DONE = {"detector": "seen", "recogniser": "matched"}
USED = {True: "The attack used these", False: "The attack did not use these"}
COLUMNS = ("Who looks", "What it makes of the face", "Score before → after")
SCORES = "A detector sees a face, and a recogniser matches two, from the score in brackets on."


def escape_markdown(text: str) -> str:
    """Return a stranger's words so that Markdown shows them as they are: no links, pictures or formulas."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def strength(level: ProtectionLevel) -> str:
    """Return a level's numbers beside its words."""
    return (
        f"**{level.name}**: each value of a pixel changes by at most {level.eps} of 255 levels (eps), in "
        f"{level.iterations} iterations a search."
    )


def level_of(words: str) -> ProtectionLevel:
    """Return the level of the slider that is called so."""
    return next(level for level in LEVELS if level.name == words)


def photos_chosen(photos: int, faces: int) -> str:
    """Return the words on the button: how much it would protect."""
    return f"{PROTECT} {pluralise(faces, 'face')} in {pluralise(photos, 'photo')}" if faces else PROTECT


def pluralise(number: int, thing: str) -> str:
    """Return a number of things, in the singular if it is one."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def network_name(onlooker: str, published: str | None) -> str:
    """Return what an onlooker is called; ``published``: the recogniser whose weights are not this project's."""
    called = NAMES.get(onlooker, onlooker)
    return called if onlooker in PRETRAINED or onlooker == published else f"{called} ({TRAINED_HERE})"


def outcome_text(one: NetworkOutcome) -> str:
    """Return what an onlooker makes of a face, with a sign that does not need colours."""
    return VERDICTS.get((one.kind, one.before, one.after), UNKNOWN[one.kind])


def score_text(one: NetworkOutcome) -> str:
    """Return an onlooker's numbers: before → after, and from which on it sees or matches."""
    before, after = ("none" if value is None else f"{value:.2f}" for value in (one.value_before, one.value_after))
    return f"{before} → {after} ({one.threshold:.2f})"


def summary(verdicts: Sequence[NetworkOutcome]) -> str:
    """Return in a sentence how many who saw or matched a face before no longer do, and how many see it only now."""
    parts = []
    for kind, done in DONE.items():
        asked = [one for one in verdicts if one.kind == kind and one.before and one.after is not None]
        lost = sum(not one.after for one in asked)
        if asked:
            parts.append(f"no longer {done} by {lost} of {pluralise(len(asked), kind)}")
    if late := sum(one.before is False and bool(one.after) for one in verdicts):
        parts.append(f"seen only now by {pluralise(late, 'detector')}")
    return ("; ".join(parts) or "nobody who was asked saw it before") + "."


def similarity_text(one: Distance) -> str:
    """Return how alike a part of a photo is before and after, in the usual measures."""
    psnr = "–" if one.psnr is None else f"{one.psnr:.1f} dB"
    return f"How alike: SSIM {one.ssim:.3f} (1 is the same), PSNR {psnr}; largest change {one.linf} of 255 levels"


def result_caption(level: ProtectionLevel, target: str, result: ProtectionResult) -> str:
    """Return how and for what a photo was changed, how long that took, and how alike it still is."""
    how = f"{level.name} (eps {level.eps} of 255, {level.iterations} iterations). {TARGETS[target]}"
    return f"{how}. Took {result.seconds:.0f} seconds. {similarity_text(result.whole)}."


def queue_position(number: int | None) -> str:
    """Return where in the queue a photo waits."""
    return "next in the queue" if number == 1 else f"number {number} in the queue"
