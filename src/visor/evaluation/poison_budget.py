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

from visor.attacks.backdoors.placement import LandmarkPlacement
from visor.attacks.backdoors.poisoning import (
    PlacementFn,
    TriggerFn,
    eligible_rows,
    fixed_placement,
    load_keys,
    make_poisons,
    make_triggered,
    sample_rows,
    target_label,
)
from visor.core.files import read_json, sha256_of_file, write_json
from visor.core.params import BackdoorParams, ComputeParams, PoisonBudgetParams
from visor.data.face_set import FaceSet, open_faces, write_faces
from visor.data.split import set_rows
from visor.evaluation.backdoor import accuracy, attack_success, predict
from visor.evaluation.metrics import wilson_interval
from visor.models import storage
from visor.models.inference import compile_predict
from visor.models.losses import classification_loss
from visor.models.storage import Build
from visor.models.training import (
    CHECKPOINTS,
    PARALLEL_JOBS,
    configure_tensorflow,
    fit,
    labelled_data,
    run_in_threads,
    set_seed,
)

RUNS_FOLDER = CHECKPOINTS / "poison_budget"
BUILD_LOCK = Lock()  # what a network starts from hangs on a seed of the whole process
SUCCESS = 0.9
COLUMNS = [
    *("network", "attack", "n", "seed", "train_blend_ratio", "test_blend_ratio"),
    *("asr", "asr_low", "asr_high", "triggered_images"),
    *("clean_accuracy", "clean_accuracy_low", "clean_accuracy_high", "clean_images"),
]


class Attack(NamedTuple):
    """A block of ``backdoors``, its trigger, and where a key goes on a face."""

    backdoor: BackdoorParams
    stamp: TriggerFn
    place: PlacementFn


class TrainingRun(NamedTuple):
    """One network to train, and the ratios at which test images carry the key."""

    network: str
    attack: str
    n: int
    seed: int
    train_blend_ratio: float
    backdoor_ratios: tuple[float, ...]


class ExperimentContext(NamedTuple):
    """What cells have in common; ``networks`` are build functions and arguments, ``pictures`` the folder of keys."""

    faces: FaceSet
    table: pd.DataFrame
    networks: Mapping[str, tuple[Build, Mapping[str, Any]]]
    attacks: Mapping[str, Attack]
    pictures: Path


def attack(backdoor: BackdoorParams, stamp: TriggerFn) -> Attack:
    """Join a block of ``backdoors`` with its trigger and the way of placing its key."""
    return Attack(backdoor, stamp, LandmarkPlacement() if backdoor.placement == "landmarks" else fixed_placement)


def training_runs(settings: PoisonBudgetParams, attacks: Mapping[str, Attack]) -> list[TrainingRun]:
    """Return the networks to train: those of the curves, then those of the heat map that are not among them."""
    ratios = settings.ratios
    wanted: dict[tuple[str, str, int, int, float], set[float]] = {}
    for network, name, n, seed in product(settings.networks, settings.attacks, sorted(settings.n), settings.seeds):
        block = attacks[name].backdoor
        wanted.setdefault((network, name, n, seed, block.train_blend_ratio), set()).add(block.test_blend_ratio)
    for network, ratio, seed in product(settings.networks, ratios.train, settings.seeds):
        wanted.setdefault((network, ratios.attack, ratios.n, seed, ratio), set()).update(ratios.test)
    return [TrainingRun(*key, tuple(sorted(ratios))) for key, ratios in wanted.items()]


def evaluate(ground: ExperimentContext, settings: PoisonBudgetParams, compute: ComputeParams) -> pd.DataFrame:
    """Return a line for each cell and test ratio: attack success and clean accuracy with their Wilson intervals.

    Cells that are done are kept in ``CELLS``: a stage that was killed goes on where it was.
    """
    wanted = training_runs(settings, ground.attacks)
    data: list[Any] = [
        sha256_of_file(ground.faces.path)[:16],
        hashlib.sha256(ground.table.to_csv().encode()).hexdigest(),
    ]
    data += [settings.model_dump(include={"epochs", "batch", "learning_rate"}), compute.model_dump()]
    paths = {}
    for cell in wanted:
        about = json.dumps([*data, *cell, *_identity(ground, cell)])
        paths[cell] = RUNS_FOLDER / f"{hashlib.sha256(about.encode()).hexdigest()[:32]}.json"
    configure_tensorflow(compute, 0, PARALLEL_JOBS)
    with tqdm(desc="poison budget", unit="network", total=len(wanted), disable=None) as bar:

        def keep(cell: TrainingRun) -> None:
            if not paths[cell].exists():
                write_json(paths[cell], {"lines": measure(ground, cell, settings, compute, paths[cell])})
            bar.update()

        run_in_threads([partial(keep, cell) for cell in wanted])
    # What was just measured is read back as well: the same bytes, interrupted or not.
    return pd.DataFrame([line for cell in wanted for line in read_json(paths[cell])["lines"]], columns=COLUMNS)


def measure(
    ground: ExperimentContext, cell: TrainingRun, settings: PoisonBudgetParams, compute: ComputeParams, path: Path
) -> list[dict[str, Any]]:
    """Train the network of a cell; return a line for each test ratio. Files beside ``path`` are left while it lasts."""
    faces, table = ground.faces, ground.table
    train, validation, test = (faces.select(set_rows(table, name)) for name in ("train", "validation", "test"))
    block, stamp, place = ground.attacks[cell.attack]
    backdoor = block.model_copy(update={"n": cell.n, "train_blend_ratio": cell.train_blend_ratio})
    keys = load_keys(faces, table, backdoor, ground.pictures, cell.seed)
    poisoned = path.with_suffix(".h5")
    if not poisoned.exists():  # an interrupted fit knows its data by their date
        blocks = make_poisons(faces, table, backdoor, stamp, keys[0], cell.seed, place)
        write_faces(poisoned, blocks, faces.image_shape, faces.label_names, faces.source, faces.licence)
    with BUILD_LOCK:
        set_seed(cell.seed)
        model = storage.build_model(*ground.networks[cell.network], f"classifiers.{cell.network}.architecture")
    data = labelled_data([train, open_faces(poisoned).select()], cell.seed), labelled_data([validation], cell.seed)
    fit(model, classification_loss, *data, settings, compute, cell.seed, path.with_suffix(".csv"))

    classify, target = compile_predict(model), target_label(backdoor.target, faces.label_names, table)
    clean = accuracy(predict(classify, test), test.labels)
    lines = []
    for ratio in cell.backdoor_ratios:
        carried = backdoor.model_copy(update={"test_blend_ratio": ratio})
        blocks = make_triggered(faces, table, carried, stamp, keys, cell.seed, place)
        answers = [(classify(block.images).argmax(axis=-1), block.labels) for block in blocks]
        predicted, labels = (np.concatenate(column) for column in zip(*answers, strict=True))
        about = dict(zip(COLUMNS, (*cell[:-1], ratio), strict=False))
        lines.append({**about, **attack_success(predicted, labels, target), **clean})
    poisoned.unlink()
    return lines


def delete_runs() -> None:
    """Delete the cells: what is saved needs no going on with."""
    shutil.rmtree(RUNS_FOLDER)
    with suppress(OSError):  # an interrupted fit has left something there
        CHECKPOINTS.rmdir()


def curves(
    lines: pd.DataFrame, settings: PoisonBudgetParams, attacks: Mapping[str, Attack]
) -> dict[tuple[str, str], pd.DataFrame]:
    """Return success and clean accuracy by n, the seeds pooled, for each network and attack.

    The ratios are those of the attack's own block; other lines are of the heat map.
    """
    found = {}
    for network, name in product(settings.networks, settings.attacks):
        ratios = attacks[name].backdoor.model_dump(include={"train_blend_ratio", "test_blend_ratio"})
        wanted = {"network": network, "attack": name, **ratios}
        own = lines[(lines[list(wanted)] == pd.Series(wanted)).all(axis=1) & lines["n"].isin(settings.n)]
        found[network, name] = pd.DataFrame([{"n": n, **pooled(group)} for n, group in own.groupby("n")])
    return found


def ratio_rows(lines: pd.DataFrame, settings: PoisonBudgetParams) -> pd.DataFrame:
    """Return the lines of the heat map."""
    ratios = settings.ratios
    ours = (lines["attack"] == ratios.attack) & (lines["n"] == ratios.n)
    return lines[ours & lines["train_blend_ratio"].isin(ratios.train) & lines["test_blend_ratio"].isin(ratios.test)]


def pooled(lines: pd.DataFrame) -> dict[str, float]:
    """Return shares over the images of several lines, with their Wilson intervals."""
    found: dict[str, float] = {}
    for name, images in (("asr", "triggered_images"), ("clean_accuracy", "clean_images")):
        hits, trials = int((lines[name] * lines[images]).round().sum()), int(lines[images].sum())
        low, high = wilson_interval(hits, trials)
        found |= {name: hits / trials, f"{name}_low": low, f"{name}_high": high}
    return found


def smallest_sufficient(counts: Sequence[int], rates: Sequence[float]) -> int | None:
    """Return the smallest of the ascending counts from which on no rate is below ``SUCCESS``; None if there is none."""
    short = [place for place, rate in enumerate(rates) if rate < SUCCESS]
    return next(iter(counts[short[-1] + 1 :] if short else counts), None)


def curve_metrics(curve: pd.DataFrame, settings: PoisonBudgetParams) -> dict[str, float]:
    """Return the numbers of one curve; ``n_at_90`` is absent where no n of the list is enough."""
    found: dict[str, float] = {"seeds": len(settings.seeds), "clean_accuracy_lowest": curve["clean_accuracy"].min()}
    for line in curve.to_dict("records"):
        found |= {f"{name}_at_{line['n']}": line[name] for name in ("asr", "asr_low", "asr_high")}
    enough = smallest_sufficient(curve["n"].tolist(), curve["asr"].tolist())
    return found if enough is None else {"n_at_90": enough, **found}


def _identity(ground: ExperimentContext, cell: TrainingRun) -> tuple[Mapping[str, Any], str, str]:
    """Return what else decides a cell: the network's arguments, the attack's block, the pixels of its keys.

    Too large an n is refused here, before the first training.
    """
    backdoor = ground.attacks[cell.attack].backdoor
    target = target_label(backdoor.target, ground.faces.label_names, ground.table)
    sample_rows(eligible_rows(ground.table, "poison", target), cell.n, np.random.default_rng(cell.seed))
    keys = load_keys(ground.faces, ground.table, backdoor, ground.pictures, cell.seed)
    block = backdoor.model_dump_json(exclude={"n", "train_blend_ratio", "test_blend_ratio"})
    return ground.networks[cell.network][1], block, hashlib.sha256(np.ascontiguousarray(keys).tobytes()).hexdigest()
