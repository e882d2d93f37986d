"""Section on detecting poisoned images: the autoencoder, the matrix of defences, thresholds, the adapted key."""

from statistics import fmean

from visor.core.tables import EMPTY, Row, Table, label
from visor.report.elements import Figure, Section, interval_cells, metric_cell, reference_cell, section, table
from visor.report.inputs import RunData

REFERENCE = "reconstruction"
ADAPTED = "adapted"
ORIGINAL_THRESHOLD = "0.097"
ORIGINAL_LOSSES = {"sunglasses": "0.199", "eyebrows": "0.111", "lipstick": "0.106"}  # by key, pasted as accessory


def defence_section(run: RunData) -> Section:
    """Return the tables of the defences that filter inputs."""
    adapted = f"adapted key of {label(run.params.adaptive_trigger.attack)}"
    return section(
        "defences",
        "Detecting poisoned images",
        "A defence gives each image a score, high where it is suspicious. Its threshold is set on clean images that it "
        "was not fitted on. AUROC measures how well scores separate images with a key from clean ones: 0.5 is chance, "
        "1 perfect.",
        [_losses(run), _matrix(run), *_gains(run), _thresholds(run), _adapted(run)],
        [
            Figure("defences/matrix.png", "AUROC by trigger and defence.", "Heat map of AUROC, triggers by defences."),
            Figure("defences/roc.png", "Detections over false positives.", "ROC curves, one plot for each trigger."),
            Figure(
                f"defences/scores-{REFERENCE}.png",
                "Reconstruction losses of faces without and with a key, and the thresholds.",
                "Histograms of reconstruction losses, one plot for each trigger.",
            ),
            Figure(
                "reconstructions.png",
                "Faces, their reconstructions by the autoencoder, and the residuals.",
                "Contact sheet of faces, their reconstructions and residuals.",
            ),
            Figure("adaptation.png", f"The plain and the {adapted}.", f"Contact sheet of faces, plain and {adapted}."),
        ],
    )


def reported_triggers(run: RunData) -> list[str]:
    """Return the triggers on which no choice between defences was made, the adapted one last."""
    return [name for name in [*run.params.backdoors, ADAPTED] if name not in run.params.validation_triggers]


def metrics_file(run: RunData, defence: str, trigger: str) -> str:
    """Return the metrics file of a defence and trigger; some defences have one score for each attack."""
    file = f"defence/{defence}-{trigger}/{trigger}"
    return file if f"{file}:auroc" in run.metrics else f"defence/{defence}/{trigger}"


def best_on_validation(run: RunData) -> str | None:
    """Return the defence with the highest mean AUROC on the validation triggers, if any was measured on them all."""
    triggers, means = run.params.validation_triggers, {}
    for defence in run.params.defences:
        keys = [f"{metrics_file(run, defence, name)}:auroc" for name in triggers]
        if keys and all(key in run.metrics for key in keys):
            means[defence] = fmean(run.metrics[key] for key in keys)
    return max(means, key=lambda defence: means[defence]) if means else None


def _losses(run: RunData) -> Table:
    clean, threshold = f"defence/{REFERENCE}/clean", f"threshold/{REFERENCE}:threshold"
    flagged = interval_cells(run.metrics, f"{clean}:fpr", "percent")
    rows = [
        Row("threshold", (metric_cell(run.metrics, threshold, "three"), EMPTY, reference_cell(ORIGINAL_THRESHOLD))),
        Row("clean test faces", (metric_cell(run.metrics, f"{clean}:mean", "three"), flagged, EMPTY)),
    ]
    for name in [*run.params.backdoors, ADAPTED]:
        backdoor, file = run.params.backdoors.get(name), f"defence/{REFERENCE}/{name}"
        key = backdoor.key if backdoor and backdoor.trigger == "accessory" else ""
        loss = metric_cell(run.metrics, f"{file}:mean", "three")
        flagged = interval_cells(run.metrics, f"{file}:tpr", "percent")
        rows.append(Row(label(name), (loss, flagged, reference_cell(ORIGINAL_LOSSES.get(key, "")))))
    heads = ("mean loss", "above the threshold", "published mean loss")
    note = (
        "The original system is an autoencoder with 1,000 latent dimensions on photographs of the CSAW contest; its "
        "authors published only mean losses. Losses of different faces and autoencoders are not comparable: compare "
        "each loss with its own threshold, not the two columns. A mean above the threshold does not tell the share of "
        "faces above it."
    )
    return table("Reconstruction loss (reference defence)", "faces", heads, rows, note)


def _matrix(run: RunData) -> Table:
    rows = []
    for name in [*run.params.backdoors, ADAPTED]:
        files = [metrics_file(run, defence, name) for defence in run.params.defences]
        head = label(name) + (" (validation)" if name in run.params.validation_triggers else "")
        rows.append(Row(head, tuple(metric_cell(run.metrics, f"{file}:auroc", "three") for file in files)))
    note = "Choices between defences were made only on the rows marked validation."
    return table("AUROC of every defence on every trigger", "trigger", map(label, run.params.defences), rows, note)


def _gains(run: RunData) -> list[Table]:
    """Return the gain over the reference of each defence with gates, and of the best one on validation triggers."""
    best = best_on_validation(run)
    gated = [
        name for name in run.params.defences if any(key.startswith(f"defence/{name}/") for key in run.params.gates)
    ]
    reasons = dict.fromkeys(gated, "checked by gates") | ({best: "best on the validation triggers"} if best else {})
    return [_gain(run, name, reason) for name, reason in reasons.items() if name != REFERENCE]


def _gain(run: RunData, defence: str, reason: str) -> Table:
    columns = {"auroc": "three", "gain": "signed", "tpr_at_fpr_5": "percent"}
    rows = []
    for name in reported_triggers(run):
        file = metrics_file(run, defence, name)
        cells = tuple(interval_cells(run.metrics, f"{file}:{key}", form) for key, form in columns.items())
        rows.append(Row(label(name), cells))
    heads = ["AUROC", "gain over reference", "detected at 5 % false positives"]
    return table(f"{label(defence)}, {reason}", "trigger", heads, rows)


def _thresholds(run: RunData) -> Table:
    scores = sorted({key.split("/")[1].partition(":")[0] for key in run.metrics if key.startswith("threshold/")})
    rows = [
        Row(
            label(score),
            (
                metric_cell(run.metrics, f"threshold/{score}:implied_fpr", "percent"),
                interval_cells(run.metrics, f"defence/{score}/clean:fpr", "percent"),
                metric_cell(run.metrics, f"threshold/{score}:conformal_fpr", "percent"),
                interval_cells(run.metrics, f"defence/{score}/clean:conformal_fpr", "percent"),
            ),
        )
        for score in scores
        if any(score == name or score.startswith(f"{name}-") for name in run.params.defences)
    ]
    heads = ["mean + std, expected", "mean + std, measured", "conformal, expected", "conformal, measured"]
    note = (
        "Share of clean faces that each threshold flags: expected by its rule (mean + std: for a normal distribution), "
        "and measured on clean test faces."
    )
    return table("False positives of the thresholds", "defence", heads, rows, note)


def _adapted(run: RunData) -> Table:
    metrics = {
        "attack success": ("asr", "percent"),
        "mean reconstruction loss": ("residual", "three"),
        "flagged by the autoencoder": ("tpr", "percent"),
        "undetected and classified as target": ("passed", "percent"),
    }
    rows = [
        Row(
            head,
            tuple(interval_cells(run.metrics, f"adaptation:{prefix}{key}", form) for prefix in ("plain_", "")),
        )
        for head, (key, form) in metrics.items()
    ]
    note = (
        "The attacker knows the autoencoder and optimises the colours of the key against its reconstruction loss; "
        "flagged is what exceeds the threshold that the attacker expects. That other defences still detect this key "
        "does not show that they withstand an attack made against them."
    )
    title = f"A key adapted to the autoencoder ({label(run.params.adaptive_trigger.attack)})"
    return table(title, "", ["plain", "adapted"], rows, note)
