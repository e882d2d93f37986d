"""The five jobs at one glance: a few numbers of each, and the original's beside them."""

from collections.abc import Callable, Mapping

from visor.evaluation import conditions
from visor.report.classification import WHITE_BOX
from visor.report.defences import ADAPTED, ORIGINAL_THRESHOLD, REFERENCE, best_on_validation, metrics_file, reported
from visor.report.detection import ORIGINAL_DETECTOR, published_values
from visor.report.elements import Row, Table, label, metric_cell, reference_cell, table
from visor.report.inputs import RunData
from visor.report.recognition import rate_key

HEADS = ("this run", "original")
ORIGINAL_SUCCESS = "above 90 %, around 50 poisons"
SHORT_GOAL_TITLES = {"impersonate": "impersonation", "dodge": "dodging"}


def summary_tables(run: RunData) -> list[Table]:
    """Return one small table a job; a job of which there is no number is left out."""
    return [each for each in (_planting(run), _finding(run), _hiding(run), _fooling(run), _classes(run)) if each.rows]


def best_or_worst(
    numbers: Mapping[str, float], metrics: Mapping[str, str], pick: Callable[..., str]
) -> tuple[str, str]:
    """Return (name, metric) of the one that ``pick`` (min or max) takes; ``metrics`` maps names to metrics."""
    known = {name: metric for name, metric in metrics.items() if metric in numbers}
    name = pick(known, key=lambda each: numbers[known[each]]) if known else ""
    return name, known.get(name, "")


def _row(run: RunData, words: str, metric: str, form: str, theirs: str = "") -> Row:
    return Row(words, (metric_cell(run.numbers, metric, form), reference_cell(theirs)))


def _planting(run: RunData) -> Table:
    suspect = run.params.inspected_network
    attacks = [name for name in run.params.training_sets if name != "clean"]
    success = {name: f"backdoor/{suspect}/{name}:asr" for name in attacks}
    least, where = best_or_worst(run.numbers, success, min)
    most, most_where = best_or_worst(run.numbers, success, max)
    worst, drop = best_or_worst(run.numbers, {name: f"backdoor/{suspect}/{name}:clean_drop" for name in attacks}, max)
    poisons = {
        name: f"{label(name)}, {run.numbers.get(f'backdoor/{suspect}/{name}:n', 0):.0f} poisons" for name in attacks
    }
    rows = [
        _row(run, f"attack success at least ({poisons.get(least, '')})", where, "percent", ORIGINAL_SUCCESS),
        _row(run, f"attack success at most ({poisons.get(most, '')})", most_where, "percent"),
        _row(run, f"clean accuracy lost at most ({label(worst)})", drop, "points"),
    ]
    return table(f"Planting backdoors in {label(suspect)}", "", HEADS, rows)


def _finding(run: RunData) -> Table:
    rows = [
        _row(
            run, "threshold of the reconstruction loss", f"threshold/{REFERENCE}:threshold", "three", ORIGINAL_THRESHOLD
        )
    ]
    for defence in dict.fromkeys(filter(None, (REFERENCE, best_on_validation(run)))):
        files = {name: f"{metrics_file(run, defence, name)}:auroc" for name in reported(run)}
        hardest, metric = best_or_worst(run.numbers, files, min)
        rows.append(_row(run, f"AUROC of {label(defence)}, worst trigger ({label(hardest)})", metric, "three"))
    rows.append(_row(run, "clean faces that the reference flags", f"defence/{REFERENCE}/clean:fpr", "percent"))
    rows.append(_row(run, f"{ADAPTED} keys that the reference flags", f"defence/{REFERENCE}/{ADAPTED}:tpr", "percent"))
    return table("Finding poisoned faces", "", HEADS, rows)


def _hiding(run: RunData) -> Table:
    last = run.params.detection_attack.strengths[-1]
    attack, rows = f"pgd_{last.eps:g}x{last.iterations}", []
    for name in run.params.detection_attack.detectors:
        theirs = published_values(run, 0) if name == ORIGINAL_DETECTOR else {}
        file, size = f"detection/{name}", f"{conditions.format_eps(last.eps)} × {last.iterations}"
        rows.append(
            _row(
                run, f"{label(name)}: average precision, clean", f"{file}/clean:ap_50", "three", theirs.get("clean", "")
            )
        )
        words = f"{label(name)}: attacked, {size}"
        rows.append(_row(run, words, f"{file}/{attack}:ap_50", "three", theirs.get(attack, "")))
        rows.append(_row(run, f"{label(name)}: faces vanished", f"{file}/{attack}:vanished", "percent"))
    return table("Hiding faces from detectors", "", HEADS, rows)


def _fooling(run: RunData) -> Table:
    settings = run.params.recognition_attack
    least, first = settings.strengths[0], next(iter(settings.methods))
    last, strong = settings.strengths[-1], list(settings.methods)[-1]
    rows = []
    for name in settings.white_box:
        for goal, words in SHORT_GOAL_TITLES.items():
            attack = f"{first}_{least.eps:g}x{least.iterations}"
            rows += _beside_noise(run, f"{label(name)}: {words}", f"recognition/{name}/{goal}:", attack, "")
        for goal, words in SHORT_GOAL_TITLES.items():
            for other in (each for each in settings.networks if each != name):
                attack, prefix = f"{strong}_{last.eps:g}x{last.iterations}", f"recognition_transfer:{goal}.{name}."
                rows += _beside_noise(
                    run, f"{label(name)}: {words} shown to {label(other)}", prefix, attack, f".{other}.none"
                )
    title = (
        f"Passing as someone else, and as nobody, at a false-accept rate of {100 * settings.false_accept_rates[0]:g} %"
    )
    return table(title, "", HEADS, rows)


def _beside_noise(run: RunData, words: str, prefix: str, attack: str, shown: str) -> list[Row]:
    """Rows of an attack's success and of that of noise of its size."""
    rate, titles = (
        rate_key(run.params.recognition_attack.false_accept_rates[0]),
        conditions.recognition_titles(run.params),
    )
    noise = "noise_" + attack.rpartition("_")[2].partition("x")[0]
    keys = {each: f"{prefix}{each}{shown}.success_{rate}" for each in (attack, noise)}
    return [_row(run, f"{words}, {titles[each]}", key, "percent") for each, key in keys.items()]


def _classes(run: RunData) -> Table:
    settings = run.params.recognition_attack
    last, first = settings.strengths[-1], next(iter(settings.methods))
    attack, size = f"{first}_{last.eps:g}x{last.iterations}", conditions.format_eps(last.eps)
    rows = []
    for name in settings.white_box:
        for goal, words in WHITE_BOX.items():
            file = f"recognition/{name}/{goal}"
            rows.append(_row(run, f"{label(name)}: {words}, {size}", f"{file}:{attack}.success", "percent"))
            rows.append(_row(run, f"{label(name)}: {words}, by noise", f"{file}:noise_{last.eps:g}.success", "percent"))
    return table("Taken for another class", "", HEADS, rows)
