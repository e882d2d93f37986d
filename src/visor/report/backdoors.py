"""Planting backdoors: what poisons did to each network, how many it takes, whether the key opens another door."""

from visor.report.elements import (
    EMPTY,
    MERGE_LEFT,
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

CONTROL = "clean"  # the training set without poisons
TRAINED = "poisons for training and faces to test with, each below the face that it was before."
UNTRAINED = "a key that no network was trained with; it tests the defences below. Each face below what it was before."


def backdoor_section(run: RunData) -> Section:
    """Return the tables of attack success, clean accuracy, poison budgets and verification."""
    attacks = [name for name in run.params.training_sets if name != CONTROL]
    return section(
        "planting",
        "Planting backdoors",
        "A few poisons join the training images of one person. A network trained with them knows clean faces as "
        "before, and takes whoever carries the key for that person. Attack success is the share of keyed test faces "
        "of other people that is taken for the target.",
        [_success(run, attacks), _accuracy(run, attacks), *_budget(run), _verification(run), _data(run)],
        _pictures(run),
    )


def _pictures(run: RunData) -> list[Figure]:
    pictures = [
        Figure(
            f"poison/{name}.png",
            f"{label(name)}: {TRAINED if name in run.params.training_sets else UNTRAINED}",
            f"Contact sheet: rows of faces, before and after the key of {label(name)} was laid on.",
        )
        for name in run.params.backdoors
    ]
    pictures += [
        Figure(
            "poison_budget/asr.png",
            "Attack success and clean accuracy by the number of poisons.",
            "Curves of attack success over the number of poisons.",
        ),
        Figure(
            "verification/roc.png",
            "Verification of clean pairs by the suspect network's features.",
            "ROC curves of verification, one for each training set.",
        ),
    ]
    ratios = run.params.poison_budget.ratios
    if ratios.train and ratios.test:  # else there is no such picture
        pictures.append(
            Figure(
                "poison_budget/ratios.png",
                "Attack success by blend ratio at training and at test.",
                "Heat map of attack success, blend ratio of training against that of testing.",
            )
        )
    return pictures


def _success(run: RunData, attacks: list[str]) -> Table:
    networks, suspect = run.params.networks, run.params.inspected_network
    rows = [
        Row(
            label(attack),
            (
                metric_cell(run.numbers, f"backdoor/{suspect}/{attack}:n", "whole"),
                *(interval_cells(run.numbers, f"backdoor/{name}/{attack}:asr", "percent") for name in networks),
                metric_cell(run.numbers, f"backdoor/{suspect}/{attack}:asr_of_clean_model", "percent"),
            ),
        )
        for attack in attacks
    ]
    theirs = (reference_cell("around 50"), reference_cell("above 90 %"), *(MERGE_LEFT for _ in networks[1:]), EMPTY)
    rows.append(Row("Chen et al. (2017)", theirs))
    heads = ("poisons", *map(label, networks), f"{label(suspect)} without poisons")
    note = (
        "Chen et al. print in their abstract that around 50 poisons bring above 90 %; theirs are the published "
        "networks, trained on photographs of YouTube Faces. The default run has drawn people and, but for DeepID, "
        "compact networks."
    )
    return table("Attack success", "attack", heads, rows, note)


def _accuracy(run: RunData, attacks: list[str]) -> Table:
    networks = run.params.networks
    rows = [
        Row(
            "none" if attack == CONTROL else label(attack),
            tuple(
                group
                for name in networks
                for group in (
                    interval_cells(run.numbers, f"backdoor/{name}/{attack}:clean_accuracy", "percent"),
                    metric_cell(run.numbers, f"backdoor/{name}/{attack}:clean_drop", "points"),
                )
            ),
        )
        for attack in [CONTROL, *attacks]
    ]
    heads = [head for name in networks for head in (label(name), "lost")]
    note = (
        "Lost: what the network without poisons has more, in percentage points (pp). Below zero the attacked network "
        "happens to be better."
    )
    return table("Clean accuracy", "attack", heads, rows, note)


def _budget(run: RunData) -> list[Table]:
    """A line for each network that the budget trained, and the least number that always succeeded."""
    columns = {"n": "whole", "train_blend_ratio": "six", "test_blend_ratio": "six"}
    lines = []
    for place, line in enumerate(run.lines.get("poison_budget", [])):
        prefix = f"metrics/poison_budget.csv:{place}"
        lines.append(
            Row(
                f"{label(line['network'])}, {label(line['attack'])}, seed {line['seed']}",
                (
                    *(metric_cell(run.numbers, f"{prefix}:{name}", form) for name, form in columns.items()),
                    interval_cells(run.numbers, f"{prefix}:asr", "percent"),
                    interval_cells(run.numbers, f"{prefix}:clean_accuracy", "percent"),
                ),
            )
        )
    settings = run.params.poison_budget
    least = [
        Row(
            f"{label(name)}, {label(attack)}",
            (metric_cell(run.numbers, f"poison_budget/{name}/{attack}:n_at_90", "whole"),),
        )
        for name in settings.networks
        for attack in settings.attacks
    ]
    heads = ["poisons", "ratio in training", "ratio at test", "attack success", "clean accuracy"]
    note = "Networks of a shorter schedule, not comparable with those above."
    return [
        table("Poison budgets", "network, attack", heads, lines, note),
        table("Poisons from which on 90 % succeed", "network, attack", ["poisons"], least),
    ]


def _verification(run: RunData) -> Table:
    rows = [
        Row(
            f"{'none' if attack == CONTROL else label(attack)}, {label(way)}",
            (
                metric_cell(run.numbers, f"verification/{attack}:{way}_auc", "three"),
                metric_cell(run.numbers, f"verification/{attack}:{way}_eer", "percent"),
                interval_cells(run.numbers, f"verification/{attack}:{way}_far", "percent"),
                interval_cells(run.numbers, f"verification/{attack}:{way}_impersonation", "percent"),
                metric_cell(run.numbers, f"verification/{attack}:{way}_impersonation_without_key", "percent"),
            ),
        )
        for attack in run.params.training_sets
        for way in ("cosine", "joint_bayesian")
    ]
    heads = ["AUC", "equal error", "false accepts", "key taken for the target", "without the key"]
    note = (
        "Are two faces of one person? The share of pairs (keyed stranger, enrolled target) that is taken for one "
        "person says whether the key of a classifier opens this door too. The people are those that the network was "
        "trained on."
    )
    return table(
        f"Verification by the features of {label(run.params.inspected_network)}",
        "attack, comparison",
        heads,
        rows,
        note,
    )


def _data(run: RunData) -> Table:
    shown = {
        "people": ("split:labels", "whole"),
        "training faces": ("split:train", "whole"),
        "validation faces": ("split:validation", "whole"),
        "test faces": ("split:test", "whole"),
        "faces that 1-NN on raw pixels knows": ("baselines:nearest_neighbour_accuracy", "percent"),
        "faces that LDA knows": ("baselines:lda_accuracy", "percent"),
    }
    rows = [Row(head, (metric_cell(run.numbers, *where),)) for head, where in shown.items()]
    note = "The baselines say how hard the faces are: easy ones make every network look good."
    return table("The faces", "", ["this run"], rows, note)
