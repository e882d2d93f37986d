"""The identity of a face: parameters that are the same in every image of a label, as one structured array."""

import numpy as np
from numpy.typing import NDArray

# Lengths are in half frame heights: eyes at y = −0.16, mouth at 0.5, chin near 0.9; y points down.
# name: (lowest, highest, added for a masculine face)
RANGES = {
    "width": (0.585, 0.655, 0.02),
    "depth": (0.60, 0.68, 0.0),
    "chin": (0.84, 0.92, 0.04),
    "top": (-1.22, -1.12, 0.0),
    "jaw": (-0.2, 0.35, 0.4),
    "cheeks": (0.01, 0.065, -0.015),
    "chin_width": (0.17, 0.25, 0.06),
    "chin_height": (0.02, 0.065, 0.01),
    "socket": (0.03, 0.06, 0.015),
    "brow_ridge": (0.0, 0.02, 0.03),
    "eye_x": (0.265, 0.31, 0.0),
    "eye_y": (-0.185, -0.135, 0.0),
    "eye_width": (0.125, 0.16, -0.01),
    "eye_height": (0.055, 0.085, -0.012),
    "eye_tilt": (-0.06, 0.12, -0.02),
    "eye_fold": (0.0, 1.0, 0.0),
    "lashes": (0.35, 0.95, -0.3),
    "brow_gap": (0.175, 0.235, -0.03),
    "brow_width": (0.17, 0.215, 0.01),
    "brow_height": (0.014, 0.03, 0.014),
    "brow_arch": (0.01, 0.07, -0.02),
    "brow_tilt": (-0.02, 0.04, -0.01),
    "brow_density": (0.45, 0.95, 0.1),
    "nose_y": (0.17, 0.255, 0.01),
    "nose_width": (0.085, 0.14, 0.015),
    "nose_tip": (0.10, 0.16, 0.02),
    "nose_bridge": (0.04, 0.11, 0.015),
    "nose_bridge_width": (0.11, 0.16, 0.01),
    "mouth_y": (0.475, 0.535, 0.005),
    "mouth_width": (0.19, 0.25, 0.015),
    "lip_upper": (0.035, 0.07, -0.012),
    "lip_lower": (0.05, 0.09, -0.012),
    "lip_bow": (0.1, 0.5, 0.0),
    "lip_curve": (-0.015, 0.02, 0.0),
    "blush": (0.0, 0.3, -0.08),
    "freckles": (-1.2, 0.8, 0.0),
    "age": (-0.3, 0.8, 0.1),
    "ear": (0.7, 1.15, 0.1),
    "neck": (0.33, 0.39, 0.06),
    "mole_x": (-0.45, 0.45, 0.0),
    "mole_y": (0.02, 0.7, 0.0),
    "mole": (-0.03, 0.022, 0.0),
    "part": (-0.5, 0.5, 0.0),
    "strand": (0.0, 100.0, 0.0),
    "gloss": (0.15, 0.6, -0.1),
}

# Columns of a hair style. `front` is the hairline at the middle, `temple` and `side` where it starts and ends its
# way down (as squared sine of the angle round the head), `end` how low it comes there, `back` how low behind.
STYLE = ("front", "temple", "side", "end", "back", "volume", "sweep", "rough", "curl", "cover")
STYLES = {
    False: {
        "long, parted": (-0.70, 0.32, 0.80, 1.70, 1.80, 0.13, 0.10, 0.04, 0.10, 1.0),
        "long, fringe": (-0.41, 0.40, 0.70, 1.60, 1.70, 0.12, 0.06, 0.10, 0.05, 1.0),
        "long, swept": (-0.60, 0.30, 0.75, 1.50, 1.60, 0.15, 0.32, 0.06, 0.15, 1.0),
        "long, wavy": (-0.66, 0.34, 0.80, 1.45, 1.60, 0.19, 0.14, 0.09, 0.55, 1.0),
        "bob": (-0.45, 0.42, 0.76, 0.72, 0.80, 0.14, 0.16, 0.08, 0.05, 1.0),
        "tied back": (-0.66, 0.50, 1.00, 0.02, 0.30, 0.05, 0.04, 0.03, 0.0, 1.0),
        "pixie": (-0.47, 0.46, 0.95, 0.16, 0.45, 0.10, 0.26, 0.12, 0.12, 1.0),
        "curls": (-0.58, 0.38, 0.85, 0.62, 0.85, 0.25, 0.06, 0.10, 1.0, 1.0),
    },
    True: {
        "crop": (-0.63, 0.58, 0.98, 0.06, 0.45, 0.06, 0.04, 0.06, 0.1, 1.0),
        "side part": (-0.64, 0.52, 0.97, 0.08, 0.45, 0.09, 0.16, 0.06, 0.0, 1.0),
        "quiff": (-0.69, 0.55, 0.98, 0.02, 0.40, 0.12, 0.06, 0.07, 0.15, 1.0),
        "fringe": (-0.46, 0.50, 0.94, 0.12, 0.50, 0.10, 0.14, 0.13, 0.1, 1.0),
        "buzz": (-0.66, 0.60, 1.00, 0.02, 0.40, 0.02, 0.0, 0.03, 0.0, 0.8),
        "receding": (-0.86, 0.35, 0.98, 0.02, 0.42, 0.045, 0.02, 0.05, 0.0, 0.9),
        "bald": (-0.80, 0.60, 1.00, 0.00, 0.30, 0.005, 0.0, 0.02, 0.0, 0.1),
        "curly": (-0.60, 0.48, 0.95, 0.10, 0.50, 0.15, 0.02, 0.10, 1.0, 1.0),
        "shoulder": (-0.66, 0.36, 0.82, 0.95, 1.10, 0.11, 0.10, 0.07, 0.2, 1.0),
    },
}
# Density of moustache, goatee and full beard.
BEARDS = ((0, 0, 0), (0, 0, 0), (0.3, 0.3, 0.22), (0.45, 0.45, 0.35), (0.9, 0.9, 0.85), (0.8, 0.85, 0.0), (0.8, 0, 0))

# Display colours (sRGB, 0 … 255), light to dark.
SKINS = (
    (246, 217, 201), (240, 200, 177), (229, 184, 156), (213, 165, 132),
    (190, 142, 106), (166, 117, 82), (136, 90, 62), (104, 67, 47), (80, 52, 39),
)  # fmt: skip
HAIRS = (
    (24, 19, 18), (34, 25, 21), (54, 36, 26), (84, 56, 37), (110, 68, 42),
    (134, 66, 36), (158, 122, 78), (200, 165, 110), (222, 192, 142), (150, 147, 144), (205, 202, 198),
)  # fmt: skip
IRISES = (
    (46, 29, 20), (62, 38, 24), (84, 52, 28), (112, 84, 46), (92, 110, 74), (88, 118, 150), (116, 130, 142),
)  # fmt: skip
COLOURS = ("skin", "hair", "eye", "lips", "cloth")
BEARD = ("moustache", "goatee", "beard")

Identities = NDArray[np.void]
DTYPE = np.dtype(
    [(name, np.float32) for name in (*RANGES, *STYLE, *BEARD)] + [(name, np.float32, 3) for name in COLOURS]
)


def draw_identity(generator: np.random.Generator) -> Identities:
    """Draw one plausible person: a structured array of shape (1,)."""
    identity = np.zeros(1, DTYPE)
    masculine = generator.random() < 0.5
    for name, (low, high, added) in RANGES.items():
        identity[name] = low + (high - low) * generator.random() + added * masculine
    styles = list(STYLES[masculine].values())
    for name, value in zip(STYLE, styles[generator.integers(len(styles))], strict=True):
        identity[name] = value * (0.9 + 0.2 * generator.random())
    for name, value in zip(BEARD, BEARDS[generator.integers(len(BEARDS))], strict=True):
        identity[name] = value * masculine
    _draw_colours(identity, generator, masculine)
    return identity


def _draw_colours(identity: Identities, generator: np.random.Generator, masculine: bool) -> None:
    """Draw the colours: dark skin comes with dark hair and eyes; a few people are grey."""
    tone = generator.random()
    skin = _between(SKINS, tone)
    darkness = 1 if tone < 0.45 else 0.3
    grey = generator.random() < 0.12
    hair = HAIRS[generator.integers(9, 11) if grey else int(generator.random() * 9 * darkness)]
    made_up = 0.0 if masculine else 0.75 * generator.random()
    red = np.array([168, 52, 66]) + (generator.random(3) - 0.5) * [50, 24, 30]
    natural = skin * [0.86, 0.62, 0.62]
    identity["skin"] = _linear(skin * (0.97 + 0.06 * generator.random(3)))
    identity["hair"] = _linear(np.array(hair) * (0.85 + 0.3 * generator.random()))
    identity["eye"] = _linear(np.array(IRISES[int(generator.random() * 7 * darkness)]))
    identity["lips"] = _linear(natural + made_up * (red - natural))
    cloth = 40 + 170 * generator.random()
    identity["cloth"] = _linear(cloth + (generator.random(3) - 0.5) * 70)


def _between(palette: tuple[tuple[int, ...], ...], position: float) -> NDArray[np.float64]:
    """Interpolate a palette at a position in [0, 1]."""
    place = position * (len(palette) - 1)
    first = int(place)
    low, high = np.array(palette[first]), np.array(palette[min(first + 1, len(palette) - 1)])
    return low + (place - first) * (high - low)


def _linear(colour: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert display values to light with a gamma of 2, whose inverse is a square root."""
    share = np.minimum(np.maximum(colour, 4), 250) / 255
    return share * share
