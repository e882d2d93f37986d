"""How many poisons a backdoor needs, and how strongly they carry the key: a trained network for each answer."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from visor.backdoors.poison import Place, Stamp, candidates, choose, find_keys, fixed, poisons, target_label, triggered
from visor.evaluation.backdoor import accuracy, attack_success, predict
from visor.evaluation.defence import digest
from visor.faces import FaceSet, open_faces, write_faces
from visor.files import read_json, write_json
from visor.landmarks import ByLandmarks
from visor.metrics import wilson_interval
from visor.models import storage
from visor.models.inference import compiled
from visor.models.losses import cross_entropy
from visor.models.storage import Build
from visor.params import Backdoor, Compute, PoisonBudget
from visor.split import rows_of
from visor.training import CHECKPOINTS, SIDE_BY_SIDE, configure, fit, labelled, reseed, run_side_by_side

CELLS = CHECKPOINTS / "poison_budget"
BUILDING = Lock()  # what a network starts from hangs on a seed of the whole process
SUCCESS = 0.9
COLUMNS = [
    *("network", "attack", "n", "seed", "poison_ratio", "backdoor_ratio"),
    *("asr", "asr_low", "asr_high", "triggered_images"),
    *("clean_accuracy", "clean_accuracy_low", "clean_accuracy_high", "clean_images"),
]


class Attack(NamedTuple):
    """A block of ``backdoors``, its trigger, and where a key goes on a face."""

    backdoor: Backdoor
    stamp: Stamp
    place: Place


class Cell(NamedTuple):
    """One network to train, and the ratios at which test images carry the key."""

    network: str
    attack: str
    n: int
    seed: int
    poison_ratio: float
    backdoor_ratios: tuple[float, ...]


class Ground(NamedTuple):
    """What cells have in common; ``networks`` are build functions and arguments, ``pictures`` the folder of keys."""

    faces: FaceSet
    table: pd.DataFrame
    networks: Mapping[str, tuple[Build, Mapping[str, Any]]]
    attacks: Mapping[str, Attack]
    pictures: Path


def attack(backdoor: Backdoor, stamp: Stamp) -> Attack:
    """Join a block of ``backdoors`` with its trigger and the way of placing its key."""
    return Attack(backdoor, stamp, ByLandmarks() if backdoor.placement == "landmarks" else fixed)


def cells(settings: PoisonBudget, attacks: Mapping[str, Attack]) -> list[Cell]:
    """Return the networks to train: those of the curves, then those of the heat map that are not among them."""
    ratios = settings.ratios
    wanted: dict[tuple[str, str, int, int, float], set[float]] = {}
    for network, name, n, seed in product(settings.networks, settings.attacks, sorted(settings.n), settings.seeds):
        block = attacks[name].backdoor
        wanted.setdefault((network, name, n, seed, block.poison_ratio), set()).add(block.backdoor_ratio)
    for network, ratio, seed in product(settings.networks, ratios.train, settings.seeds):
        wanted.setdefault((network, ratios.attack, ratios.n, seed, ratio), set()).update(ratios.test)
    return [Cell(*key, tuple(sorted(ratios))) for key, ratios in wanted.items()]


def evaluate(ground: Ground, settings: PoisonBudget, compute: Compute) -> pd.DataFrame:
    """Return a line for each cell and test ratio: attack success and clean accuracy with their Wilson intervals.

    Cells that are done are kept in ``CELLS``: a stage that was killed goes on where it was.
    """
    wanted = cells(settings, ground.attacks)
    data: list[Any] = [digest(ground.faces.path), hashlib.sha256(ground.table.to_csv().encode()).hexdigest()]
    data += [settings.model_dump(include={"epochs", "batch", "learning_rate"}), compute.model_dump()]
    paths = {}
    for cell in wanted:
        about = json.dumps([*data, *cell, *_identity(ground, cell)])
        paths[cell] = CELLS / f"{hashlib.sha256(about.encode()).hexdigest()[:32]}.json"
    configure(compute, 0, SIDE_BY_SIDE)
    with tqdm(desc="poison budget", unit="network", total=len(wanted), disable=None) as bar:

        def keep(cell: Cell) -> None:
            if not paths[cell].exists():
                write_json(paths[cell], {"lines": measure(ground, cell, settings, compute, paths[cell])})
            bar.update()

        run_side_by_side([partial(keep, cell) for cell in wanted])
    # What was just measured is read back as well: the same bytes, interrupted or not.
    return pd.DataFrame([line for cell in wanted for line in read_json(paths[cell])["lines"]], columns=COLUMNS)


def measure(ground: Ground, cell: Cell, settings: PoisonBudget, compute: Compute, path: Path) -> list[dict[str, Any]]:
    """Train the network of a cell; return a line for each test ratio. Files beside ``path`` are left while it lasts."""
    faces, table = ground.faces, ground.table
    train, validation, test = (faces.select(rows_of(table, name)) for name in ("train", "validation", "test"))
    block, stamp, place = ground.attacks[cell.attack]
    backdoor = block.model_copy(update={"n": cell.n, "poison_ratio": cell.poison_ratio})
    keys = find_keys(faces, table, backdoor, ground.pictures, cell.seed)
    poisoned = path.with_suffix(".h5")
    if not poisoned.exists():  # an interrupted fit knows its data by their date
        blocks = poisons(faces, table, backdoor, stamp, keys[0], cell.seed, place)
        write_faces(poisoned, blocks, faces.image_shape, faces.label_names, faces.source, faces.licence)
    with BUILDING:
        reseed(cell.seed)
        model = storage.construct(*ground.networks[cell.network], f"classifiers.{cell.network}.architecture")
    data = labelled([train, open_faces(poisoned).select()], cell.seed), labelled([validation], cell.seed)
    fit(model, cross_entropy, *data, settings, compute, cell.seed, path.with_suffix(".csv"))

    classify, target = compiled(model), target_label(backdoor.target, faces.label_names, table)
    clean = accuracy(predict(classify, test), test.labels)
    lines = []
    for ratio in cell.backdoor_ratios:
        carried = backdoor.model_copy(update={"backdoor_ratio": ratio})
        blocks = triggered(faces, table, carried, stamp, keys, cell.seed, place)
        answers = [(classify(block.images).argmax(axis=-1), block.labels) for block in blocks]
        predicted, labels = (np.concatenate(column) for column in zip(*answers, strict=True))
        about = dict(zip(COLUMNS, (*cell[:-1], ratio), strict=False))
        lines.append({**about, **attack_success(predicted, labels, target), **clean})
    poisoned.unlink()
    return lines


def forget() -> None:
    """Delete the cells: what is saved needs no going on with."""
    shutil.rmtree(CELLS)
    with suppress(OSError):  # an interrupted fit has left something there
        CHECKPOINTS.rmdir()


def curves(
    lines: pd.DataFrame, settings: PoisonBudget, attacks: Mapping[str, Attack]
) -> dict[tuple[str, str], pd.DataFrame]:
    """Return success and clean accuracy by n, the seeds pooled, for each network and attack.

    The ratios are those of the attack's own block; other lines are of the heat map.
    """
    found = {}
    for network, name in product(settings.networks, settings.attacks):
        ratios = attacks[name].backdoor.model_dump(include={"poison_ratio", "backdoor_ratio"})
        wanted = {"network": network, "attack": name, **ratios}
        own = lines[(lines[list(wanted)] == pd.Series(wanted)).all(axis=1) & lines["n"].isin(settings.n)]
        found[network, name] = pd.DataFrame([{"n": n, **pooled(group)} for n, group in own.groupby("n")])
    return found


def grid(lines: pd.DataFrame, settings: PoisonBudget) -> pd.DataFrame:
    """Return the lines of the heat map."""
    ratios = settings.ratios
    ours = (lines["attack"] == ratios.attack) & (lines["n"] == ratios.n)
    return lines[ours & lines["poison_ratio"].isin(ratios.train) & lines["backdoor_ratio"].isin(ratios.test)]


def pooled(lines: pd.DataFrame) -> dict[str, float]:
    """Return shares over the images of several lines, with their Wilson intervals."""
    found: dict[str, float] = {}
    for name, images in (("asr", "triggered_images"), ("clean_accuracy", "clean_images")):
        hits, trials = int((lines[name] * lines[images]).round().sum()), int(lines[images].sum())
        low, high = wilson_interval(hits, trials)
        found |= {name: hits / trials, f"{name}_low": low, f"{name}_high": high}
    return found


def needed(counts: Sequence[int], rates: Sequence[float]) -> int | None:
    """Return the smallest of the ascending counts from which on no rate is below ``SUCCESS``; None if there is none."""
    short = [place for place, rate in enumerate(rates) if rate < SUCCESS]
    return next(iter(counts[short[-1] + 1 :] if short else counts), None)


def numbers(curve: pd.DataFrame, settings: PoisonBudget) -> dict[str, float]:
    """Return the numbers of one curve; ``n_at_90`` is absent where no n of the list is enough."""
    found: dict[str, float] = {"seeds": len(settings.seeds), "clean_accuracy_lowest": curve["clean_accuracy"].min()}
    for line in curve.to_dict("records"):
        found |= {f"{name}_at_{line['n']}": line[name] for name in ("asr", "asr_low", "asr_high")}
    enough = needed(curve["n"].tolist(), curve["asr"].tolist())
    return found if enough is None else {"n_at_90": enough, **found}


def _identity(ground: Ground, cell: Cell) -> tuple[Mapping[str, Any], str, str]:
    """Return what else decides a cell: the network's arguments, the attack's block, the pixels of its keys.

    Too large an n is refused here, before the first training.
    """
    backdoor = ground.attacks[cell.attack].backdoor
    target = target_label(backdoor.target, ground.faces.label_names, ground.table)
    choose(candidates(ground.table, "poison", target), cell.n, np.random.default_rng(cell.seed))
    keys = find_keys(ground.faces, ground.table, backdoor, ground.pictures, cell.seed)
    block = backdoor.model_dump_json(exclude={"n", "poison_ratio", "backdoor_ratio"})
    return ground.networks[cell.network][1], block, hashlib.sha256(np.ascontiguousarray(keys).tobytes()).hexdigest()
