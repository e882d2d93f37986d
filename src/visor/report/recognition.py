"""Section on attacks on recognisers: verification, impersonation and dodging, transfer."""

from itertools import product

from visor.core.tables import EMPTY, MERGE_LEFT, CellGroup, Row, Table, label
from visor.evaluation import conditions
from visor.evaluation.conditions import NO_DETECTOR
from visor.report.elements import Figure, Section, interval_cells, metric_cell, reference_cell, section, table
from visor.report.inputs import RunData

ORIGINAL_TRANSFER = "35 %"
ORIGINAL_SETUP = "original system, on services, photographs"
GOAL_TITLES = {
    "impersonate_nearest": "accepted as the nearest other person",
    "impersonate_furthest": "accepted as the furthest other person",
    "impersonate_named": "accepted as the named person",
    conditions.DODGE: "no longer accepted as oneself",
}


def recognition_section(run: RunData) -> Section:
    """Return the tables of attacks on recognisers by their embeddings."""
    settings = run.params.recognition_attack
    networks, rates = settings.white_box, settings.false_accept_rates
    # The folders of all attacked networks hold the same verification: that of all recognisers.
    tables = [_verification(run, name, rate) for name in networks[:1] for rate in rates]
    tables += [_success(run, name, rate) for name in networks for rate in rates]
    tables += [
        _transfer(run, goal, name, detector)
        for name in networks
        for goal in conditions.verification_goals(settings)
        for detector in settings.cropping_detectors
    ]
    transfer = Figure(
        "recognition_transfer.png",
        "Success on each recogniser, by the attacked one.",
        "Heat map of success, attacks by recognisers.",
    )
    return section(
        "recognition",
        "Impersonation and dodging",
        "People that no recogniser was trained on are enrolled. A face is accepted from a threshold of similarity on, "
        "set for a stated false-accept rate (FAR). Impersonation: accepted as the target. Dodging: no longer accepted "
        "as oneself. Success is the share among faces for which this was not so when clean.",
        [*tables, _gains(run)],
        [*(figure for name in networks for figure in _figures(run, name)), transfer],
    )


def _figures(run: RunData, name: str) -> list[Figure]:
    folder = f"recognition/{name}"
    return [
        *(
            Figure(
                f"{folder}/faces_{method}.png",
                f"Faces before and after {label(method)} on {label(name)}, and the amplified change.",
                f"Contact sheet: faces before, after, and the perturbation of {label(method)}.",
            )
            for method in run.params.recognition_attack.methods
        ),
        Figure(f"{folder}/success.png", f"Success on {label(name)} by size.", "Curves of success over eps."),
        Figure(
            f"{folder}/similarities.png",
            "Similarities before and after, and the thresholds.",
            "Histograms of similarities, one plot for each recogniser.",
        ),
    ]


def _verification(run: RunData, white_box: str, rate: float) -> Table:
    settings = run.params.recognition_attack
    rows = []
    for name in settings.networks:
        for detector in settings.cropping_detectors:
            prefix = f"recognition/{white_box}/verification:{name}.{detector}"
            groups = (
                interval_cells(run.metrics, f"{prefix}.auc", "three"),
                metric_cell(run.metrics, f"{prefix}.threshold_{rate:g}", "three"),
                interval_cells(run.metrics, f"{prefix}.far_{rate:g}", "percent"),
                interval_cells(run.metrics, f"{prefix}.tar_{rate:g}", "percent"),
                metric_cell(run.metrics, f"{prefix}.pairs_same", "whole"),
                metric_cell(run.metrics, f"{prefix}.not_found", "percent"),
            )
            rows.append(Row(f"{'' if detector == NO_DETECTOR else f'{label(detector)} → '}{label(name)}", groups))
    heads = ["AUC", "threshold", "false accepts", "true accepts (TAR)", "of faces", "faces not detected"]
    note = (
        "Enrolment, the images that set the threshold and those of all other numbers share no video. Intervals are "
        "over people. A → B: detector A crops the face for recogniser B."
    )
    title = f"Verification of people that no recogniser was trained on, threshold for FAR {100 * rate:g} %"
    return table(title, "recogniser", heads, rows, note)


def _success(run: RunData, name: str, rate: float) -> Table:
    goals, rows = conditions.verification_goals(run.params.recognition_attack), []
    for condition, title in conditions.recognition_titles(run.params).items():
        groups: list[CellGroup] = []
        for goal in goals:
            prefix = f"recognition/{name}/{goal}:{condition}"
            groups += [
                interval_cells(run.metrics, f"{prefix}.success_{rate:g}", "percent"),
                metric_cell(run.metrics, f"{prefix}.right_{rate:g}", "whole"),
                metric_cell(run.metrics, f"{prefix}.linf", "whole"),
                metric_cell(run.metrics, f"{prefix}.ssim", "three"),
            ]
        rows.append(Row(title, tuple(groups)))
    heads = [head for goal in goals for head in (GOAL_TITLES[goal], "of faces", "L∞", "SSIM")]
    return table(f"White-box attacks on {label(name)}, FAR {100 * rate:g} %", "faces", heads, rows)


def _transfer(run: RunData, goal: str, white_box: str, detector: str) -> Table:
    settings, titles = run.params.recognition_attack, conditions.recognition_titles(run.params)
    rate, has_detector = settings.false_accept_rates[0], detector != NO_DETECTOR
    prefix = f"recognition_transfer:{goal}.{white_box}."
    measured = conditions.measured_conditions(titles, run.metrics, prefix)
    rows = []
    for condition, title in measured.items():
        keys = [f"{prefix}{condition}.{name}.{detector}" for name in settings.networks]
        groups = [interval_cells(run.metrics, f"{key}.success_{rate:g}", "percent") for key in keys]
        detected = metric_cell(run.metrics, f"{keys[0]}.found", "percent") if has_detector else EMPTY
        rows.append(Row(title, (*groups, detected)))
    counts = [f"{prefix}{next(iter(measured), '')}.{name}.{detector}.right_{rate:g}" for name in settings.networks]
    rows.append(Row("of faces", (*(metric_cell(run.metrics, key, "whole") for key in counts), EMPTY)))
    if not has_detector:
        published = (reference_cell(ORIGINAL_TRANSFER), *(MERGE_LEFT for _ in settings.networks[1:]), EMPTY)
        rows.append(Row(ORIGINAL_SETUP, published))
    heads = [f"{label(name)}{' (white box)' if name == white_box else ''}" for name in settings.networks]
    title = f"Transfer from {label(white_box)}: {GOAL_TITLES[goal]}, FAR {100 * rate:g} %"
    title += f", cropped by {label(detector)}" if has_detector else ""
    return table(title, "faces", [*heads, "faces detected"], rows, _transfer_note(goal, white_box, detector))


def _transfer_note(goal: str, white_box: str, detector: str) -> str:
    """Return what to mind when reading one table of transfer."""
    if detector == NO_DETECTOR:
        middle = (
            "The authors of the original system published one share, of photographs at eps 8, 12 and 16 of 255 on "
            "services that gave no gradient (BetaFace, Clarifai); it corresponds to no single cell here."
        )
    else:
        outcome = "no longer accepted as oneself" if goal == conditions.DODGE else "not accepted as the target"
        middle = f"A face that {label(detector)} does not detect counts as {outcome}."
    return (
        f"All images were made with the gradient of {label(white_box)} and evaluated on the networks of the columns. "
        f"{middle} Where noise succeeds nearly as often, the attack transferred little."
    )


def _gains(run: RunData) -> Table:
    settings = run.params.recognition_attack
    rows = []
    for goal, method, each in product(conditions.verification_goals(settings), settings.methods, settings.strengths):
        for name in (*settings.networks, "all"):
            prefix = f"recognition_transfer:gain.{goal}.{method}.{each.eps}x{each.iterations}.{name}."
            groups: list[CellGroup] = []
            for rate in settings.false_accept_rates:
                ends = f"{prefix}low_{rate:g}", f"{prefix}high_{rate:g}"
                groups.append(interval_cells(run.metrics, f"{prefix}gain_{rate:g}", "points", ends))
                groups.append(metric_cell(run.metrics, f"{prefix}faces_{rate:g}", "whole"))
            groups += [metric_cell(run.metrics, f"{prefix}{key}", "three") for key in ("ssim", "ssim_first")]
            network = "all others" if name == "all" else label(name)
            rows.append(Row(f"{label(goal)}: {label(method)} {each.eps}/255, on {network}", tuple(groups)))
    heads = [head for rate in settings.false_accept_rates for head in (f"FAR {100 * rate:g} %", "of faces")]
    first = label(next(iter(settings.methods)))
    note = (
        f"In percentage points (pp) of success, compared with {first} on the same faces, on recognisers that gave no "
        "gradient. Each goal by itself: dodging transfers more easily than impersonation. SSIM is what is left of the "
        "image at the same L∞."
    )
    return table("Gain in transfer by method", "method", [*heads, "SSIM", f"SSIM of {first}"], rows, note)
