"""Writes the tables of README.md from metrics/, each between its marks:  python docs/results.py"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from visor.core.config import load_params
from visor.core.files import read_json
from visor.core.params import Params
from visor.core.tables import label, text_table
from visor.evaluation.conditions import DODGE, verification_goals

ROOT = Path(__file__).parents[1]
TITLES = {
    "deepid": "DeepID",
    "vgg_face": "VGG-Face",
    "deepface": "DeepFace",
    "facenet": "FaceNet",
    "resnet50": "ResNet-50",
    "ssd": "SSD",
    "faster_rcnn": "Faster R-CNN",
    "mtcnn": "MTCNN",
    "strip": "STRIP",
    "knn": "kNN",
    "suite_alone": "suite without second opinion",
}
PAGES = {"README.md": "."}  # and the folder of the run that each tells of
FILTERS = ["reconstruction", "raw_mahalanobis", "strip", "feature_mahalanobis", "suite_alone", "suite"]


class Run(NamedTuple):
    """A folder with params.yaml and metrics/, and its params."""

    folder: Path
    params: Params

    def metrics(self, name: str) -> Any:
        """Return the numbers of a file of metrics/."""
        return read_json(self.folder / f"metrics/{name}.json")

    @property
    def attacks(self) -> list[str]:
        """Attacks on every network; the adaptive ones are on the inspected network alone."""
        others = {"clean", *self.params.adaptive_attacks.training_sets}
        return [name for name in self.params.training_sets if name not in others]


def backdoors(run: Run) -> str:
    """Attack success with its interval, and clean accuracy, of each network; the clean network beside them."""
    networks = run.params.networks
    rows = [
        (
            "none",
            [
                "0",
                *(f"({percent(run.metrics(f'backdoor/{name}/clean')['clean_accuracy'])})" for name in networks),
                "–",
                "–",
            ],
        )
    ]
    for attack in run.attacks:
        found = [run.metrics(f"backdoor/{name}/{attack}") for name in networks]
        first = found[0]
        shares = percent(first["poison_share"]), percent(first["poison_share_of_target"], 0)
        poisons = f"{first['n']}: {shares[0]} of all, {shares[1]} of the target's"
        cells = [f"{rate(numbers, 'asr')} ({percent(numbers['clean_accuracy'])})" for numbers in found]
        rows.append(
            (label(attack), [poisons, *cells, percent(first["asr_of_clean_model"]), str(first["triggered_images"])])
        )
    return text_table("attack", ["poisons", *map(title, networks), "DeepID without poisons", "n"], rows).to_markdown()


def defences(run: Run) -> str:
    """What gets through each defence: classified as the target and not flagged, of the triggered images."""
    rows = []
    filters = [name for name in FILTERS if run.params.second_opinion.network or name != "suite_alone"]
    for attack in run.attacks:
        found = {name: run.metrics(f"defence/{card(run, name, attack)}/{attack}") for name in filters}
        through = [percent(numbers["asr_unflagged"]) for numbers in found.values()]
        suite = found["suite"]
        cells = [
            f"{percent(suite['asr'])} of {suite['asr_images']:.0f}",
            *through[:-1],
            rate(suite, "asr_unflagged"),
            rate(suite, "fpr_correctly_classified"),
        ]
        rows.append((label(attack), cells))
    columns = ["no defence", *map(title, filters), "clean faces that the suite flags"]
    return text_table("attack", columns, rows).to_markdown()


def attackers(run: Run) -> str:
    """What gets through of attackers who know the defence, the worst first, beside the same on the clean network."""
    found = {path.stem: read_json(path) for path in sorted((run.folder / "metrics/adaptive").glob("*.json"))}
    rows = []
    for name in sorted(found, key=lambda name: -found[name]["suite_asr_unflagged"]):
        numbers = found[name]
        attack, *details = name.split("-")
        cells = [f"{percent(numbers['asr'])} of {numbers['asr_images']:.0f}"]
        cells += [percent(numbers[f"{part}_asr_unflagged"]) for part in ("feature_mahalanobis", "knn")]
        cells += [rate(numbers, "suite_asr_unflagged"), percent(numbers["suite_control_asr_unflagged"])]
        about = f" ({label(details[0])}, against {label(details[1])})" if details else ""
        rows.append((f"{label(attack)}{about}", cells))
    columns = ["no defence", "feature mahalanobis", "kNN", "suite", "suite, clean network"]
    return text_table("attacker", columns, rows).to_markdown()


def hiding(run: Run) -> str:
    """Faces that vanish, recall and AP of each detector: clean, noise, PGD, JPEG."""
    last = run.params.detection_attack.strengths[-1]
    strengths = [f"{each.eps:g}x{each.iterations}" for each in run.params.detection_attack.strengths]
    conditions = {f"noise_{last.eps:g}": f"noise {last.eps:g}/255"}
    conditions |= {f"pgd_{each}": f"PGD {each.replace('x', '/255 × ')}" for each in strengths}
    conditions |= {
        f"jpeg{quality}_{strengths[-1]}": f"then JPEG {quality}" for quality in run.params.detection_attack.jpeg
    }
    rows = []
    for detector in run.params.detection_attack.detectors:
        clean = run.metrics(f"detection/{detector}/clean")
        cells = [
            "–",
            rate(clean, "recall_30"),
            number(clean, "ap_50"),
            f"{clean['faces']} faces, {clean['images']} scenes",
        ]
        rows.append((f"{title(detector)}, clean", cells))
        for name, about in conditions.items():
            found = run.metrics(f"detection/{detector}/{name}")
            cells = [rate(found, "vanished"), rate(found, "recall_30"), number(found, "ap_50")]
            rows.append((f"{title(detector)}, {about}", [*cells, f"{found['faces']} faces, {found['images']} scenes"]))
    return text_table("", ["vanished", "recall@.3", "AP@.5", "n"], rows).to_markdown()


def recognisers(run: Run) -> str:
    """TAR and AUC on unseen people, and success by goal of each recogniser, of the attacked and of the others."""
    settings = run.params.recognition_attack
    far, surrogate = f"{settings.false_accept_rates[0]:g}", settings.white_box[0]
    least, most = settings.strengths[0], settings.strengths[-1]
    method = list(settings.methods)[-1]
    verified, transfer = run.metrics(f"recognition/{surrogate}/verification"), run.metrics("recognition_transfer")
    rows = []
    for name in settings.networks:
        about = verified[name]["none"]
        cells = [rate(about, f"tar_{far}"), f"{about['auc']:.3f}"]
        for goal in verification_goals(settings):
            if name == surrogate:
                found = run.metrics(f"recognition/{name}/{goal}")
                attack, noise = found[f"pgd_{least.eps:g}x{least.iterations}"], found[f"noise_{least.eps:g}"]
            else:
                found = transfer[goal][surrogate]
                keys = f"{method}_{most.eps:g}x{most.iterations}", f"noise_{most.eps:g}"
                attack, noise = (found[key][name]["none"] for key in keys)
            cells.append(f"{rate(attack, f'success_{far}')}, noise {percent(noise[f'success_{far}'])}")
        rows.append((title(name), cells))
    goals = [
        label(goal) if goal == DODGE else label(goal).replace("impersonate", "impersonate the")
        for goal in verification_goals(settings)
    ]
    return text_table("network", [f"TAR at FAR {float(far):.0%}", "AUC", *goals], rows).to_markdown()


TABLES: dict[str, Callable[[Run], str]] = {
    "backdoors": backdoors,
    "defences": defences,
    "attackers": attackers,
    "hiding": hiding,
    "recognisers": recognisers,
}


def card(run: Run, name: str, attack: str) -> str:
    """Return the name of a defence's scores, which are of one network where it questions the network."""
    return f"{name}-{attack}" if (run.folder / f"metrics/defence/{name}-{attack}").is_dir() else name


def percent(share: float, digits: int = 1) -> str:
    """Return a share as percent."""
    return f"{100 * share:.{digits}f} %"


def rate(numbers: dict[str, float], key: str) -> str:
    """Return a share and its 95 % interval in percent, ``97.5 % [95.1, 98.9]``."""
    low, high = (100 * numbers[f"{key}_{end}"] for end in ("low", "high"))
    return f"{percent(numbers[key])} [{low:.1f}, {high:.1f}]"


def number(numbers: dict[str, float], key: str) -> str:
    """Return a number and its 95 % interval, ``0.93 [0.88, 0.96]``."""
    return f"{numbers[key]:.2f} [{numbers[f'{key}_low']:.2f}, {numbers[f'{key}_high']:.2f}]"


def title(name: str) -> str:
    """Return a name as the field writes it."""
    return TITLES.get(name, label(name))


def with_tables(page: str) -> str:
    """Return the text of a page of ``PAGES`` with each table written anew between its marks."""
    folder, text = ROOT / PAGES[page], (ROOT / page).read_text(encoding="utf-8")
    run = Run(folder, load_params(folder / "params.yaml"))
    for name, table in TABLES.items():
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        if text.count(begin) != 1:
            raise SystemExit(f"{page} should have the line {begin.strip()} once")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{table(run)}\n\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    for page in PAGES:
        (ROOT / page).write_text(with_tables(page), encoding="utf-8")
