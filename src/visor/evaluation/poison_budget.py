"""Attack success by number of poisons and by blend ratio: one trained network for each combination."""

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

from visor.attacks.backdoors import poisoning
from visor.attacks.backdoors.placement import LandmarkPlacement
from visor.attacks.backdoors.poisoning import DeliveryFn, PlacementFn, TriggerFn, fixed_placement, pasted
from visor.core.files import read_json, sha256_of_file, write_json
from visor.core.params import BackdoorParams, ComputeParams, PoisonBudgetParams
from visor.data.face_set import FaceSet, open_faces, write_faces
from visor.data.split import set_rows
from visor.evaluation.backdoor import accuracy, attack_success, predict
from visor.evaluation.metrics import rate
from visor.models import storage, training
from visor.models.inference import compile_predict
from visor.models.losses import classification_loss

RUNS_FOLDER = training.CHECKPOINTS / "poison_budget"
BUILD_LOCK = Lock()  # initial weights depend on a seed of the whole process
SUCCESS = 0.9
COLUMNS = [
    *("network", "attack", "n", "seed", "train_blend_ratio", "test_blend_ratio"),
    *("asr", "asr_low", "asr_high", "triggered_images"),
    *("clean_accuracy", "clean_accuracy_low", "clean_accuracy_high", "clean_images"),
]


class BackdoorAttack(NamedTuple):
    """A block of ``backdoors``, its trigger, and the placement of its key."""

    backdoor: BackdoorParams
    trigger: TriggerFn
    place: PlacementFn


class TrainingRun(NamedTuple):
    """One network to train, and the blend ratios of the key on test images."""

    network: str
    attack: str
    n: int
    seed: int
    train_blend_ratio: float
    test_blend_ratios: tuple[float, ...]


class ExperimentContext(NamedTuple):
    """What all runs have in common."""

    faces: FaceSet
    table: pd.DataFrame  # the split
    networks: Mapping[str, tuple[storage.Build, Mapping[str, Any]]]  # build functions and their arguments
    attacks: Mapping[str, BackdoorAttack]
    keys_folder: Path
    deliver: DeliveryFn = pasted


def load_attack(backdoor: BackdoorParams, trigger: TriggerFn) -> BackdoorAttack:
    """Join a block of ``backdoors`` with its trigger and the placement of its key."""
    place = LandmarkPlacement() if backdoor.placement == "landmarks" else fixed_placement
    return BackdoorAttack(backdoor, trigger, place)


def training_runs(settings: PoisonBudgetParams, attacks: Mapping[str, BackdoorAttack]) -> list[TrainingRun]:
    """Return the networks to train: those of the curves, then those of the heat map that are not among them."""
    ratios = settings.ratios
    test_ratios: dict[tuple[str, str, int, int, float], set[float]] = {}
    for network, name, n, seed in product(settings.networks, settings.attacks, sorted(settings.n), settings.seeds):
        block = attacks[name].backdoor
        test_ratios.setdefault((network, name, n, seed, block.train_blend_ratio), set()).add(block.test_blend_ratio)
    for network, ratio, seed in product(settings.networks, ratios.train, settings.seeds):
        test_ratios.setdefault((network, ratios.attack, ratios.n, seed, ratio), set()).update(ratios.test)
    return [TrainingRun(*key, tuple(sorted(values))) for key, values in test_ratios.items()]


def evaluate(context: ExperimentContext, settings: PoisonBudgetParams, compute: ComputeParams) -> pd.DataFrame:
    """Return a row for each run and test ratio: attack success and clean accuracy with their intervals.

    Finished runs are kept in ``RUNS_FOLDER``: a stage that was killed continues where it was.
    """
    runs = training_runs(settings, context.attacks)
    table_digest = hashlib.sha256(context.table.to_csv().encode()).hexdigest()
    data: list[Any] = [sha256_of_file(context.faces.path)[:16], table_digest]
    data += [settings.model_dump(include={"epochs", "batch", "learning_rate"}), compute.model_dump()]
    paths = {}
    for run in runs:
        identity = json.dumps([*data, *run, *_identity(context, run)])
        paths[run] = RUNS_FOLDER / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.json"
    training.configure_tensorflow(compute, 0, training.PARALLEL_JOBS)
    with tqdm(desc="poison budget", unit="network", total=len(runs), disable=None) as bar:

        def keep(run: TrainingRun) -> None:
            if not paths[run].exists():
                write_json(paths[run], {"lines": measure(context, run, settings, compute, paths[run])})
            bar.update()

        training.run_in_threads([partial(keep, run) for run in runs])
    # New results are read back as well: the same bytes, interrupted or not.
    return pd.DataFrame([row for run in runs for row in read_json(paths[run])["lines"]], columns=COLUMNS)


def measure(
    context: ExperimentContext, run: TrainingRun, settings: PoisonBudgetParams, compute: ComputeParams, path: Path
) -> list[dict[str, Any]]:
    """Train the network of a run and return a row for each test ratio; poisons are kept beside ``path`` meanwhile."""
    faces, table, deliver = context.faces, context.table, context.deliver
    train, validation, test = (faces.select(set_rows(table, name)) for name in ("train", "validation", "test"))
    block, trigger, place = context.attacks[run.attack]
    backdoor = block.model_copy(update={"n": run.n, "train_blend_ratio": run.train_blend_ratio})
    keys = poisoning.load_keys(faces, table, backdoor, context.keys_folder, run.seed)
    poisoned = path.with_suffix(".h5")
    if not poisoned.exists():  # An interrupted fit recognises its data by their date.
        blocks = poisoning.make_poisons(faces, table, backdoor, trigger, keys, run.seed, deliver, place)
        write_faces(poisoned, blocks, faces.image_shape, faces.label_names, faces.source, faces.licence)
    with BUILD_LOCK:
        training.set_seed(run.seed)
        model = storage.build_model(*context.networks[run.network], f"classifiers.{run.network}.architecture")
    parts = [train, open_faces(poisoned).select()], [validation]
    data, held_out = (training.labelled_data(part, run.seed) for part in parts)
    training.fit(model, classification_loss, data, held_out, settings, compute, run.seed, path.with_suffix(".csv"))

    classify, target = compile_predict(model), poisoning.target_label(backdoor.target, faces.label_names, table)
    clean = accuracy(predict(classify, test), test.labels)
    rows = []
    for ratio in run.test_blend_ratios:
        at_test = backdoor.model_copy(update={"test_blend_ratio": ratio})
        blocks = poisoning.make_triggered(faces, table, at_test, trigger, keys, run.seed, deliver, place)
        results = [(classify(block.images).argmax(axis=-1), block.labels) for block in blocks]
        predicted, labels = (np.concatenate(column) for column in zip(*results, strict=True))
        fields = dict(zip(COLUMNS, (*run[:-1], ratio), strict=False))
        rows.append({**fields, **attack_success(predicted, labels, target), **clean})
    poisoned.unlink()
    return rows


def delete_runs() -> None:
    """Delete the finished runs: their results are saved elsewhere."""
    shutil.rmtree(RUNS_FOLDER)
    with suppress(OSError):  # An interrupted fit has left something there.
        training.CHECKPOINTS.rmdir()


def curves(
    table: pd.DataFrame, settings: PoisonBudgetParams, attacks: Mapping[str, BackdoorAttack]
) -> dict[tuple[str, str], pd.DataFrame]:
    """Return success and clean accuracy by n, seeds pooled, for each network and attack, at the attack's own ratios."""
    by_attack = {}
    for network, name in product(settings.networks, settings.attacks):
        ratios = attacks[name].backdoor.model_dump(include={"train_blend_ratio", "test_blend_ratio"})
        fields = {"network": network, "attack": name, **ratios}
        rows = table[(table[list(fields)] == pd.Series(fields)).all(axis=1) & table["n"].isin(settings.n)]
        by_attack[network, name] = pd.DataFrame([{"n": n, **pooled(group)} for n, group in rows.groupby("n")])
    return by_attack


def ratio_rows(table: pd.DataFrame, settings: PoisonBudgetParams) -> pd.DataFrame:
    """Return the rows of the heat map."""
    ratios = settings.ratios
    rows = table[(table["attack"] == ratios.attack) & (table["n"] == ratios.n)]
    return rows[rows["train_blend_ratio"].isin(ratios.train) & rows["test_blend_ratio"].isin(ratios.test)]


def pooled(rows: pd.DataFrame) -> dict[str, float]:
    """Return the rates over the images of several rows, with their intervals."""
    rates: dict[str, float] = {}
    for name, images in (("asr", "triggered_images"), ("clean_accuracy", "clean_images")):
        rates |= rate(name, int((rows[name] * rows[images]).round().sum()), int(rows[images].sum()))
    return rates


def smallest_sufficient(counts: Sequence[int], rates: Sequence[float]) -> int | None:
    """Return the smallest of the ascending counts from which on no rate is below ``SUCCESS``; None if there is none."""
    short = [place for place, share in enumerate(rates) if share < SUCCESS]
    return next(iter(counts[short[-1] + 1 :] if short else counts), None)


def curve_metrics(curve: pd.DataFrame, settings: PoisonBudgetParams) -> dict[str, float]:
    """Return the metrics of one curve; ``n_at_90`` is absent where no n of the list is enough."""
    metrics: dict[str, float] = {"seeds": len(settings.seeds), "clean_accuracy_lowest": curve["clean_accuracy"].min()}
    for row in curve.to_dict("records"):
        metrics |= {f"{name}_at_{row['n']}": row[name] for name in ("asr", "asr_low", "asr_high")}
    enough = smallest_sufficient(curve["n"].tolist(), curve["asr"].tolist())
    return metrics if enough is None else {"n_at_90": enough, **metrics}


def _identity(context: ExperimentContext, run: TrainingRun) -> tuple[Mapping[str, Any], str, str]:
    """Return what else a run depends on: the network's arguments, the attack's block, the pixels of its keys.

    Too large an n is reported here, before the first training.
    """
    backdoor = context.attacks[run.attack].backdoor
    target = poisoning.target_label(backdoor.target, context.faces.label_names, context.table)
    poisoning.sample_rows(
        poisoning.eligible_rows(context.table, "poison", target), run.n, np.random.default_rng(run.seed)
    )
    keys = poisoning.load_keys(context.faces, context.table, backdoor, context.keys_folder, run.seed)
    block = backdoor.model_dump_json(exclude={"n", "train_blend_ratio", "test_blend_ratio"})
    return context.networks[run.network][1], block, hashlib.sha256(np.ascontiguousarray(keys).tobytes()).hexdigest()
