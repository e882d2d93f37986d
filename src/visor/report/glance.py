"""The five jobs at one glance: a few numbers of each, and the original's beside them."""

from collections.abc import Callable, Mapping

from visor.report import conditions
from visor.report.cells import Row, Table, number, plain, published, table
from visor.report.classes import WHITE_BOX
from visor.report.finding import ADAPTED, ORIGINAL_THRESHOLD, REFERENCE, best_on_validation, file_of, reported
from visor.report.fooling import ORIGINAL_TRANSFER, at
from visor.report.hiding import originals
from visor.report.reading import Run

HEADS = ("this run", "original")


def glance(run: Run) -> list[Table]:
    """Return one small table a job; a job of which there is no number is left out."""
    return [each for each in (_planting(run), _finding(run), _hiding(run), _fooling(run), _classes(run)) if each.rows]


def extreme(numbers: Mapping[str, float], metrics: Mapping[str, str], pick: Callable[..., str]) -> tuple[str, str]:
    """Return (name, metric) of the one that ``pick`` (min or max) takes; ``metrics`` maps names to metrics."""
    known = {name: metric for name, metric in metrics.items() if metric in numbers}
    name = pick(known, key=lambda each: numbers[known[each]]) if known else ""
    return name, known.get(name, "")


def _row(run: Run, words: str, metric: str, form: str, theirs: str = "") -> Row:
    return Row(words, (number(run.numbers, metric, form), published(theirs)))


def _planting(run: Run) -> Table:
    suspect = run.params.suspect
    attacks = [name for name in run.params.training_sets if name != "clean"]
    success = {name: f"backdoor/{suspect}/{name}:asr" for name in attacks}
    least, where = extreme(run.numbers, success, min)
    most, most_where = extreme(run.numbers, success, max)
    worst, drop = extreme(run.numbers, {name: f"backdoor/{suspect}/{name}:clean_drop" for name in attacks}, max)
    rows = [
        _row(run, f"attack success at least ({plain(least)})", where, "percent", "above 90 %"),
        _row(run, f"attack success at most ({plain(most)})", most_where, "percent"),
        _row(run, f"clean accuracy lost at most ({plain(worst)})", drop, "points"),
    ]
    return table(f"Planting backdoors in {plain(suspect)}", "", HEADS, rows)


def _finding(run: Run) -> Table:
    rows = [
        _row(
            run, "threshold of the reconstruction loss", f"threshold/{REFERENCE}:threshold", "three", ORIGINAL_THRESHOLD
        )
    ]
    for defence in dict.fromkeys(filter(None, (REFERENCE, best_on_validation(run)))):
        files = {name: f"{file_of(run, defence, name)}:auroc" for name in reported(run)}
        hardest, metric = extreme(run.numbers, files, min)
        rows.append(_row(run, f"AUROC of {plain(defence)}, worst trigger ({plain(hardest)})", metric, "three"))
    rows.append(_row(run, "clean faces that the reference flags", f"defence/{REFERENCE}/clean:fpr", "percent"))
    rows.append(_row(run, f"{ADAPTED} keys that the reference flags", "adaptation:tpr", "percent"))
    return table("Finding poisoned faces", "", HEADS, rows)


def _hiding(run: Run) -> Table:
    last = run.params.hiding.strengths[-1]
    attack, theirs = f"pgd_{last.eps:g}x{last.iterations}", originals(run, 0)
    rows = []
    for name in run.params.hiding.detectors:
        file, size = f"detection/{name}", f"{conditions.level(last.eps)} × {last.iterations}"
        rows.append(
            _row(run, f"{plain(name)}: average precision, clean", f"{file}/clean:ap_50", "three", theirs["clean"])
        )
        words = f"{plain(name)}: attacked, {size}"
        rows.append(_row(run, words, f"{file}/{attack}:ap_50", "three", theirs.get(attack, "")))
        rows.append(_row(run, f"{plain(name)}: faces vanished", f"{file}/{attack}:vanished", "percent"))
    return table("Hiding faces from detectors", "", HEADS, rows)


def _fooling(run: Run) -> Table:
    settings = run.params.recognition
    rate, least, last = at(settings.false_accept_rates[0]), settings.strengths[0], settings.strengths[-1]
    first, strong = next(iter(settings.methods)), list(settings.methods)[-1]
    rows = []
    for name in settings.surrogates:
        for goal, words in (("impersonate", "impersonation"), ("dodge", "dodging")):
            file, size = f"recognition/{name}/{goal}", conditions.level(least.eps)
            key = f"{file}:{first}_{least.eps:g}x{least.iterations}.success_{rate}"
            rows.append(_row(run, f"{plain(name)}: {words}, {size}", key, "percent"))
            rows.append(
                _row(run, f"{plain(name)}: {words} by noise", f"{file}:noise_{least.eps:g}.success_{rate}", "percent")
            )
        attack, size = f"{strong}_{last.eps:g}x{last.iterations}", conditions.level(last.eps)
        for goal, words in (("impersonate", "impersonation"), ("dodge", "dodging")):
            others = [other for other in settings.trained if other != name]
            cells = {o: f"recognition_transfer:{goal}.{name}.{attack}.{o}.none.success_{rate}" for o in others}
            best, metric = extreme(run.numbers, cells, max)
            rows.append(
                _row(run, f"{words} carried over to {plain(best)}, {size}", metric, "percent", ORIGINAL_TRANSFER)
            )
    return table("Passing as someone else, and as nobody", "", HEADS, rows)


def _classes(run: Run) -> Table:
    settings = run.params.recognition
    last, first = settings.strengths[-1], next(iter(settings.methods))
    attack, size = f"{first}_{last.eps:g}x{last.iterations}", conditions.level(last.eps)
    rows = []
    for name in settings.surrogates:
        for goal, words in WHITE_BOX.items():
            file = f"recognition/{name}/{goal}"
            rows.append(_row(run, f"{plain(name)}: {words}, {size}", f"{file}:{attack}.success", "percent"))
            rows.append(_row(run, f"{plain(name)}: {words}, by noise", f"{file}:noise_{last.eps:g}.success", "percent"))
    return table("Taken for another class", "", HEADS, rows)
