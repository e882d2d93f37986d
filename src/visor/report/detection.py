"""Hiding faces from detectors: precision after attacks beside the original, what became of faces, transfer."""

from visor.evaluation import conditions
from visor.report.elements import (
    CellGroup,
    Figure,
    Row,
    Section,
    Table,
    label,
    metric_cell,
    reference_cell,
    section,
    table,
)
from visor.report.inputs import RunData

ORIGINAL_DETECTOR = "faster_rcnn"
ORIGINAL_CLEAN = ("0.51", "0.56")
ORIGINAL = {(0.01, 10): ("0.07", "0.19"), (0.01, 40): ("0.04", "0.14"), (0.02, 40): ("0.00", "0.01")}  # AP, recall
FATES = {"vanished": "vanished", "moved": "moved", "still_there": "still there"}
NOTE = (
    "The original is Faster R-CNN on 100 photographs of WIDER FACE, attacked by PGD; the number is the precision "
    "that its authors print for IoU 0.5. Here average precision is the area under the whole precision-recall curve "
    "at IoU 0.5, without a cap on boxes, of attacked images that were saved with 8 bits and read back; the scenes "
    "of the default run are drawn and small, its detectors compact. The drop can be compared, the levels cannot. "
    "Noise has the size of the attack and no aim."
)


def detection_section(run: RunData) -> Section:
    """Return the tables of attacks on detectors."""
    return section(
        "hiding",
        "Hiding faces from detectors",
        "Changes of a few levels of 255 in each pixel, found by projected gradient descent on a detector, make it "
        "miss faces. Strengths are written eps × steps; eps is the largest change of a pixel, in [0, 1] or as "
        "levels of 255.",
        [_precision(run), _recall(run), _fates(run), _sizes(run), _transfer(run)],
        [
            Figure("scenes.png", "Some of the scenes, and the faces to find.", "Contact sheet of scenes with boxes."),
            *(picture for name in run.params.detection_attack.detectors for picture in _pictures(name)),
            Figure(
                "transfer.png",
                "Scenes attacked on one detector, shown to others.",
                "Heat map of average precision, attacked scenes by detectors.",
            ),
        ],
    )


def _pictures(name: str) -> list[Figure]:
    return [
        Figure(
            f"detection/{name}/scenes.png",
            f"What {label(name)} finds before and after the attack.",
            f"Contact sheet of scenes: true faces, boxes of {label(name)} before and after the attack.",
        ),
        Figure(
            f"detection/{name}/ap_by_eps.png",
            f"{label(name)}: average precision by size of the change.",
            f"Curves of average precision of {label(name)} over eps, attack and noise.",
        ),
        Figure(
            f"detection/{name}/ap_by_iou.png",
            f"{label(name)}: average precision by the overlap that a box must reach.",
            f"Curves of average precision of {label(name)} over IoU.",
        ),
    ]


def _by_condition(run: RunData, key: str, form: str, theirs: dict[str, str]) -> tuple[list[str], list[Row]]:
    """Rows of one number of each detector, and of the original beside it."""
    names = run.params.detection_attack.detectors
    rows = [
        Row(
            title,
            (
                *(metric_cell(run.numbers, f"detection/{name}/{condition}:{key}", form) for name in names),
                reference_cell(theirs.get(condition, "")),
            ),
        )
        for condition, title in conditions.detection_titles(run.params).items()
        if any(f"detection/{name}/{condition}:{key}" in run.numbers for name in names)
    ]
    return [*map(label, names), "original"], rows


def published_values(run: RunData, place: int) -> dict[str, str]:
    """Return what the original printed by our name of its condition; ``place`` 0 is precision, 1 recall."""
    strengths = {(each.eps, each.iterations) for each in run.params.detection_attack.strengths} & set(ORIGINAL)
    attacked = {f"pgd_{eps:g}x{steps}": ORIGINAL[eps, steps][place] for eps, steps in strengths}
    return {"clean": ORIGINAL_CLEAN[place], **attacked}


def _precision(run: RunData) -> Table:
    return table(
        "Average precision at IoU 0.5",
        "scenes",
        *_by_condition(run, "ap_50", "three", published_values(run, 0)),
        f"{NOTE}{_counted(run)}",
    )


def _recall(run: RunData) -> Table:
    note = f"The share of faces on which a box of at least the detector's threshold lies.{_counted(run)}"
    return table(
        "Recall at IoU 0.5", "scenes", *_by_condition(run, "recall_50", "three", published_values(run, 1)), note
    )


def _counted(run: RunData) -> str:
    """How many faces each number is over; all detectors are shown the same scenes."""
    files = [f"detection/{name}/clean" for name in run.params.detection_attack.detectors]
    file = next((each for each in files if f"{each}:faces" in run.numbers), "")
    return (
        f" Over {run.numbers[f'{file}:faces']:.0f} faces in {run.numbers[f'{file}:images']:.0f} scenes." if file else ""
    )


def _fates(run: RunData) -> Table:
    names = run.params.detection_attack.detectors

    def became(condition: str, name: str) -> tuple[CellGroup, ...]:
        file = f"detection/{name}/{condition}"
        shares = [metric_cell(run.numbers, f"{file}:{fate}", "percent") for fate in FATES]
        return (*shares, metric_cell(run.numbers, f"{file}:hallucinations_per_image", "one"))

    rows = [
        Row(title, tuple(group for name in names for group in became(condition, name)))
        for condition, title in conditions.detection_titles(run.params).items()
        if condition != "clean"
    ]
    heads = [f"{label(name)}: {head}" for name in names for head in (*FATES.values(), "false boxes an image")]
    note = "Of faces found on the clean scene: no box overlaps it by 0.1, one does but below 0.5, one by 0.5 and more."
    note += "".join(
        f" {label(name)}: {run.numbers[key]:.0f} faces."
        for name in names
        if (key := f"detection/{name}/clean:found_before") in run.numbers
    )
    return table("What became of each face", "scenes", heads, rows, note)


def _sizes(run: RunData) -> Table:
    names, shown = run.params.detection_attack.detectors, {"linf": "four", "ssim": "three", "psnr": "one"}
    rows = [
        Row(
            title,
            tuple(
                metric_cell(run.numbers, f"detection/{name}/{condition}:{key}", form)
                for name in names
                for key, form in shown.items()
            ),
        )
        for condition, title in conditions.detection_titles(run.params).items()
        if condition != "clean"
    ]
    heads = [f"{label(name)}: {head}" for name in names for head in ("largest change", "SSIM", "PSNR, dB")]
    return table("How much the scenes changed, measured on the saved files", "scenes", heads, rows)


def _transfer(run: RunData) -> Table:
    shown = run.params.detection_attack.transfer_detectors
    rows = [
        Row(
            label(scenes) if scenes in ("clean", "noise") else f"attacked on {label(scenes)}",
            tuple(metric_cell(run.numbers, f"transfer:{scenes}.{name}.ap_50", "three") for name in shown),
        )
        for scenes in ("clean", "noise", *run.params.detection_attack.detectors)
    ]
    note = "What was made for one detector is shown to all: hiding from one does not hide from the others."
    note += _counted(run)
    return table("Transfer: average precision at IoU 0.5", "scenes", map(label, shown), rows, note)
