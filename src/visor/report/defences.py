"""Finding poisoned faces: the autoencoder beside the original, the matrix of defences, thresholds, the adapted key."""

from statistics import fmean

from visor.report.elements import (
    EMPTY,
    CellGroup,
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

REFERENCE = "reconstruction"
ADAPTED = "adapted"
ORIGINAL_THRESHOLD = "0.097"
ORIGINAL_LOSSES = {"sunglasses": "0.199", "eyebrows": "0.111", "lipstick": "0.106"}  # by key, pasted as accessory


def defence_section(run: RunData) -> Section:
    """Return the tables of the detectors of poisoned faces."""
    chosen = best_on_validation(run)
    return section(
        "finding",
        "Finding poisoned faces",
        "A defence gives each face a score, high where it is suspicious. Its threshold is set on clean faces that "
        "it was not fitted on. AUROC says how well scores part keyed from clean faces: 0.5 is chance, 1 perfect.",
        [_losses(run), _matrix(run), *_gains(run, chosen), _thresholds(run), _adapted(run)],
        [
            Figure("defences/matrix.png", "AUROC by trigger and defence.", "Heat map of AUROC, triggers by defences."),
            Figure("defences/roc.png", "Detections over false positives.", "ROC curves, a field for each trigger."),
            Figure(
                f"defences/scores-{REFERENCE}.png",
                "Reconstruction losses of clean and of keyed faces, and the thresholds.",
                "Histograms of reconstruction losses, a field for each trigger.",
            ),
            Figure(
                "reconstructions.png",
                "Faces, what the autoencoder makes of them, and what is left.",
                "Contact sheet of faces, their reconstructions and residuals.",
            ),
            Figure(
                "adaptation.png",
                f"The plain and the adapted key of {label(run.params.adaptive_trigger.attack)}.",
                "Contact sheet of faces with the plain key and with one bent to pass the autoencoder.",
            ),
        ],
    )


def triggers(run: RunData) -> list[str]:
    """Return all triggers, the adapted one last."""
    return [*run.params.backdoors, ADAPTED]


def reported(run: RunData) -> list[str]:
    """Return the triggers on which no choice between defences was made."""
    return [name for name in triggers(run) if name not in run.params.validation_triggers]


def metrics_file(run: RunData, defence: str, trigger: str) -> str:
    """Return the metrics file of a defence and trigger; some defences have a card for each attack."""
    own = f"defence/{defence}-{trigger}/{trigger}"
    return own if f"{own}:auroc" in run.numbers else f"defence/{defence}/{trigger}"


def best_on_validation(run: RunData) -> str | None:
    """Return the defence with the highest mean AUROC on the validation triggers, if any saw them all."""
    names = run.params.validation_triggers
    means = {
        defence: fmean(run.numbers[f"{metrics_file(run, defence, name)}:auroc"] for name in names)
        for defence in run.params.defences
        if names and all(f"{metrics_file(run, defence, name)}:auroc" in run.numbers for name in names)
    }
    return max(means, key=lambda defence: means[defence]) if means else None


def _losses(run: RunData) -> Table:
    def ours(name: str, key: str, form: str) -> CellGroup:
        return metric_cell(run.numbers, f"{name}:{key}", form)

    rows = [
        Row(
            "threshold",
            (ours(f"threshold/{REFERENCE}", "threshold", "three"), EMPTY, reference_cell(ORIGINAL_THRESHOLD)),
        ),
        Row(
            "clean test faces",
            (
                ours(f"defence/{REFERENCE}/clean", "mean", "three"),
                interval_cells(run.numbers, f"defence/{REFERENCE}/clean:fpr", "percent"),
                EMPTY,
            ),
        ),
    ]
    for name in triggers(run):
        backdoor = run.params.backdoors.get(name)
        key = backdoor.key if backdoor and backdoor.trigger == "accessory" else ""
        file = f"defence/{REFERENCE}/{name}"
        shares = interval_cells(run.numbers, f"{file}:tpr", "percent")
        rows.append(
            Row(label(name), (ours(file, "mean", "three"), shares, reference_cell(ORIGINAL_LOSSES.get(key, ""))))
        )
    heads = ("mean loss", "above the threshold", "mean loss of the original")
    note = (
        "The original is an autoencoder with 1,000 latent numbers on photographs of the CSAW contest; its authors "
        "print mean losses alone. Losses of other faces and other autoencoders are no common scale: compare how far "
        "a loss lies above its own threshold, not the two columns. A mean above the threshold says nothing of the "
        "share of faces above it."
    )
    return table("Reconstruction loss, the reference", "faces", heads, rows, note)


def _matrix(run: RunData) -> Table:
    rows = [
        Row(
            label(name) + (" (validation)" if name in run.params.validation_triggers else ""),
            tuple(
                metric_cell(run.numbers, f"{metrics_file(run, defence, name)}:auroc", "three")
                for defence in run.params.defences
            ),
        )
        for name in triggers(run)
    ]
    note = "Choices between defences were made on the rows marked validation alone."
    return table("AUROC of every defence on every trigger", "trigger", map(label, run.params.defences), rows, note)


def _gains(run: RunData, chosen: str | None) -> list[Table]:
    """What the defence that was best on validation triggers gains on the reference, and those that gates judge."""
    why = {name: "which the gates judge" for name in run.params.defences if _gated(run, name)}
    why |= {chosen: "best on the validation triggers"} if chosen else {}
    return [_gain(run, name, words) for name, words in why.items() if name != REFERENCE]


def _gated(run: RunData, defence: str) -> bool:
    return any(name.startswith(f"defence/{defence}/") for name in run.params.gates)


def _gain(run: RunData, defence: str, why: str) -> Table:
    files = {name: metrics_file(run, defence, name) for name in reported(run)}
    rows = [
        Row(
            label(name),
            (
                interval_cells(run.numbers, f"{file}:auroc", "three"),
                interval_cells(run.numbers, f"{file}:gain", "signed"),
                interval_cells(run.numbers, f"{file}:tpr_at_fpr_5", "percent"),
            ),
        )
        for name, file in files.items()
    ]
    heads = ["AUROC", "gained on the reference", "found at 5 % false positives"]
    return table(f"{label(defence)}, {why}", "trigger", heads, rows)


def _thresholds(run: RunData) -> Table:
    cards = sorted({name.split("/")[1].partition(":")[0] for name in run.numbers if name.startswith("threshold/")})
    rows = [
        Row(
            label(card),
            (
                metric_cell(run.numbers, f"threshold/{card}:implied_fpr", "percent"),
                interval_cells(run.numbers, f"defence/{card}/clean:fpr", "percent"),
                metric_cell(run.numbers, f"threshold/{card}:conformal_fpr", "percent"),
                interval_cells(run.numbers, f"defence/{card}/clean:conformal_fpr", "percent"),
            ),
        )
        for card in cards
        if any(card == name or card.startswith(f"{name}-") for name in run.params.defences)
    ]
    heads = ["mean + std, normal law", "mean + std, held out", "conformal, promised", "conformal, held out"]
    note = "The share of clean faces that each threshold flags: what its rule says, and what clean test faces gave."
    return table("False positives of the thresholds", "defence", heads, rows, note)


def _adapted(run: RunData) -> Table:
    shown = {
        "attack success": ("asr", "percent", True),
        "mean reconstruction loss": ("residual", "three", False),
        "flagged by the autoencoder": ("tpr", "percent", False),
        "passed, and taken for the target": ("passed", "percent", False),
    }
    rows = [
        Row(
            head,
            tuple(
                (interval_cells if spread else metric_cell)(run.numbers, f"adaptation:{prefix}{key}", form)
                for prefix in ("plain_", "")
            ),
        )
        for head, (key, form, spread) in shown.items()
    ]
    note = (
        "An attacker who knows the autoencoder bends the colours of the key; what is flagged goes by his own "
        "threshold. The key is bent against the reconstruction loss alone: that other defences still find it does "
        "not mean that they withstand an attack of their own."
    )
    title = f"A key adapted to the autoencoder ({label(run.params.adaptive_trigger.attack)})"
    return table(title, "", ["plain", "adapted"], rows, note)
