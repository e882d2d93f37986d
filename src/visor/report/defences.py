"""Section on detecting poisoned images: what gets through, AUROC, thresholds, attackers who know the defences."""

from visor.core.tables import EMPTY, Row, Table, label
from visor.report.elements import Figure, Section, interval_cells, metric_cell, reference_cell, section, table
from visor.report.inputs import RunData

REFERENCE = "reconstruction"
SUITE = "suite"
ORIGINAL_THRESHOLD = "0.097"
ORIGINAL_LOSSES = {"sunglasses": "0.199", "eyebrows": "0.111", "lipstick": "0.106"}  # by key, pasted as accessory


def defence_section(run: RunData) -> Section:
    """Return the tables of the defences that filter inputs."""
    return section(
        "defences",
        "Detecting poisoned images",
        "A defence gives each image a score, high where it is suspicious. Its threshold is set on clean images that it "
        "was not fitted on. An attack succeeds if the network predicts the target and the defence does not flag the "
        "image. AUROC measures how well scores separate images with a key from clean ones: 0.5 is chance, 1 perfect.",
        [_unflagged(run), _harmless(run), _matrix(run), _losses(run), _thresholds(run), _adaptive(run)],
        [
            Figure(
                "defences/unflagged.png",
                "Attack success that a defence does not flag.",
                "Heat map of attack success that is not flagged, triggers by defences.",
            ),
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
            Figure(
                "adaptive_attacks.png",
                "Faces with keys that were made against the defences.",
                "Contact sheet of faces with keys of attackers who know the defences.",
            ),
        ],
    )


def metrics_file(run: RunData, defence: str, trigger: str) -> str:
    """Return the metrics file of a defence and trigger; some defences have one score for each attack."""
    file = f"defence/{defence}-{trigger}/{trigger}"
    return file if f"{file}:auroc" in run.metrics else f"defence/{defence}/{trigger}"


def attacks(run: RunData) -> list[str]:
    """Return the triggers that a network was trained on."""
    return [name for name in run.params.training_sets if name != "clean"]


def _unflagged(run: RunData) -> Table:
    rows = []
    for name in attacks(run):
        files = [metrics_file(run, defence, name) for defence in run.params.defences]
        none = interval_cells(run.metrics, f"{files[0]}:asr", "percent")
        cells = [interval_cells(run.metrics, f"{file}:asr_unflagged", "percent") for file in files]
        rows.append(Row(label(name), (none, *cells)))
    note = (
        "Share of faces of other people with the key that the network classifies as the target and the defence, at its "
        "conformal threshold, does not flag. Filters that question the network have a threshold for each network."
    )
    heads = ("no defence", *map(label, run.params.defences))
    return table("Attack success that is not flagged", "trigger", heads, rows, note)


def _harmless(run: RunData) -> Table:
    """Return what a defence flags without need: clean faces, and faces whose key has no effect."""
    columns = {
        "clean faces": "fpr_correctly_classified",
        "with the key": "flagged_correctly_classified",
        "attack success not flagged, key pasted": "asr_unflagged_pasted",
    }
    rows = []
    for defence in run.params.defences:
        for name in attacks(run):
            file = metrics_file(run, defence, name)
            cells = [interval_cells(run.metrics, f"{file}:{key}", "percent") for key in columns.values()]
            abstained = metric_cell(run.metrics, f"{file}:abstained", "whole")
            rows.append(Row(f"{label(defence)}, {label(name)}", (*cells, abstained)))
    note = (
        "The first two columns: of correctly classified faces. Pasted: the key on the finished image, as in the "
        "original papers' code. Abstained: faces with a key that are classified as a person without a clean face."
    )
    return table("Flagged although correctly classified", "defence, trigger", [*columns, "abstained"], rows, note)


def _losses(run: RunData) -> Table:
    clean, threshold = f"defence/{REFERENCE}/clean", f"threshold/{REFERENCE}:threshold"
    flagged = interval_cells(run.metrics, f"{clean}:fpr", "percent")
    rows = [
        Row("threshold", (metric_cell(run.metrics, threshold, "three"), EMPTY, reference_cell(ORIGINAL_THRESHOLD))),
        Row("clean test faces", (metric_cell(run.metrics, f"{clean}:mean", "three"), flagged, EMPTY)),
    ]
    for name in run.params.backdoors:
        backdoor, file = run.params.backdoors[name], f"defence/{REFERENCE}/{name}"
        key = backdoor.key if backdoor.trigger == "accessory" else ""
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
    for name in run.params.backdoors:
        files = [metrics_file(run, defence, name) for defence in run.params.defences]
        head = label(name) + (" (validation)" if name in run.params.validation_triggers else "")
        rows.append(Row(head, tuple(metric_cell(run.metrics, f"{file}:auroc", "three") for file in files)))
    note = "Choices between defences were made only on the rows marked validation."
    return table("AUROC of every defence on every trigger", "trigger", map(label, run.params.defences), rows, note)


def _thresholds(run: RunData) -> Table:
    scores = sorted({key.split("/")[1].partition(":")[0] for key in run.metrics if key.startswith("threshold/")})
    rows = [
        Row(
            ", ".join(map(label, score.split("-", 1))),
            (
                metric_cell(run.metrics, f"threshold/{score}:implied_fpr", "percent"),
                interval_cells(run.metrics, f"defence/{score}/clean:fpr", "percent"),
                metric_cell(run.metrics, f"threshold/{score}:conformal_fpr", "percent"),
                interval_cells(run.metrics, f"defence/{score}/clean:conformal_fpr", "percent"),
                interval_cells(run.metrics, f"defence/{score}/clean:control_auroc", "three"),
            ),
        )
        for score in scores
        if any(score == name or score.startswith(f"{name}-") for name in run.params.defences)
    ]
    heads = ["mean + std, expected", "mean + std, measured", "conformal, expected", "conformal, measured"]
    heads.append("AUROC, delivered once more")
    note = (
        "Share of clean faces that each threshold flags: expected by its rule (mean + std: for a normal distribution), "
        "and measured on clean test faces. The last column is the control: clean test faces against the same ones "
        "saved once more as JPEG; 0.5 if a defence does not mind."
    )
    return table("False positives of the thresholds", "defence", heads, rows, note)


def _adaptive(run: RunData) -> Table:
    names = sorted({key.split("/")[1].partition(":")[0] for key in run.metrics if key.startswith("adaptive/")})
    defences = [name for name in run.params.defences if any(f":{name}_asr_unflagged" in key for key in run.metrics)]
    rows = []
    for name in names:
        keys = ["clean_accuracy", "asr", "control_asr"]
        keys += [f"{defence}_{rate}" for defence in defences for rate in ("asr_unflagged", "control_asr_unflagged")]
        cells = tuple(interval_cells(run.metrics, f"adaptive/{name}:{key}", "percent") for key in keys)
        rows.append(Row(", ".join(map(label, name.split("-"))), cells))
    heads = ["clean accuracy", "attack success", "on a clean network"]
    heads += [f"{label(defence)}{end}" for defence in defences for end in (": not flagged", ", clean network")]
    note = (
        "Attackers who know a defence: who weakens the trigger in training, searches the key, or trains the network. "
        "The same key on a network without a backdoor shows what an adversarial example alone would reach."
    )
    return table("Attackers who know the defence", "attacker", heads, rows, note)
