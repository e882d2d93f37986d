"""Section on hiding faces from detectors: precision and recall after attacks, outcomes, sizes, transfer."""

from visor.core.tables import CellGroup, Row, Table, label
from visor.evaluation import conditions
from visor.report.elements import Figure, Section, metric_cell, reference_cell, section, table
from visor.report.inputs import RunData

ORIGINAL_DETECTOR = "faster_rcnn"
ORIGINAL_CLEAN = ("0.51", "0.56")
ORIGINAL = {(0.01, 10): ("0.07", "0.19"), (0.01, 40): ("0.04", "0.14"), (0.02, 40): ("0.00", "0.01")}  # AP, recall
OUTCOMES = {"vanished": "vanished", "moved": "moved", "still_there": "still there"}
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
        "misses faces. Strengths are written eps × steps; eps is the largest change of a pixel, in [0, 1] or as levels "
        "of 255.",
        [_precision(run), _recall(run), _outcomes(run), _sizes(run), _transfer(run)],
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
            f"detection/{name}/ap_by_eps.png",
            f"{label(name)}: average precision by size of the change.",
            f"Curves of average precision of {label(name)} over eps, attack and noise.",
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
    attacked = {f"pgd_{eps:g}x{steps}": ORIGINAL[eps, steps][place] for eps, steps in strengths}
    return {"clean": ORIGINAL_CLEAN[place], **attacked}


def _by_condition(run: RunData, key: str, published: dict[str, str]) -> tuple[list[str], list[Row]]:
    """Return heads and rows of one metric of each detector, and of the published values beside it."""
    names = run.params.detection_attack.detectors
    rows = []
    for condition, title in conditions.detection_titles(run.params).items():
        metrics = [f"detection/{name}/{condition}:{key}" for name in names]
        if any(metric in run.metrics for metric in metrics):
            groups = [metric_cell(run.metrics, metric, "three") for metric in metrics]
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
    for file in (f"detection/{name}/clean" for name in run.params.detection_attack.detectors):
        if f"{file}:faces" in run.metrics:
            return f" Over {run.metrics[f'{file}:faces']:.0f} faces in {run.metrics[f'{file}:images']:.0f} scenes."
    return ""


def _attacked(run: RunData, columns: dict[str, tuple[str, str]]) -> tuple[list[str], list[Row]]:
    """Return heads and rows of ``columns`` (head → key, form) of each detector, for all conditions but clean."""
    names = run.params.detection_attack.detectors
    rows = []
    for condition, title in conditions.detection_titles(run.params).items():
        groups: list[CellGroup] = [
            metric_cell(run.metrics, f"detection/{name}/{condition}:{key}", form)
            for name in names
            for key, form in columns.values()
        ]
        rows += [Row(title, tuple(groups))] if condition != "clean" else []
    return [f"{label(name)}: {head}" for name in names for head in columns], rows


def _outcomes(run: RunData) -> Table:
    columns = {head: (key, "percent") for key, head in OUTCOMES.items()}
    heads, rows = _attacked(run, columns | {"false boxes per image": ("hallucinations_per_image", "one")})
    note = (
        "Of the faces detected in the clean scene. Vanished: no box overlaps the face by IoU 0.1; moved: one does, but "
        "none by 0.5; still there: one does by 0.5 or more."
    )
    for name in run.params.detection_attack.detectors:
        if (key := f"detection/{name}/clean:found_before") in run.metrics:
            note += f" {label(name)}: {run.metrics[key]:.0f} faces."
    return table("Outcome for each face", "scenes", heads, rows, note)


def _sizes(run: RunData) -> Table:
    columns = {"largest change": ("linf", "four"), "SSIM": ("ssim", "three"), "PSNR, dB": ("psnr", "one")}
    return table("Size of the changes, measured on the saved files", "scenes", *_attacked(run, columns))


def _transfer(run: RunData) -> Table:
    settings = run.params.detection_attack
    rows = []
    for scenes in ("clean", "noise", *settings.detectors):
        metrics = [f"transfer:{scenes}.{name}.ap_50" for name in settings.transfer_detectors]
        head = label(scenes) if scenes in ("clean", "noise") else f"attacked on {label(scenes)}"
        rows.append(Row(head, tuple(metric_cell(run.metrics, metric, "three") for metric in metrics)))
    note = f"Scenes attacked on one detector are evaluated on all detectors.{_sample_size(run)}"
    heads = map(label, settings.transfer_detectors)
    return table("Transfer: average precision at IoU 0.5", "scenes", heads, rows, note)
