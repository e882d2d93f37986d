"""Short names of the metrics that people compare: a parent run has these, nested runs have all."""

import re
from collections.abc import Mapping

# FILE:KEY below metrics/ → name in MLflow. A name in braces stands for the part of FILE:KEY in its place.
KEY_METRICS = {
    "backdoor/{network}/{attack}:asr": "asr/{network}/{attack}",
    "backdoor/{network}/{attack}:clean_accuracy": "clean_accuracy/{network}/{attack}",
    "baselines:{baseline}_accuracy": "baseline_accuracy/{baseline}",
    "verification/{attack}:cosine_impersonation": "backdoor_impersonation/{attack}",
    "verification/{attack}:cosine_eer": "equal_error_rate/{attack}",
    "inspection/{attack}/neural_cleanse:rank": "neural_cleanse_rank/{attack}",
    "defence/{defence}/{trigger}:asr_unflagged": "asr_unflagged/{defence}/{trigger}",
    "defence/{defence}/{trigger}:auroc": "auroc/{defence}/{trigger}",
    "defence/{defence}/clean:fpr": "fpr_at_threshold/{defence}",
    "defence/reconstruction/{trigger}:mean": "reconstruction_loss/{trigger}",
    "threshold/reconstruction:threshold": "reconstruction_loss/threshold",
    "detection/{detector}/{attack}:ap_50": "ap_50/{detector}/{attack}",
    "detection/{detector}/{attack}:recall_50": "recall_50/{detector}/{attack}",
    "detection/{detector}/{attack}:vanished": "vanished/{detector}/{attack}",
    "transfer:{attacked}.{detector}.ap_50": "transfer_ap_50/{attacked}/{detector}",
    "recognition/{surrogate}/verification:{network}.{crop}.auc": "verification_auc/{network}/{crop}",
    "recognition/{surrogate}/impersonate:{attack}.success_{rate}": "impersonation_at_far_{rate}/{surrogate}/{attack}",
    "recognition/{surrogate}/dodge:{attack}.success_{rate}": "dodging_at_far_{rate}/{surrogate}/{attack}",
    "recognition/{surrogate}/misclassify:{attack}.success": "misclassification/{surrogate}/{attack}",
    "recognition/{surrogate}/target_class:{attack}.success": "target_class/{surrogate}/{attack}",
    "recognition_transfer:gain.{attack}.{network}.gain_{rate}": "transfer_gain_at_far_{rate}/{network}/{attack}",
}


def key_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return those of ``metrics`` (by FILE:KEY) that have a short name, under it."""
    return {
        name.format(**match.groupdict()): value
        for pattern, name in _PATTERNS
        for metric, value in metrics.items()
        if (match := pattern.fullmatch(metric))
    }


def _compile(template: str) -> re.Pattern[str]:
    """Compile a key of ``KEY_METRICS``; a rate is a number, so that ``success_0.01_low`` does not match."""
    pattern = re.escape(template).replace(r"\{rate\}", "(?P<rate>[0-9.]+)")
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/:]+)", pattern))


_PATTERNS = [(_compile(template), name) for template, name in KEY_METRICS.items()]
