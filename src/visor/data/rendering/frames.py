"""Variation between images of one person: pose, light, expression, camera, background."""

import numpy as np
from numpy.typing import NDArray

# name: (middle, spread at difficulty 1, lowest, highest). Yaw, pitch and roll are tangents of half the angle, from
# which sine and cosine follow without a library call; 0.2 is 23 degrees.
NUISANCE = {
    "yaw": (0.0, 0.24, -0.34, 0.34),
    "pitch": (0.0, 0.10, -0.16, 0.16),
    "roll": (0.0, 0.05, -0.2, 0.2),
    "scale": (0.97, 0.07, 0.7, 1.3),
    "shift_x": (0.0, 0.06, -0.3, 0.3),
    "shift_y": (0.0, 0.05, -0.3, 0.3),
    "light_x": (0.0, 0.8, -2.0, 2.0),
    "light_y": (-0.35, 0.45, -1.2, 0.4),
    "light": (1.12, 0.3, 0.4, 1.7),
    "ambient": (0.36, 0.12, 0.12, 0.7),
    "warmth": (0.0, 0.06, -0.15, 0.15),
    "smile": (0.3, 0.75, 0.0, 1.0),
    "open": (0.05, 0.75, 0.0, 1.0),
    "lids": (0.95, 0.25, 0.3, 1.15),
    "gaze_x": (0.0, 0.35, -0.6, 0.6),
    "gaze_y": (0.0, 0.2, -0.4, 0.4),
    "brows": (0.0, 0.03, -0.04, 0.06),
    "blur": (0.006, 0.008, 0.0, 0.03),
    "noise": (1.5, 1.5, 0.0, 12.0),
}
# Backgrounds and JPEG quality do not depend on the difficulty.
BACKGROUND = ("back_light", "back_slope_x", "back_slope_y", "back_red", "back_blue", "back_noise", "back_place")
QUALITY = (70, 95)

Frames = NDArray[np.void]
DRAWN = (*NUISANCE, *BACKGROUND, "quality")
DTYPE = np.dtype([(name, np.float32) for name in DRAWN] + [("seed", np.int64)])


def draw_frames(
    generator: np.random.Generator, count: int, difficulty: float, drift: float = 0.3, jitter: float = 0.08
) -> Frames:
    """Draw ``count`` consecutive frames of one video: a structured array (count,).

    The variation of a frame is a point of the unit cube; in a video it drifts on a straight line with jitter.
    """
    start = generator.random(len(DRAWN))
    direction = (generator.random(len(DRAWN)) - 0.5) * drift
    noise = (generator.random((count, len(DRAWN))) - 0.5) * jitter
    varies = np.array([name in NUISANCE for name in DRAWN])
    time = np.arange(count)[:, None] / count
    place = np.abs(start + (direction * time + noise) * varies)
    place = 1 - np.abs(1 - place)
    frames = np.zeros(count, DTYPE)
    for name, share in zip(DRAWN, place.T, strict=True):
        if name in NUISANCE:
            middle, spread, low, high = NUISANCE[name]
            share = np.clip(middle + spread * difficulty * (2 * share - 1), low, high)
        frames[name] = share
    frames["quality"] = np.floor(QUALITY[0] + (QUALITY[1] - QUALITY[0] + 1) * place[:, -1] * 0.999)
    frames["seed"] = generator.integers(1 << 62, size=count)
    return frames
