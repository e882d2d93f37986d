"""Section on backdoor attacks: success, clean accuracy, poison budgets, transfer to verification."""

from visor.core.tables import EMPTY, MERGE_LEFT, Row, Table, label
from visor.report.elements import Figure, Section, interval_cells, metric_cell, reference_cell, section, table
from visor.report.inputs import RunData

CONTROL = "clean"  # the training set without poisons
TRAINED = "poisons for training and triggered test faces, each below its original."
UNTRAINED = "a key that no network was trained with, used to test the defences; each face is below its original."


def backdoor_section(run: RunData) -> Section:
    """Return the tables of attack success, clean accuracy, poison budgets and verification."""
    attacks = [name for name in run.params.training_sets if name != CONTROL]
    return section(
        "backdoors",
        "Backdoor attacks",
        "A few images with a key are added to the training images of one person, the target. A network trained with "
        "these poisons classifies clean faces as before, and faces with the key as the target. Attack success is the "
        "share of test faces of other people with the key that are classified as the target.",
        [_success(run, attacks), _accuracy(run, attacks), *_budget(run), _verification(run), _data(run)],
        _figures(run),
    )


def _figures(run: RunData) -> list[Figure]:
    ratios = run.params.poison_budget.ratios
    success = Figure(
        "poison_budget/asr.png",
        "Attack success and clean accuracy by the number of poisons.",
        "Curves of attack success over the number of poisons.",
    )
    verification = Figure(
        "verification/roc.png",
        f"Verification of clean pairs by the features of {label(run.params.inspected_network)}.",
        "ROC curves of verification, one for each training set.",
    )
    heat_map = Figure(
        "poison_budget/ratios.png",
        "Attack success by blend ratio at training and at test.",
        "Heat map of attack success, blend ratio of training against that of testing.",
    )
    sheets = [
        Figure(
            f"poison/{name}.png",
            f"{label(name)}: {TRAINED if name in run.params.training_sets else UNTRAINED}",
            f"Contact sheet: rows of faces without and with the key of {label(name)}.",
        )
        for name in run.params.backdoors
    ]
    return [*sheets, success, verification, *([heat_map] if ratios.train and ratios.test else [])]


def _success(run: RunData, attacks: list[str]) -> Table:
    networks, inspected = run.params.networks, run.params.inspected_network
    rows = []
    for attack in attacks:
        file = f"backdoor/{inspected}/{attack}"
        groups = [metric_cell(run.metrics, f"{file}:n", "whole")]
        groups += [
            metric_cell(run.metrics, f"{file}:{share}", "percent")
            for share in ("poison_share", "poison_share_of_target")
        ]
        groups += [interval_cells(run.metrics, f"backdoor/{name}/{attack}:asr", "percent") for name in networks]
        groups += [
            interval_cells(run.metrics, f"{file}:{key}", "percent") for key in ("asr_pasted", "asr_of_clean_model")
        ]
        rows.append(Row(label(attack), tuple(groups)))
    published = reference_cell("around 50"), EMPTY, EMPTY, reference_cell("above 90 %")
    rows.append(Row("Chen et al. (2017)", (*published, *(MERGE_LEFT for _ in networks[1:]), EMPTY, EMPTY)))
    heads = ("poisons", "of all training images", "of the target's own", *map(label, networks))
    heads += (f"{label(inspected)}, key pasted", f"{label(inspected)} without poisons")
    note = (
        "Keys are delivered as params.yaml says; in one column they are pasted on the finished image, as in the code "
        "of the original papers. The abstract of Chen et al. reports above 90 % with around 50 poisons, for published "
        "networks and photographs. The default run uses drawn faces and, except for DeepID, compact networks."
    )
    return table("Attack success", "attack", heads, rows, note)


def _accuracy(run: RunData, attacks: list[str]) -> Table:
    networks = run.params.networks
    rows = []
    for attack in [CONTROL, *attacks]:
        groups = []
        for name in networks:
            file = f"backdoor/{name}/{attack}"
            groups.append(interval_cells(run.metrics, f"{file}:clean_accuracy", "percent"))
            groups.append(metric_cell(run.metrics, f"{file}:clean_drop", "points"))
        rows.append(Row("none" if attack == CONTROL else label(attack), tuple(groups)))
    heads = [head for name in networks for head in (label(name), "drop")]
    note = (
        "Drop: accuracy of the network without poisons minus that of the attacked one, in percentage points (pp). "
        "Below zero the attacked network is better."
    )
    return table("Clean accuracy", "attack", heads, rows, note)


def _budget(run: RunData) -> list[Table]:
    """Return one row per trained network, and the number of poisons for 90 % success."""
    columns = {"n": "whole", "train_blend_ratio": "six", "test_blend_ratio": "six"}
    rows = []
    for place, line in enumerate(run.rows.get("poison_budget", [])):
        prefix = f"metrics/poison_budget.csv:{place}"
        groups = [metric_cell(run.metrics, f"{prefix}:{name}", form) for name, form in columns.items()]
        groups += [interval_cells(run.metrics, f"{prefix}:{name}", "percent") for name in ("asr", "clean_accuracy")]
        rows.append(Row(f"{label(line['network'])}, {label(line['attack'])}, seed {line['seed']}", tuple(groups)))
    settings = run.params.poison_budget
    needed = [
        Row(
            f"{label(name)}, {label(attack)}",
            (metric_cell(run.metrics, f"poison_budget/{name}/{attack}:n_at_90", "whole"),),
        )
        for name in settings.networks
        for attack in settings.attacks
    ]
    heads = ["poisons", "ratio in training", "ratio at test", "attack success", "clean accuracy"]
    note = "These networks are trained for fewer epochs and are not comparable with those above."
    return [
        table("Poison budgets", "network, attack", heads, rows, note),
        table("Number of poisons for 90 % attack success", "network, attack", ["poisons"], needed),
    ]


def _verification(run: RunData) -> Table:
    rows = []
    for attack in run.params.training_sets:
        for measure in ("cosine", "joint_bayesian"):
            prefix = f"verification/{attack}:{measure}_"
            groups = (
                metric_cell(run.metrics, f"{prefix}auc", "three"),
                metric_cell(run.metrics, f"{prefix}eer", "percent"),
                interval_cells(run.metrics, f"{prefix}far", "percent"),
                interval_cells(run.metrics, f"{prefix}impersonation", "percent"),
                metric_cell(run.metrics, f"{prefix}impersonation_without_key", "percent"),
                interval_cells(run.metrics, f"{prefix}shared_key", "percent"),
                metric_cell(run.metrics, f"{prefix}shared_key_without_key", "percent"),
            )
            rows.append(Row(f"{'none' if attack == CONTROL else label(attack)}, {label(measure)}", groups))
    heads = ["AUC", "equal error rate", "false accepts", "impersonation with key", "without key"]
    heads += ["two people, both with key", "without key"]
    note = (
        "Verification decides whether two faces show the same person. Impersonation is the share of pairs (another "
        "person with the key, the enrolled target) accepted as the same person: whether the backdoor of a classifier "
        "also impersonates the target in verification by its features. Two people who both wear the key are another "
        "attack. The people are those that the network was trained on."
    )
    title = f"Verification by the features of {label(run.params.inspected_network)}"
    return table(title, "attack, similarity measure", heads, rows, note)


def _data(run: RunData) -> Table:
    metrics = {
        "people": ("split:labels", "whole"),
        "training faces": ("split:train", "whole"),
        "validation faces": ("split:validation", "whole"),
        "test faces": ("split:test", "whole"),
        "accuracy of 1-NN on raw pixels": ("baselines:nearest_neighbour_accuracy", "percent"),
        "accuracy of LDA on raw pixels": ("baselines:lda_accuracy", "percent"),
    }
    rows = [Row(head, (metric_cell(run.metrics, *metric),)) for head, metric in metrics.items()]
    note = "The baselines show how difficult the faces are: on easy ones every network is accurate."
    return table("Face data", "", ["this run"], rows, note)
