"""Section on inspecting training sets and networks: training filters, Neural Cleanse, fine-pruning, saliency."""

from visor.core.tables import Row, Table, label
from visor.report.elements import Figure, Section, interval_cells, metric_cell, section, table
from visor.report.inputs import RunData


def inspection_section(run: RunData) -> Section:
    """Return the tables of training filters, Neural Cleanse, fine-pruning and saliency."""
    return section(
        "inspection",
        "Inspecting networks and training sets",
        f"Without an image that carries the key, a defender can search the training set for poisons or inspect the "
        f"network ({label(run.params.inspected_network)}) itself.",
        [_training_filters(run), _neural_cleanse(run), _fine_pruning(run), _saliency(run)],
        [
            Figure("inspection/neural_cleanse.png", "Reversed triggers.", "Masks and patterns of Neural Cleanse."),
            Figure(
                "inspection/fine_pruning.png",
                "Accuracy and attack success by the share of pruned channels.",
                "Curves of accuracy and attack success over pruning.",
            ),
            Figure(
                "inspection/saliency.png",
                "Integrated gradients of faces with a key.",
                "Contact sheet of faces with a key and saliency maps, attacked network and clean one.",
            ),
        ],
    )


def _training_filters(run: RunData) -> Table:
    rows = []
    for attack in run.params.inspection.training_filtering.attacks:
        prefix, suffix = f"inspection/{attack}/", ":label_auroc"
        files = sorted(key[: -len(suffix)] for key in run.metrics if key.startswith(prefix) and key.endswith(suffix))
        for file in files:
            groups = (
                metric_cell(run.metrics, f"{file}:poisons", "whole"),
                interval_cells(run.metrics, f"{file}:auroc", "three"),
                interval_cells(run.metrics, f"{file}:label_auroc", "three"),
                metric_cell(run.metrics, f"{file}:recall", "percent"),
                metric_cell(run.metrics, f"{file}:precision", "percent"),
            )
            rows.append(Row(f"{label(attack)}, {label(file[len(prefix) :])}", groups))
    heads = ["poisons", "AUROC, all images", "AUROC, target's images", "recall", "precision"]
    note = "Both methods assume that poisons are a minority of their label; an AUROC far below 0.5 shows where not."
    return table("Poisons in the training set", "attack, method", heads, rows, note)


def _neural_cleanse(run: RunData) -> Table:
    columns = {
        "rank of the target": ("rank", "whole"),
        "its mask": ("norm", "one"),
        "median mask": ("median_norm", "one"),
        "its anomaly index": ("anomaly_index", "three"),
        "largest of the others": ("largest_anomaly_index", "three"),
        "outliers": ("outliers", "whole"),
    }
    rows = []
    for attack in dict.fromkeys([*run.params.inspection.neural_cleanse.attacks, "clean"]):
        file = f"inspection/{attack}/neural_cleanse"
        groups = tuple(metric_cell(run.metrics, f"{file}:{key}", form) for key, form in columns.values())
        rows.append(Row("no backdoor" if attack == "clean" else label(attack), groups))
    note = (
        "Rank 1: the target has the smallest mask that makes the network classify all faces as one label. The paper "
        "calls labels with an anomaly index of 2 or more outliers. Settings were tuned on these networks, so the rank "
        "is not an independent result."
    )
    return table("Neural Cleanse", "network", columns, rows, note)


def _fine_pruning(run: RunData) -> Table:
    rows = []
    for place, line in enumerate(run.rows.get("fine_pruning", [])):
        keys = [f"metrics/fine_pruning.csv:{place}:{key}" for key in ("accuracy", "asr", "tuned_accuracy", "tuned_asr")]
        head = f"{label(line['attack'])}, channels pruned: {float(line['fraction']):.0%}"
        rows.append(Row(head, tuple(metric_cell(run.metrics, key, "percent") for key in keys)))
    heads = ["accuracy", "attack success", "accuracy, tuned", "attack success, tuned"]
    return table("Fine-pruning", "attack", heads, rows, "Tuned: trained on clean faces after pruning.")


def _saliency(run: RunData) -> Table:
    columns = {"area of the key": "area", "attacked network": "share", "clean network": "clean_share"}
    rows = []
    for attack in run.params.inspection.saliency.attacks:
        keys = [f"inspection/{attack}/saliency:{key}" for key in columns.values()]
        rows.append(Row(label(attack), tuple(metric_cell(run.metrics, key, "percent") for key in keys)))
    return table("Share of the integrated gradients on the key", "attack", columns, rows)
