"""Soft shapes from + − × ÷ and √ only, which round alike on every processor (unlike exp, sin or a BLAS sum)."""

import numpy as np
from numpy.typing import NDArray

# Always float32, as Python numbers take the type of the array; NumPy's stubs do not know that rule.
Plane = NDArray[np.floating]

PERIOD = 128
LATTICE: Plane = np.random.default_rng(47).random((PERIOD + 1) * PERIOD, dtype=np.float32)


def clip(values: Plane, low: float = 0.0, high: float = 1.0) -> Plane:
    """Clip ``values`` to [low, high]."""
    return np.minimum(np.maximum(values, low), high)


def step(values: Plane) -> Plane:
    """Return a smoothstep: 0 below −1/2, 1 above 1/2; ``step(distance / pixel)`` is an edge one pixel wide."""
    ramp = clip(values + 0.5)
    return ramp * ramp * (3 - 2 * ramp)


def bump(squared_radius: Plane) -> Plane:
    """Return (1 − r²)² inside the unit circle and 0 outside: like a Gaussian, with compact support."""
    inside = np.maximum(1 - squared_radius, 0)
    return inside * inside


def ellipse(x: Plane, y: Plane, x_radius: Plane | float, y_radius: Plane | float) -> Plane:
    """Return the squared radius of (x, y) in units of an ellipse around the origin: 1 on its edge."""
    u, v = x / x_radius, y / y_radius
    return u * u + v * v


def disc(x: Plane, y: Plane, x_radius: Plane | float, y_radius: Plane | float, pixel: Plane) -> Plane:
    """Return the coverage of a filled ellipse with an edge about a pixel wide."""
    smaller = np.minimum(x_radius, y_radius)
    return step((1 - np.sqrt(ellipse(x, y, x_radius, y_radius))) * smaller / pixel)


def alpha_over(canvas: Plane, coverage: Plane, colour: Plane) -> None:
    """Paint ``colour`` on ``canvas`` (3, n, h, w) in place by ``coverage`` (n, h, w) in [0, 1]."""
    change = colour - canvas
    change *= coverage
    canvas += change


def shade(canvas: Plane, amount: Plane, tint: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
    """Darken ``canvas`` (3, n, h, w) in place by the factor 1 − amount·tint."""
    for plane, strength in zip(canvas, tint, strict=True):
        plane *= 1 - amount * strength


def texture(u: Plane, v: Plane) -> Plane:
    """Return value noise in [0, 1] with features of size one, the same at every resolution."""
    column, row = np.floor(u), np.floor(v)
    x, y = u - column, v - row
    x, y = x * x * (3 - 2 * x), y * y * (3 - 2 * y)
    index = (row.astype(np.int32) & (PERIOD - 1)) * PERIOD + (column.astype(np.int32) & (PERIOD - 1))
    top, right = LATTICE[index], LATTICE[index + 1]
    bottom, far = LATTICE[index + PERIOD], LATTICE[(index + PERIOD + 1) % len(LATTICE)]
    top = top + x * (right - top)
    bottom = bottom + x * (far - bottom)
    return top + y * (bottom - top)
