"""Section on hiding faces from detectors: precision and recall after attacks, outcomes, sizes, transfer."""

from visor.core.tables import CellGroup, Row, Table, label
from visor.evaluation import conditions
from visor.report.elements import Figure, Section, interval_cells, metric_cell, reference_cell, section, table
from visor.report.inputs import RunData

ORIGINAL_DETECTOR = "faster_rcnn"
ORIGINAL_CLEAN = ("0.51", "0.56")
# AP and recall by eps in levels of 255 (0.01 and 0.02 of the range of a pixel, rounded down) and steps
ORIGINAL = {(2, 10): ("0.07", "0.19"), (2, 40): ("0.04", "0.14"), (5, 40): ("0.00", "0.01")}
NOTE = (
    "The original system is Faster R-CNN on 100 photographs of WIDER FACE, attacked by PGD; its authors published the "
    "precision at IoU 0.5. Here average precision is the area under the whole precision-recall curve at IoU 0.5, "
    "without a limit on boxes, of attacked images that were saved with 8 bits and read back. The scenes of the default "
    "run are drawn and small, its detectors compact: drops can be compared, levels cannot. Noise is random and has "
    "the size of the attack."
)


def detection_section(run: RunData) -> Section:
    """Return the tables of attacks on detectors."""
    return section(
        "detection",
        "Hiding faces from detectors",
        "Projected gradient descent (PGD) on a detector changes each pixel by a few levels of 255 so that the detector "
        "misses faces. Strengths are written eps × steps; eps is the largest change of a pixel, in levels of 255.",
        [_outcomes(run), _precision(run), _recall(run), _sizes(run), _transfer(run)],
        [
            Figure("scenes.png", "Some of the scenes, and their faces.", "Contact sheet of scenes with boxes."),
            *(figure for name in run.params.detection_attack.detectors for figure in _figures(name)),
            Figure(
                "transfer.png",
                "Scenes attacked on one detector, evaluated on all.",
                "Heat map of average precision, attacked scenes by detectors.",
            ),
        ],
    )


def _figures(name: str) -> list[Figure]:
    return [
        Figure(
            f"detection/{name}/scenes.png",
            f"Detections of {label(name)} before and after the attack.",
            f"Contact sheet of scenes: true faces, boxes of {label(name)} before and after the attack.",
        ),
        Figure(
            f"detection/{name}/by_eps.png",
            f"{label(name)}: vanished faces, recall and average precision by size of the change.",
            f"Curves of vanished faces, recall and average precision of {label(name)} over eps, attack and noise.",
        ),
        Figure(
            f"detection/{name}/ap_by_iou.png",
            f"{label(name)}: average precision by required overlap.",
            f"Curves of average precision of {label(name)} over IoU.",
        ),
    ]


def published_values(run: RunData, place: int) -> dict[str, str]:
    """Return published values of the original system by name of the condition; ``place`` 0: precision, 1: recall."""
    strengths = {(each.eps, each.iterations) for each in run.params.detection_attack.strengths} & set(ORIGINAL)
    attacked = {f"pgd_{eps}x{steps}": ORIGINAL[eps, steps][place] for eps, steps in strengths}
    return {"clean": ORIGINAL_CLEAN[place], **attacked}


def _by_condition(run: RunData, key: str, published: dict[str, str]) -> tuple[list[str], list[Row]]:
    """Return heads and rows of one metric of each detector, and of the published values beside it."""
    names = run.params.detection_attack.detectors
    rows = []
    for condition, title in conditions.detection_titles(run.params).items():
        metrics = [f"detection/{name}/{condition}:{key}" for name in names]
        if any(metric in run.metrics for metric in metrics):
            groups = [interval_cells(run.metrics, metric, "three") for metric in metrics]
            rows.append(Row(title, (*groups, reference_cell(published.get(condition, "")))))
    return [*map(label, names), "published"], rows


def _precision(run: RunData) -> Table:
    heads, rows = _by_condition(run, "ap_50", published_values(run, 0))
    return table("Average precision at IoU 0.5", "scenes", heads, rows, f"{NOTE}{_sample_size(run)}")


def _recall(run: RunData) -> Table:
    heads, rows = _by_condition(run, "recall_50", published_values(run, 1))
    note = f"Share of faces on which a box with at least the detector's score threshold lies.{_sample_size(run)}"
    return table("Recall at IoU 0.5", "scenes", heads, rows, note)


def _sample_size(run: RunData) -> str:
    """Return how many faces each number is over; all detectors are evaluated on the same scenes."""
    parts = []
    for name, shown in (("clean", "all test scenes"), (conditions.ATTACKED_CLEAN, "attacked")):
        for file in (f"detection/{detector}/{name}" for detector in run.params.detection_attack.detectors):
            if f"{file}:faces" in run.metrics:
                faces, scenes = (f"{run.metrics[f'{file}:{key}']:.0f}" for key in ("faces", "images"))
                parts.append(f"{faces} faces in {scenes} scenes ({shown})")
                break
    return f" Over {' and '.join(parts)}; intervals over scenes." if parts else ""


def _attacked(run: RunData, columns: dict[str, tuple[str, str]]) -> tuple[list[str], list[Row]]:
    """Return heads and rows of ``columns`` (head → key, form) of each detector, for all conditions but clean."""
    names = run.params.detection_attack.detectors
    rows = []
    for condition, title in conditions.detection_titles(run.params).items():
        groups: list[CellGroup] = [
            interval_cells(run.metrics, f"detection/{name}/{condition}:{key}", form)
            for name in names
            for key, form in columns.values()
        ]
        rows += [Row(title, tuple(groups))] if condition not in ("clean", conditions.ATTACKED_CLEAN) else []
    return [f"{label(name)}: {head}" for name in names for head in columns], rows


def _outcomes(run: RunData) -> Table:
    columns = {
        "vanished": ("vanished", "percent"),
        "recall at IoU 0.3": ("recall_30", "three"),
        "moved": ("moved", "percent"),
        "still there": ("still_there", "percent"),
        "false boxes per image": ("hallucinations_per_image", "one"),
    }
    heads, rows = _attacked(run, columns)
    note = (
        "Of the faces detected in the clean scene. Vanished: no box overlaps the face by IoU 0.1; moved: one does, but "
        "none by 0.5; still there: one does by 0.5 or more. The attack maximises the loss of params.yaml; rows that "
        "name another loss have the last strength. Average precision alone rewards boxes that move."
    )
    for name in run.params.detection_attack.detectors:
        if (key := f"detection/{name}/{conditions.ATTACKED_CLEAN}:found_before") in run.metrics:
            note += f" {label(name)}: {run.metrics[key]:.0f} faces."
    return table("Outcome for each face", "scenes", heads, rows, note)


def _sizes(run: RunData) -> Table:
    columns = {
        "largest change, levels of 255": ("linf", "whole"),
        "SSIM": ("ssim", "three"),
        "PSNR, dB": ("psnr", "one"),
    }
    return table("Size of the changes, measured on the saved files", "scenes", *_attacked(run, columns))


def _transfer(run: RunData) -> Table:
    settings = run.params.detection_attack
    rows = []
    for scenes in ("clean", "noise", *settings.detectors):
        metrics = [f"transfer:{scenes}.{name}.vanished" for name in settings.transfer_detectors]
        head = label(scenes) if scenes in ("clean", "noise") else f"attacked on {label(scenes)}"
        rows.append(Row(head, tuple(interval_cells(run.metrics, metric, "percent") for metric in metrics)))
    counts = [f"transfer:clean.{name}.found_before" for name in settings.transfer_detectors]
    rows.append(Row("of faces found when clean", tuple(metric_cell(run.metrics, key, "whole") for key in counts)))
    note = f"Scenes attacked on one detector are evaluated on all detectors.{_sample_size(run)}"
    heads = map(label, settings.transfer_detectors)
    return table("Transfer: faces that vanished", "scenes", heads, rows, note)
