"""The trigger × defence matrix: every defence on the same triggered files, in one table."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from visor.evaluation.defence import CLEAN, Scores, detection_numbers
from visor.faces import Selection
from visor.metrics import Groups
from visor.params import Backdoor

REFERENCE = "reconstruction"


def card_name(defence: str, attack: str | None) -> str:
    """Name the scores of a defence; one that questions a network has some for each attack that one was trained on."""
    return f"{defence}-{attack}" if attack else defence


def cards(folder: Path, defences: Iterable[str]) -> list[str]:
    """Return the cards whose scores are in a folder, in the order of the defences; others are left out."""
    found = sorted(path.stem for path in folder.glob("*.csv"))
    return [card for defence in defences for card in found if defence_of(card) == defence]


def seen_with(attack: str | None, sets: Mapping[str, Selection]) -> dict[str, Selection]:
    """Return the sets a defence is shown: all of them, or clean faces and those with the attack's own trigger."""
    own = (*CLEAN, attack)
    return {name: chosen for name, chosen in sets.items() if attack is None or name in own}


def defence_of(card: str) -> str:
    """Return the defence that a card is of."""
    return card.partition("-")[0]


def groups_of(table: pd.DataFrame, backdoors: Mapping[str, Backdoor]) -> dict[str, Groups]:
    """Return what the images of each set have in common: the person, or the key where the key is all there is.

    Keys are negative, so that none is taken for a person.
    """
    found = {str(name): group["label"].to_numpy() for name, group in table.groupby("set", sort=False)}
    for name, backdoor in backdoors.items():
        if backdoor.key == "face":
            found[name] = -1 - np.arange(len(found[name])) % backdoor.keys
    return found


def matrix(
    cards: Mapping[str, Scores],
    groups: Mapping[str, Groups],
    thresholds: Mapping[str, Mapping[str, float]],
    digests: Mapping[str, str],
    validation: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """Return a line for each card and trigger: ``defence``, ``trigger``, numbers of detection, provenance.

    ``role`` says whether choices were made by looking at a trigger; ``digest`` is that of its file.
    """
    lines: list[dict[str, Any]] = []
    for card, scores in cards.items():
        for trigger in (name for name in scores if name not in CLEAN):
            numbers = detection_numbers(scores, cards[REFERENCE], trigger, groups, thresholds[card], seed)
            about = {"card": card, "defence": defence_of(card), "trigger": trigger}
            role = "validation" if trigger in validation else "reported"
            lines.append({**about, **numbers, "role": role, "digest": digests[trigger]})
    return pd.DataFrame(lines)


def markdown(table: pd.DataFrame, clean: Mapping[str, Mapping[str, float]], rules: Mapping[str, Any]) -> str:
    """Return two tables for people: AUROC by trigger and defence, and the calibration card of every defence."""
    columns = list(dict.fromkeys(table["defence"]))
    lines = [f"| trigger | role | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for trigger, found in table.groupby("trigger", sort=False):
        values = found.set_index("defence")["auroc"]
        cells = [f"{values[name]:.3f}" if name in values else "–" for name in columns]
        lines.append(f"| {trigger} | {found['role'].iloc[0]} | {' | '.join(cells)} |")
    lines += ["", "| card | rule | implied FPR | FPR on held-out | conformal rule | conformal FPR | held |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for card, numbers in clean.items():
        rule = rules[card]
        cells = [card, f"mean + {rule['deviations']:g}·std", f"{rule['implied_fpr']:.1%}", _share(numbers, "fpr")]
        cells += [
            f"≤ {rule['conformal_fpr']:.0%}",
            _share(numbers, "conformal_fpr"),
            f"{numbers['conformal_held']:.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    title = "# Detectors of poisoned images: AUROC by trigger, then how thresholds were set"
    return "\n".join([title, "", *lines, ""])


def _share(numbers: Mapping[str, float], name: str) -> str:
    return f"{numbers[name]:.1%} ({numbers[f'{name}_low']:.1%} to {numbers[f'{name}_high']:.1%})"
