"""Experimental conditions: what images go through before a network sees them, by name and title."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from visor.core.errors import UserError
from visor.core.params import (
    AttackStrengthParams,
    DetectionAttackParams,
    MethodsAttackParams,
    Params,
    RecognitionAttackParams,
)
from visor.core.tables import label
from visor.core.types import ImageArray
from visor.data.images import jpeg_round_trip, scale_image

ATTACKED_CLEAN = "clean_attacked"  # the scenes that are attacked, before that
NO_DETECTOR = "none"  # crops reach the recogniser as they were attacked, no detector in front of it
KINDS = ("test_set", "clean", "noise", "attack", "jpeg", "scaled", "objective")


class Condition(NamedTuple):
    """One row of a results table: what images go through."""

    name: str  # in metrics and tables
    title: str  # in tables and figures
    # One of KINDS. test_set: all test images, clean: those attacked; jpeg: attacked ones, saved as JPEG; scaled: saved
    # at a smaller size, attacked or, with 0 iterations, clean.
    kind: str
    method: str = ""  # how images were attacked; for kind objective a loss of detectors; empty for a detector's own
    eps: int = 0  # L∞ bound of noise or attack, in levels of 255
    iterations: int = 0  # gradient steps
    quality: int = 0  # of JPEG
    scale: float = 1.0  # of the sides

    @property
    def bound(self) -> float:
        """``eps`` for pixels in [0, 1]."""
        return self.eps / 255

    @property
    def file_name(self) -> str:
        """Name of the file of the attacked images."""
        return f"{self.method}{'_' if self.method else ''}{self.eps}x{self.iterations}.h5"


def scaled_clean(scale: float) -> str:
    """Return the name of the condition of clean images that are saved at a smaller size."""
    return f"clean_scaled{100 * scale:g}"


def save_images(images: ImageArray, condition: Condition) -> ImageArray:
    """Return images uint8 (n, h, w, 3) as they are read back after they were saved as a condition says."""
    if condition.quality:
        images = np.stack([jpeg_round_trip(image, condition.quality) for image in images])
    return images if condition.scale == 1 else np.stack([scale_image(image, condition.scale) for image in images])


def detection_conditions(settings: DetectionAttackParams) -> list[Condition]:
    """Return the conditions of a detector: all test scenes, those attacked, noise of each size, PGD of each strength.

    The last strength also saved as JPEG and smaller, and with each of the other objectives.
    """
    clean, *others = _conditions(settings, {"": "PGD"})
    last, objectives = settings.strengths[-1], []
    for loss in settings.objectives:
        name, title = f"{loss}_{last.eps}x{last.iterations}", f"{label(loss)} {last.eps}/255, {last.iterations} steps"
        objectives.append(Condition(name, title, "objective", loss, last.eps, last.iterations))
    test_set = Condition("clean", "clean, all test scenes", "test_set")
    return [test_set, clean._replace(name=ATTACKED_CLEAN, title="clean, those attacked"), *others, *objectives]


TARGET_RULES = ("nearest", "furthest")
DODGE = "dodge"


def verification_goals(settings: RecognitionAttackParams) -> dict[str, str]:
    """Return the goals of attacks on embeddings, ``impersonate_RULE`` and ``dodge``, and the target of each.

    A target by name is that of the goal ``impersonate_named``.

    Raises:
        UserError: There are two targets by name.
    """
    rules = {target if target in TARGET_RULES else "named": target for target in settings.targets}
    if len(rules) < len(settings.targets):
        raise UserError("params.yaml: recognition_attack.targets has a rule twice, or two names; keep one of them")
    return {f"impersonate_{rule}": target for rule, target in rules.items()} | {DODGE: ""}


def recognition_conditions(settings: MethodsAttackParams) -> list[Condition]:
    """Return the conditions of a recogniser: clean, noise of each size, each method × strength.

    The last strength also saved as JPEG and smaller.
    """
    return _conditions(settings, {method: label(method) for method in settings.methods})


def _conditions(settings: DetectionAttackParams | MethodsAttackParams, methods: dict[str, str]) -> list[Condition]:
    """Return the conditions of some methods, given their titles."""
    sizes = dict.fromkeys(strength.eps for strength in settings.strengths)
    sides = {scale: f"{100 * scale:g} % of the size" for scale in settings.scales}
    conditions = [Condition("clean", "clean", "clean")]
    conditions += [Condition(scaled_clean(s), f"clean, {side}", "scaled", scale=s) for s, side in sides.items()]
    conditions += [Condition(f"noise_{eps}", f"noise {eps}/255", "noise", eps=eps) for eps in sizes]
    for method, title in methods.items():
        for eps, steps in ((strength.eps, strength.iterations) for strength in settings.strengths):
            about = f"{title} {eps}/255" if method else f"{title} {eps}/255, {steps} steps"
            conditions.append(Condition(f"{method or 'pgd'}_{eps}x{steps}", about, "attack", method, eps, steps))
        last = conditions[-1]
        for quality in settings.jpeg:
            name = f"jpeg{quality}_{last.file_name.removesuffix('.h5')}"
            about = f"{title} {last.eps}/255, JPEG {quality}"
            conditions.append(last._replace(name=name, title=about, kind="jpeg", quality=quality))
        for scale, side in sides.items():
            name = f"scaled{100 * scale:g}_{last.file_name.removesuffix('.h5')}"
            about = f"{title} {last.eps}/255, {side}"
            conditions.append(last._replace(name=name, title=about, kind="scaled", scale=scale))
    return list(dict.fromkeys(conditions))


def strongest_conditions(
    conditions: Iterable[Condition], strengths: Sequence[AttackStrengthParams], kinds: Collection[str] = KINDS
) -> list[Condition]:
    """Return the conditions of these kinds that are clean or of the last strength."""
    sizes, steps = (0, strengths[-1].eps), (0, strengths[-1].iterations)
    chosen = (condition for condition in conditions if condition.kind in kinds)
    return [condition for condition in chosen if condition.eps in sizes and condition.iterations in steps]


def detection_titles(params: Params) -> dict[str, str]:
    """Return the report's title of each condition of a detector, by name."""
    return {condition.name: _report_title(condition) for condition in detection_conditions(params.detection_attack)}


def recognition_titles(params: Params) -> dict[str, str]:
    """Return the report's title of each condition of a recogniser's embeddings, by name."""
    return {condition.name: _report_title(condition) for condition in recognition_conditions(params.recognition_attack)}


def classification_titles(params: Params) -> dict[str, str]:
    """Return the report's title of each condition of a recogniser's classes, by name."""
    conditions = recognition_conditions(params.classification_attack)
    return {condition.name: _report_title(condition) for condition in conditions}


def _report_title(condition: Condition) -> str:
    """Return a title with the steps, such as ``PGD 8/255 × 30, JPEG 90``."""
    attack = f"{label(condition.method) or 'PGD'} {condition.eps}/255 × {condition.iterations}"
    titles = {"attack": attack, "objective": attack, "jpeg": f"{attack}, JPEG {condition.quality}"}
    if condition.iterations:
        titles["scaled"] = f"{attack}, {100 * condition.scale:g} % of the size"
    return titles.get(condition.kind, condition.title)


def measured_conditions(titles: Mapping[str, str], numbers: Mapping[str, float], prefix: str) -> dict[str, str]:
    """Return the conditions for which there is a metric: its name begins with ``prefix`` and the condition's name."""
    return {
        name: title
        for name, title in titles.items()
        if any(key.startswith((f"{prefix}{name}:", f"{prefix}{name}.")) for key in numbers)
    }
