"""Experimental conditions: what images go through before a network sees them, by name and title."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from visor.core.params import AttackStrengthParams, DetectionAttackParams, Params, RecognitionAttackParams
from visor.core.tables import label

NO_DETECTOR = "none"  # crops reach the recogniser as they were attacked, no detector in front of it
KINDS = ("clean", "noise", "attack", "jpeg")


class Condition(NamedTuple):
    """One row of a results table: what images go through."""

    name: str  # in metrics and tables
    title: str  # in tables and figures
    kind: str  # one of KINDS; jpeg: the images of an attack, saved as JPEG
    method: str = ""  # of recognition_attack.methods; empty for detectors, which are attacked by PGD
    eps: float = 0.0  # L∞ bound of noise or attack, pixels in [0, 1]
    iterations: int = 0  # gradient steps
    quality: int = 0  # of JPEG

    @property
    def file_name(self) -> str:
        """Name of the file of the attacked images."""
        return f"{self.method}{'_' if self.method else ''}{self.eps:g}x{self.iterations}.h5"


def detection_conditions(settings: DetectionAttackParams) -> list[Condition]:
    """Return the conditions of a detector: clean, noise of each size, PGD of each strength, JPEG of the last."""
    return _conditions(settings, {"": "PGD"})


def recognition_conditions(settings: RecognitionAttackParams) -> list[Condition]:
    """Return the conditions of a recogniser: clean, noise of each size, each method × strength, JPEG of the last."""
    return _conditions(settings, {method: label(method) for method in settings.methods})


def _conditions(settings: DetectionAttackParams | RecognitionAttackParams, methods: dict[str, str]) -> list[Condition]:
    """Return the conditions of some methods, given their titles."""
    sizes = dict.fromkeys(strength.eps for strength in settings.strengths)
    conditions = [Condition("clean", "clean", "clean")]
    conditions += [Condition(f"noise_{eps:g}", f"noise {eps:g}", "noise", eps=eps) for eps in sizes]
    for method, title in methods.items():
        for eps, steps in ((strength.eps, strength.iterations) for strength in settings.strengths):
            about = f"{title} {eps:g}" if method else f"{title} {eps:g}, {steps} steps"
            conditions.append(Condition(f"{method or 'pgd'}_{eps:g}x{steps}", about, "attack", method, eps, steps))
        last = conditions[-1]
        for quality in settings.jpeg:
            name, about = f"jpeg{quality}_{last.file_name.removesuffix('.h5')}", f"{title} {last.eps:g}, JPEG {quality}"
            conditions.append(last._replace(name=name, title=about, kind="jpeg", quality=quality))
    return list(dict.fromkeys(conditions))


def strongest_conditions(
    conditions: Iterable[Condition], strengths: Sequence[AttackStrengthParams], kinds: Collection[str] = KINDS
) -> list[Condition]:
    """Return the conditions of these kinds that are clean or of the last strength."""
    sizes, steps = (0.0, strengths[-1].eps), (0, strengths[-1].iterations)
    chosen = (condition for condition in conditions if condition.kind in kinds)
    return [condition for condition in chosen if condition.eps in sizes and condition.iterations in steps]


def detection_titles(params: Params) -> dict[str, str]:
    """Return the report's title of each condition of a detector, by name."""
    return {condition.name: _report_title(condition) for condition in detection_conditions(params.detection_attack)}


def recognition_titles(params: Params) -> dict[str, str]:
    """Return the report's title of each condition of a recogniser, by name."""
    return {condition.name: _report_title(condition) for condition in recognition_conditions(params.recognition_attack)}


def _report_title(condition: Condition) -> str:
    """Return a title with eps in levels and the steps, such as ``PGD 8/255 × 30, JPEG 90``."""
    size = format_eps(condition.eps)
    attack = f"{label(condition.method) or 'PGD'} {size} × {condition.iterations}"
    titles = {"clean": "clean", "noise": f"noise {size}", "attack": attack}
    return titles.get(condition.kind, f"{attack}, JPEG {condition.quality}")


def format_eps(eps: float) -> str:
    """Return eps as levels of 255 where it is a whole number of them."""
    levels = round(255 * eps)
    return f"{levels}/255" if levels and abs(255 * eps - levels) < 0.01 else f"{eps:g}"


def measured_conditions(titles: Mapping[str, str], numbers: Mapping[str, float], prefix: str) -> dict[str, str]:
    """Return the conditions for which there is a metric: its name begins with ``prefix`` and the condition's name."""
    return {
        name: title
        for name, title in titles.items()
        if any(key.startswith((f"{prefix}{name}:", f"{prefix}{name}.")) for key in numbers)
    }
