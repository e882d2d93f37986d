"""Summary tables: a few numbers of each section, with published ones beside them."""

from collections.abc import Callable, Mapping

from visor.core.tables import Row, Table, label
from visor.evaluation import conditions
from visor.evaluation.conditions import NO_DETECTOR
from visor.report.classification import WHITE_BOX
from visor.report.defences import ORIGINAL_THRESHOLD, REFERENCE, SUITE, attacks, metrics_file
from visor.report.detection import ORIGINAL_DETECTOR, published_values
from visor.report.elements import metric_cell, reference_cell, table
from visor.report.inputs import RunData

ORIGINAL_SUCCESS = "above 90 %, around 50 poisons"
SHORT_GOAL_TITLES = {
    "impersonate_nearest": "impersonation of the nearest person",
    "impersonate_furthest": "impersonation of the furthest person",
    "impersonate_named": "impersonation of a named person",
    conditions.DODGE: "dodging",
}


def summary_tables(run: RunData) -> list[Table]:
    """Return one small table per subject, without those that have no number."""
    summaries = (_backdoors, _defences, _detection, _recognition, _classification)
    return [each for each in (summarise(run) for summarise in summaries) if each.rows]


def best_or_worst(values: Mapping[str, float], metrics: Mapping[str, str], pick: Callable[..., str]) -> tuple[str, str]:
    """Return (name, metric) of the one that ``pick`` (min or max) takes; ``metrics`` maps names to metrics."""
    measured = {name: metric for name, metric in metrics.items() if metric in values}
    name = pick(measured, key=lambda each: values[measured[each]]) if measured else ""
    return name, measured.get(name, "")


def _table(title: str, rows: list[Row]) -> Table:
    return table(title, "", ("this run", "published"), rows)


def _row(run: RunData, head: str, metric: str, form: str, published: str = "") -> Row:
    return Row(head, (metric_cell(run.metrics, metric, form), reference_cell(published)))


def _backdoors(run: RunData) -> Table:
    network = run.params.inspected_network
    files = {name: f"backdoor/{network}/{name}" for name in run.params.training_sets if name != "clean"}
    success = {name: f"{file}:asr" for name, file in files.items()}
    lowest, lowest_metric = best_or_worst(run.metrics, success, min)
    highest, highest_metric = best_or_worst(run.metrics, success, max)
    worst, drop = best_or_worst(run.metrics, {name: f"{file}:clean_drop" for name, file in files.items()}, max)
    poisons = {name: f"{label(name)}, {run.metrics.get(f'{file}:n', 0):.0f} poisons" for name, file in files.items()}
    rows = [
        _row(run, f"lowest attack success ({poisons.get(lowest, '')})", lowest_metric, "percent", ORIGINAL_SUCCESS),
        _row(run, f"highest attack success ({poisons.get(highest, '')})", highest_metric, "percent"),
        _row(run, f"largest drop of clean accuracy ({label(worst)})", drop, "points"),
    ]
    return _table(f"Backdoor attacks on {label(network)}", rows)


def _defences(run: RunData) -> Table:
    threshold, reference = f"threshold/{REFERENCE}:threshold", f"defence/{REFERENCE}"
    rows = [_row(run, "threshold of the reconstruction loss", threshold, "three", ORIGINAL_THRESHOLD)]
    rows.append(_row(run, "clean faces flagged by the reference", f"{reference}/clean:fpr", "percent"))
    for defence in (REFERENCE, SUITE):
        for head, key in (
            ("attack success past", "asr_unflagged"),
            ("clean faces flagged by", "fpr_correctly_classified"),
        ):
            files = {name: f"{metrics_file(run, defence, name)}:{key}" for name in attacks(run)}
            worst, metric = best_or_worst(run.metrics, files, max)
            rows.append(_row(run, f"{head} {label(defence)}, worst ({label(worst)})", metric, "percent"))
    return _table("Detecting poisoned images", rows)


def _detection(run: RunData) -> Table:
    last = run.params.detection_attack.strengths[-1]
    attack, size = f"pgd_{last.eps}x{last.iterations}", f"{last.eps}/255 × {last.iterations}"
    rows = []
    for name in run.params.detection_attack.detectors:
        published = published_values(run, 0) if name == ORIGINAL_DETECTOR else {}
        for condition, head in (("clean", "average precision, clean"), (attack, f"attacked, {size}")):
            metric = f"detection/{name}/{condition}:ap_50"
            rows.append(_row(run, f"{label(name)}: {head}", metric, "three", published.get(condition, "")))
        rows.append(_row(run, f"{label(name)}: faces vanished", f"detection/{name}/{attack}:vanished", "percent"))
    return _table("Hiding faces from detectors", rows)


def _recognition(run: RunData) -> Table:
    settings, titles = run.params.recognition_attack, conditions.recognition_titles(run.params)
    rate, methods, rows = settings.false_accept_rates[0], [*settings.methods], []

    def add_rows(head: str, prefix: str, method: str, place: int, suffix: str) -> None:
        """Add a row of an attack's success and one of noise of its size."""
        each = settings.strengths[place]
        for condition in (f"{method}_{each.eps}x{each.iterations}", f"noise_{each.eps}"):
            metric = f"{prefix}{condition}{suffix}.success_{rate:g}"
            rows.append(_row(run, f"{head}, {titles[condition]}", metric, "percent"))

    goals = {goal: SHORT_GOAL_TITLES[goal] for goal in conditions.verification_goals(settings)}
    for name in settings.white_box:
        for goal, title in goals.items():
            add_rows(f"{label(name)}: {title}", f"recognition/{name}/{goal}:", methods[0], 0, "")
        for goal, title in goals.items():
            for network in (each for each in settings.networks if each != name):
                head, prefix = f"{label(name)}: {title} of {label(network)}", f"recognition_transfer:{goal}.{name}."
                add_rows(head, prefix, methods[-1], -1, f".{network}.{NO_DETECTOR}")
    return _table(f"Impersonation and dodging at a false-accept rate of {100 * rate:g} %", rows)


def _classification(run: RunData) -> Table:
    settings = run.params.classification_attack
    last, method = settings.strengths[-1], next(iter(settings.methods))
    attack, size = f"{method}_{last.eps}x{last.iterations}", f"{last.eps}/255"
    rows = []
    for name in settings.networks:
        for goal, title in WHITE_BOX.items():
            file = f"classification/{name}/{goal}"
            rows.append(_row(run, f"{label(name)}: {title}, {size}", f"{file}:{attack}.success", "percent"))
            rows.append(_row(run, f"{label(name)}: {title}, by noise", f"{file}:noise_{last.eps}.success", "percent"))
    return _table("Misclassification", rows)
