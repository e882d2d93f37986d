"""What attacked images went through, by the names that the metrics have for it, in words."""

from collections.abc import Mapping

from visor.core.params import Params


def detection_titles(params: Params) -> dict[str, str]:
    """Return name → title: clean, noise by eps, PGD by eps and steps, JPEG of the last."""
    settings = params.detection_attack
    strengths = [(format_eps(each.eps), f"{each.eps:g}", each.iterations) for each in settings.strengths]
    shown, eps, steps = strengths[-1]
    last = f"PGD {shown} × {steps}"
    return {
        "clean": "clean",
        **{f"noise_{name}": f"noise {size}" for size, name, _ in strengths},
        **{f"pgd_{name}x{count}": f"PGD {size} × {count}" for size, name, count in strengths},
        **{f"jpeg{quality}_{eps}x{steps}": f"{last}, JPEG {quality}" for quality in settings.jpeg},
    }


def recognition_titles(params: Params) -> dict[str, str]:
    """Return name → title: clean, noise by eps, each method by eps and steps, JPEG of its last."""
    settings = params.recognition_attack
    strengths = [(format_eps(each.eps), f"{each.eps:g}", each.iterations) for each in settings.strengths]
    largest, eps, steps = strengths[-1]
    found = {"clean": "clean", **{f"noise_{name}": f"noise {shown}" for shown, name, _ in strengths}}
    for method in settings.methods:
        title = method.replace("_", " ")
        found |= {f"{method}_{name}x{count}": f"{title} {shown} × {count}" for shown, name, count in strengths}
        found |= {
            f"jpeg{quality}_{method}_{eps}x{steps}": f"{title} {largest} × {steps}, JPEG {quality}"
            for quality in settings.jpeg
        }
    return found


def format_eps(eps: float) -> str:
    """Return eps as levels of 255 where it is a whole number of them."""
    levels = round(255 * eps)
    return f"{levels}/255" if levels and abs(255 * eps - levels) < 0.01 else f"{eps:g}"


def measured_conditions(titles: Mapping[str, str], numbers: Mapping[str, float], prefix: str) -> dict[str, str]:
    """Return those of which there is a number whose name begins with ``prefix`` and their own."""
    return {
        name: title
        for name, title in titles.items()
        if any(key.startswith((f"{prefix}{name}:", f"{prefix}{name}.")) for key in numbers)
    }
