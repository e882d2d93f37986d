"""Fooling recognisers: verification, impersonation and dodging, transfer beside the original."""

from visor.evaluation import conditions
from visor.report.elements import (
    EMPTY,
    MERGE_LEFT,
    CellGroup,
    Figure,
    Row,
    Section,
    Table,
    interval_cells,
    label,
    metric_cell,
    reference_cell,
    section,
    table,
)
from visor.report.inputs import RunData

ORIGINAL_TRANSFER = "35 %"
SERVICES = "the original, on services, photographs"
GOAL_TITLES = {"impersonate": "taken for the target", "dodge": "no longer taken for oneself"}


def recognition_section(run: RunData) -> Section:
    """Return the tables of attacks on recognisers by their embeddings."""
    settings = run.params.recognition_attack
    # All surrogates' folders hold the same verification: that of all recognisers.
    tables = [_verification(run, name, rate) for name in settings.white_box[:1] for rate in settings.false_accept_rates]
    tables += [_success(run, name, rate) for name in settings.white_box for rate in settings.false_accept_rates]
    tables += [
        _transfer(run, goal, name, way)
        for name in settings.white_box
        for goal in GOAL_TITLES
        for way in settings.cropping_detectors
    ]
    tables.append(_gains(run))
    pictures = [picture for name in settings.white_box for picture in _pictures(run, name)]
    transfer = Figure(
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


def rate_key(rate: float) -> str:
    """Return a false-accept rate as the metrics' keys have it."""
    return f"{rate:g}"


def _pictures(run: RunData, name: str) -> list[Figure]:
    folder = f"recognition/{name}"
    return [
        *(
            Figure(
                f"{folder}/faces_{method}.png",
                f"Faces before and after {label(method)} on {label(name)}, and the change made visible.",
                f"Contact sheet: faces before, after, and the perturbation of {label(method)}.",
            )
            for method in run.params.recognition_attack.methods
        ),
        Figure(f"{folder}/success.png", f"Success on {label(name)} by size.", "Curves of success over eps."),
        Figure(
            f"{folder}/similarities.png",
            "Similarities before and after, and the thresholds.",
            "Histograms of similarities, a field for each recogniser.",
        ),
    ]


def _verification(run: RunData, surrogate: str, rate: float) -> Table:
    settings = run.params.recognition_attack
    rows = []
    for name in settings.networks:
        for way in settings.cropping_detectors:
            prefix = f"recognition/{surrogate}/verification:{name}.{way}"
            groups = (
                metric_cell(run.numbers, f"{prefix}.auc", "three"),
                metric_cell(run.numbers, f"{prefix}.threshold_{rate_key(rate)}", "three"),
                interval_cells(run.numbers, f"{prefix}.far_{rate_key(rate)}", "percent"),
                interval_cells(run.numbers, f"{prefix}.tar_{rate_key(rate)}", "percent"),
                metric_cell(run.numbers, f"{prefix}.not_found", "percent"),
            )
            rows.append(Row(label(name) if way == "none" else f"{label(way)} → {label(name)}", groups))
    heads = ["AUC", "threshold", "strangers accepted there", "same person accepted there", "faces not found"]
    note = "Thresholds come from half of the images, all else from the others. A → B: detector A crops the face for B."
    title = f"Verification of people whom nobody was trained on, threshold for FAR {100 * rate:g} %"
    return table(title, "recogniser", heads, rows, note)


def _success(run: RunData, name: str, rate: float) -> Table:
    titles = conditions.recognition_titles(run.params)
    rows = []
    for condition, title in titles.items():
        groups: list[CellGroup] = []
        for goal in GOAL_TITLES:
            prefix = f"recognition/{name}/{goal}:{condition}"
            groups += [
                interval_cells(run.numbers, f"{prefix}.success_{rate_key(rate)}", "percent"),
                metric_cell(run.numbers, f"{prefix}.right_{rate_key(rate)}", "whole"),
                metric_cell(run.numbers, f"{prefix}.ssim", "three"),
            ]
        rows.append(Row(title, tuple(groups)))
    heads = [head for words in GOAL_TITLES.values() for head in (words, "of faces", "SSIM")]
    return table(f"{label(name)} attacked by its own gradient, FAR {100 * rate:g} %", "faces", heads, rows)


def _transfer(run: RunData, goal: str, surrogate: str, way: str) -> Table:
    settings, titles = run.params.recognition_attack, conditions.recognition_titles(run.params)
    rate, behind = rate_key(settings.false_accept_rates[0]), way != "none"
    prefix = f"recognition_transfer:{goal}.{surrogate}."
    rows, counted = [], ""
    for condition, title in conditions.measured_conditions(titles, run.numbers, prefix).items():
        counted = counted or condition
        cells = [
            interval_cells(run.numbers, f"{prefix}{condition}.{name}.{way}.success_{rate}", "percent")
            for name in settings.networks
        ]
        found = metric_cell(run.numbers, f"{prefix}{condition}.{settings.networks[0]}.{way}.found", "percent")
        rows.append(Row(title, (*cells, found if behind else EMPTY)))
    of = [
        metric_cell(run.numbers, f"{prefix}{counted}.{name}.{way}.right_{rate}", "whole") for name in settings.networks
    ]
    rows.append(Row("of faces", (*of, EMPTY)))
    if not behind:
        rows.append(
            Row(SERVICES, (reference_cell(ORIGINAL_TRANSFER), *(MERGE_LEFT for _ in settings.networks[1:]), EMPTY))
        )
    heads = [f"{label(name)}{' (attacked itself)' if name == surrogate else ''}" for name in settings.networks]
    title = f"Transfer from {label(surrogate)}: {GOAL_TITLES[goal]}, FAR {100 * settings.false_accept_rates[0]:g} %"
    title += f", behind {label(way)}" if behind else ""
    return table(title, "faces", [*heads, "faces found"], rows, _transfer_note(goal, surrogate, way))


def _transfer_note(goal: str, surrogate: str, way: str) -> str:
    """What to mind at one table of transfer."""
    note = f"All was made by the gradient of {label(surrogate)}; the columns judge. "
    if way == "none":
        note += (
            "The authors of the original print one share, of photographs at eps 8, 12 and 16 of 255 before services "
            "that gave no gradient (BetaFace, Clarifai); it answers to no one cell here. "
        )
    elif goal == "dodge":
        note += f"A face that {label(way)} does not find counts as no longer taken for oneself. "
    else:
        note += f"A face that {label(way)} does not find is taken for nobody. "
    return f"{note}Where noise succeeds nearly as often, the attack carried over little."


def _gains(run: RunData) -> Table:
    settings = run.params.recognition_attack
    rates = [rate_key(rate) for rate in settings.false_accept_rates]
    rows = []
    for method in settings.methods:
        for each in settings.strengths:
            for name in (*settings.networks, "all"):
                prefix = f"recognition_transfer:gain.{method}.{each.eps:g}x{each.iterations}.{name}"
                spread = [(f"{prefix}.gain_{r}", (f"{prefix}.low_{r}", f"{prefix}.high_{r}")) for r in rates]
                others = "all others" if name == "all" else label(name)
                head = f"{label(method)} {conditions.format_eps(each.eps)}, on {others}"
                rows.append(Row(head, tuple(interval_cells(run.numbers, key, "points", ends) for key, ends in spread)))
    heads = [f"FAR {100 * rate:g} %" for rate in settings.false_accept_rates]
    first = label(next(iter(settings.methods)))
    note = (
        f"In percentage points (pp) of success, over {first} on the same faces, on recognisers that gave no gradient."
    )
    return table("What a method gains in transfer", "method", heads, rows, note)
