"""Fooling recognisers: verification, impersonation and dodging, transfer beside the original."""

from visor.report import conditions
from visor.report.cells import (
    BESIDE,
    NONE,
    Group,
    Picture,
    Row,
    Section,
    Table,
    interval,
    number,
    plain,
    published,
    section,
    table,
)
from visor.report.reading import Run

ORIGINAL_TRANSFER = "35 %"
SERVICES = "the original, on services, photographs"
GOALS = {"impersonate": "taken for the target", "dodge": "no longer taken for oneself"}


def fooled(run: Run) -> Section:
    """Return the tables of attacks on recognisers by their embeddings."""
    settings = run.params.recognition
    # All surrogates' folders hold the same verification: that of all recognisers.
    tables = [
        _verification(run, name, rate) for name in settings.surrogates[:1] for rate in settings.false_accept_rates
    ]
    tables += [_success(run, name, rate) for name in settings.surrogates for rate in settings.false_accept_rates]
    tables += [
        _transfer(run, goal, name, way) for name in settings.surrogates for goal in GOALS for way in settings.in_front
    ]
    tables.append(_gains(run))
    pictures = [picture for name in settings.surrogates for picture in _pictures(run, name)]
    transfer = Picture(
        "recognition_transfer.png",
        "Success on each recogniser, by the one that was attacked.",
        "Heat map of success, attacks by recognisers.",
    )
    return section(
        "fooling",
        "Passing as someone else, and as nobody",
        "People whom no recogniser was trained on are enrolled; a face is accepted from a threshold of similarity "
        "on, which lets pass a stated share of strangers (the false-accept rate, FAR). Impersonation: accepted as "
        "the target. Dodging: no longer accepted as oneself. Success is counted among faces of which that was not "
        "so when clean.",
        tables,
        [*pictures, transfer],
    )


def at(rate: float) -> str:
    """Return a false-accept rate as the metrics' keys have it."""
    return f"{rate:g}"


def _pictures(run: Run, name: str) -> list[Picture]:
    folder = f"recognition/{name}"
    return [
        *(
            Picture(
                f"{folder}/faces_{method}.png",
                f"Faces before and after {plain(method)} on {plain(name)}, and the change made visible.",
                f"Contact sheet: faces before, after, and the perturbation of {plain(method)}.",
            )
            for method in run.params.recognition.methods
        ),
        Picture(f"{folder}/success.png", f"Success on {plain(name)} by size.", "Curves of success over eps."),
        Picture(
            f"{folder}/similarities.png",
            "Similarities before and after, and the thresholds.",
            "Histograms of similarities, a field for each recogniser.",
        ),
    ]


def _verification(run: Run, surrogate: str, rate: float) -> Table:
    settings = run.params.recognition
    rows = []
    for name in settings.trained:
        for way in settings.in_front:
            prefix = f"recognition/{surrogate}/verification:{name}.{way}"
            groups = (
                number(run.numbers, f"{prefix}.auc", "three"),
                number(run.numbers, f"{prefix}.threshold_{at(rate)}", "three"),
                interval(run.numbers, f"{prefix}.far_{at(rate)}", "percent"),
                interval(run.numbers, f"{prefix}.tar_{at(rate)}", "percent"),
                number(run.numbers, f"{prefix}.not_found", "percent"),
            )
            rows.append(Row(plain(name) if way == "none" else f"{plain(way)} → {plain(name)}", groups))
    heads = ["AUC", "threshold", "strangers accepted there", "same person accepted there", "faces not found"]
    note = "Thresholds come from half of the images, all else from the others. A → B: detector A crops the face for B."
    title = f"Verification of people whom nobody was trained on, threshold for FAR {100 * rate:g} %"
    return table(title, "recogniser", heads, rows, note)


def _success(run: Run, name: str, rate: float) -> Table:
    titles = conditions.of_recognition(run.params)
    rows = []
    for condition, title in titles.items():
        groups: list[Group] = []
        for goal in GOALS:
            prefix = f"recognition/{name}/{goal}:{condition}"
            groups += [
                interval(run.numbers, f"{prefix}.success_{at(rate)}", "percent"),
                number(run.numbers, f"{prefix}.right_{at(rate)}", "whole"),
                number(run.numbers, f"{prefix}.ssim", "three"),
            ]
        rows.append(Row(title, tuple(groups)))
    heads = [head for words in GOALS.values() for head in (words, "of faces", "SSIM")]
    return table(f"{plain(name)} attacked by its own gradient, FAR {100 * rate:g} %", "faces", heads, rows)


def _transfer(run: Run, goal: str, surrogate: str, way: str) -> Table:
    settings, titles = run.params.recognition, conditions.of_recognition(run.params)
    rate, behind = at(settings.false_accept_rates[0]), way != "none"
    prefix = f"recognition_transfer:{goal}.{surrogate}."
    rows, counted = [], ""
    for condition, title in conditions.present(titles, run.numbers, prefix).items():
        counted = counted or condition
        cells = [
            interval(run.numbers, f"{prefix}{condition}.{name}.{way}.success_{rate}", "percent")
            for name in settings.trained
        ]
        found = number(run.numbers, f"{prefix}{condition}.{settings.trained[0]}.{way}.found", "percent")
        rows.append(Row(title, (*cells, found if behind else NONE)))
    of = [number(run.numbers, f"{prefix}{counted}.{name}.{way}.right_{rate}", "whole") for name in settings.trained]
    rows.append(Row("of faces", (*of, NONE)))
    if not behind:
        rows.append(Row(SERVICES, (published(ORIGINAL_TRANSFER), *(BESIDE for _ in settings.trained[1:]), NONE)))
    heads = [f"{plain(name)}{' (attacked itself)' if name == surrogate else ''}" for name in settings.trained]
    title = f"Transfer from {plain(surrogate)}: {GOALS[goal]}, FAR {100 * settings.false_accept_rates[0]:g} %"
    title += f", behind {plain(way)}" if behind else ""
    return table(title, "faces", [*heads, "faces found"], rows, _transfer_note(goal, surrogate, way))


def _transfer_note(goal: str, surrogate: str, way: str) -> str:
    """What to mind at one table of transfer."""
    note = f"All was made by the gradient of {plain(surrogate)}; the columns judge. "
    if way == "none":
        note += (
            "The authors of the original print one share, of photographs at eps 8, 12 and 16 of 255 before services "
            "that gave no gradient (BetaFace, Clarifai); it answers to no one cell here. "
        )
    elif goal == "dodge":
        note += f"A face that {plain(way)} does not find counts as no longer taken for oneself. "
    else:
        note += f"A face that {plain(way)} does not find is taken for nobody. "
    return f"{note}Where noise succeeds nearly as often, the attack carried over little."


def _gains(run: Run) -> Table:
    settings = run.params.recognition
    rates = [at(rate) for rate in settings.false_accept_rates]
    rows = []
    for method in settings.methods:
        for each in settings.strengths:
            for name in (*settings.trained, "all"):
                prefix = f"recognition_transfer:gain.{method}.{each.eps:g}x{each.iterations}.{name}"
                spread = [(f"{prefix}.gain_{r}", (f"{prefix}.low_{r}", f"{prefix}.high_{r}")) for r in rates]
                head = (
                    f"{plain(method)} {conditions.level(each.eps)}, on {'all others' if name == 'all' else plain(name)}"
                )
                rows.append(Row(head, tuple(interval(run.numbers, key, "points", ends) for key, ends in spread)))
    heads = [f"FAR {100 * rate:g} %" for rate in settings.false_accept_rates]
    first = plain(next(iter(settings.methods)))
    note = (
        f"In percentage points (pp) of success, over {first} on the same faces, on recognisers that gave no gradient."
    )
    return table("What a method gains in transfer", "method", heads, rows, note)
