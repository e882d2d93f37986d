"""Questioning training sets and suspect networks: who finds the poisons, the key, the channels of a backdoor."""

from visor.report.elements import Figure, Row, Section, Table, interval_cells, label, metric_cell, section, table
from visor.report.inputs import RunData


def inspection_section(run: RunData) -> Section:
    """Return the tables of sanitisation, Neural Cleanse, fine-pruning and saliency."""
    return section(
        "questioning",
        "Questioning networks and training sets",
        f"Without a poisoned face at hand one can search the training set, or question the network "
        f"({label(run.params.inspected_network)}) itself.",
        [_sanitisation(run), _cleanse(run), _pruning(run), _saliency(run)],
        [
            Figure(
                "inspection/neural_cleanse.png",
                "Reversed triggers.",
                "The masks and patterns that Neural Cleanse found.",
            ),
            Figure(
                "inspection/fine_pruning.png",
                "Accuracy and attack success by the share of pruned channels.",
                "Curves of accuracy and attack success over pruning.",
            ),
            Figure(
                "inspection/saliency.png",
                "Where the network looks: keyed faces and integrated gradients.",
                "Contact sheet of keyed faces and saliency maps, attacked network and clean one.",
            ),
        ],
    )


def _sanitisation(run: RunData) -> Table:
    rows = []
    for attack in run.params.inspection.training_filtering.attacks:
        prefix, suffix = f"inspection/{attack}/", ":label_auroc"
        methods = [
            key[len(prefix) : -len(suffix)] for key in run.numbers if key.startswith(prefix) and key.endswith(suffix)
        ]
        for method in sorted(methods):
            file = f"{prefix}{method}"
            rows.append(
                Row(
                    f"{label(attack)}, {label(method)}",
                    (
                        metric_cell(run.numbers, f"{file}:poisons", "whole"),
                        interval_cells(run.numbers, f"{file}:auroc", "three"),
                        interval_cells(run.numbers, f"{file}:label_auroc", "three"),
                        metric_cell(run.numbers, f"{file}:recall", "percent"),
                        metric_cell(run.numbers, f"{file}:precision", "percent"),
                    ),
                )
            )
    heads = ["poisons", "AUROC, all images", "AUROC, target's images", "poisons flagged", "flagged that are poisons"]
    note = (
        "Both methods take poisons for a minority of their label; where they are none, an AUROC far below 0.5 shows it."
    )
    return table("Poisons in the training set", "attack, method", heads, rows, note)


def _cleanse(run: RunData) -> Table:
    rows = []
    for attack in dict.fromkeys([*run.params.inspection.neural_cleanse.attacks, "clean"]):
        file = f"inspection/{attack}/neural_cleanse"
        rows.append(
            Row(
                "no backdoor" if attack == "clean" else label(attack),
                (
                    metric_cell(run.numbers, f"{file}:rank", "whole"),
                    metric_cell(run.numbers, f"{file}:norm", "one"),
                    metric_cell(run.numbers, f"{file}:median_norm", "one"),
                    metric_cell(run.numbers, f"{file}:anomaly_index", "three"),
                    metric_cell(run.numbers, f"{file}:largest_anomaly_index", "three"),
                    metric_cell(run.numbers, f"{file}:outliers", "whole"),
                ),
            )
        )
    heads = ["rank of the target", "its mask", "median mask", "its anomaly index", "largest of the others", "outliers"]
    note = (
        "Rank 1: the smallest mask that sends all faces to one label belongs to the planted one. The paper calls "
        "labels with an index of 2 or more outliers. Settings were tuned on these networks: the rank is no "
        "independent result."
    )
    return table("Neural Cleanse", "network", heads, rows, note)


def _pruning(run: RunData) -> Table:
    rows = [
        Row(
            f"{label(line['attack'])}, channels pruned: {float(line['fraction']):.0%}",
            tuple(
                metric_cell(run.numbers, f"metrics/fine_pruning.csv:{place}:{key}", "percent")
                for key in ("accuracy", "asr", "tuned_accuracy", "tuned_asr")
            ),
        )
        for place, line in enumerate(run.lines.get("fine_pruning", []))
    ]
    heads = ["accuracy", "attack success", "accuracy, tuned", "attack success, tuned"]
    return table("Fine-pruning", "attack", heads, rows, "Tuned: trained on clean faces after pruning.")


def _saliency(run: RunData) -> Table:
    rows = [
        Row(
            label(attack),
            tuple(
                metric_cell(run.numbers, f"inspection/{attack}/saliency:{key}", "percent")
                for key in ("area", "share", "clean_share")
            ),
        )
        for attack in run.params.inspection.saliency.attacks
    ]
    heads = ["area of the key", "of the gradient", "of the clean network's"]
    return table("Share of the integrated gradients that lies on the key", "attack", heads, rows)
