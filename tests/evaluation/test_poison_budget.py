"""Poison budgets: which networks are trained, that interrupted work continues, and metrics by hand."""

import json
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest

from tests.conftest import HEIGHT, WIDTH
from visor.attacks.backdoors.placement import LandmarkPlacement
from visor.attacks.backdoors.poisoning import fixed_placement
from visor.attacks.backdoors.triggers import TRIGGERS
from visor.core.errors import UserError
from visor.core.params import BackdoorParams, BlendRatioParams, ComputeParams, PoisonBudgetParams, SplitParams
from visor.data.split import split_rows
from visor.evaluation import poison_budget
from visor.evaluation.metrics import wilson_interval
from visor.evaluation.plots.poison_budget import budgets, ratio_map
from visor.models import training
from visor.models.training import run_in_threads

COMPUTE = ComputeParams(threads=2, deterministic=True)
SETTINGS = PoisonBudgetParams(
    networks=["flat"],
    attacks=["stamp"],
    n=[6, 2],
    seeds=[5, 3],
    ratios=BlendRatioParams(attack="stamp", n=6, train=[0.5, 1.0], test=[0.2, 1.0]),
    epochs=2,
    batch=16,
    learning_rate=1e-2,
)
BLOCK = BackdoorParams(trigger="blended", key="face", target="bob", n=99, train_blend_ratio=1.0, test_blend_ratio=0.7)
ATTACKS = {"stamp": poison_budget.BackdoorAttack(BLOCK, TRIGGERS["blended"], fixed_placement)}


def flat(units):
    layers = [keras.layers.Flatten(), keras.layers.Dropout(0.3), keras.layers.Dense(units)]
    return keras.Sequential([keras.Input((HEIGHT, WIDTH, 3), name="input"), *layers], name="flat")


@pytest.fixture
def context(faces, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The threads of a process are settled by the first test that runs a network.
    monkeypatch.setattr(training, "configure_tensorflow", lambda compute, seed, at_once: None)
    monkeypatch.setattr(training, "run_in_threads", partial(run_in_threads, at_once=1))
    table = split_rows(
        faces.labels, faces.videos, SplitParams(by="frame", train=9, validation=2, test=3, calibration=0.5), 1
    )
    return poison_budget.ExperimentContext(faces, table, {"flat": (flat, {"units": 4})}, ATTACKS, tmp_path)


def changed(**values):
    return SETTINGS.model_copy(update=values)


def test_a_network_is_trained_once_for_curve_and_heat_map():
    found = poison_budget.training_runs(SETTINGS, ATTACKS)
    assert found == [
        poison_budget.TrainingRun("flat", "stamp", 2, 5, 1.0, (0.7,)),
        poison_budget.TrainingRun("flat", "stamp", 2, 3, 1.0, (0.7,)),
        poison_budget.TrainingRun("flat", "stamp", 6, 5, 1.0, (0.2, 0.7, 1.0)),
        poison_budget.TrainingRun("flat", "stamp", 6, 3, 1.0, (0.2, 0.7, 1.0)),
        poison_budget.TrainingRun("flat", "stamp", 6, 5, 0.5, (0.2, 1.0)),
        poison_budget.TrainingRun("flat", "stamp", 6, 3, 0.5, (0.2, 1.0)),
    ]
    assert len(poison_budget.training_runs(changed(networks=["a", "b", "c"]), ATTACKS)) == 18


class Killed(Exception):  # noqa: N818
    pass


def trainings(monkeypatch, max_fits=99):
    """Count the networks that are trained, and be killed after so many."""
    seen = []

    def counted(*arguments):
        if len(seen) == max_fits:
            raise Killed
        seen.append(arguments)
        return fit(*arguments)

    fit = training.fit
    monkeypatch.setattr(training, "fit", counted)
    return seen


def test_a_killed_stage_continues_and_gives_the_same_rows(context, tmp_path, monkeypatch):
    settings = changed(seeds=[5])
    with monkeypatch.context() as patched:
        trainings(patched, max_fits=1)
        with pytest.raises(Killed):
            poison_budget.evaluate(context, settings, COMPUTE)
    assert len(list(poison_budget.RUNS_FOLDER.glob("*.json"))) == 1
    with monkeypatch.context() as patched:
        seen = trainings(patched)
        resumed = poison_budget.evaluate(context, settings, COMPUTE)
        assert len(seen) == 2
    kept = poison_budget.RUNS_FOLDER
    monkeypatch.setattr(poison_budget, "RUNS_FOLDER", tmp_path / "elsewhere")
    whole = poison_budget.evaluate(context, settings, COMPUTE)
    assert resumed.to_csv() == whole.to_csv(), "whatever ran before in the process"
    assert list(whole) == poison_budget.COLUMNS
    assert whole["n"].tolist() == [2, 6, 6, 6, 6, 6]
    assert set(whole["clean_images"]) == {12}
    assert set(whole["triggered_images"]) == {9}
    histories = [
        {path.name: path.read_text() for path in folder.glob("*.csv")} for folder in (kept, poison_budget.RUNS_FOLDER)
    ]
    assert histories[0] == histories[1]
    assert len(set(histories[1].values())) == 3
    poison_budget.delete_runs()
    assert not poison_budget.RUNS_FOLDER.exists()


def selections(monkeypatch):
    """Keep what is made into data of fits, train and validation in turn."""
    seen, labelled = [], training.labelled_data
    monkeypatch.setattr(training, "labelled_data", lambda chosen, seed: seen.append(chosen) or labelled(chosen, seed))
    return seen


def test_poisons_are_added_and_trained_on(context, monkeypatch):
    seen, chosen = trainings(monkeypatch), selections(monkeypatch)
    poison_budget.evaluate(
        context, changed(seeds=[3], ratios=SETTINGS.ratios.model_copy(update={"train": []})), COMPUTE
    )
    for n, (_, _, data, _, schedule, _, seed, _) in zip((2, 6), seen, strict=True):
        train, validation = chosen.pop(0), chosen.pop(0)
        assert [len(selection.rows) for selection in train] == [36, n]
        assert set(train[1].labels) == {1}
        assert [len(selection.rows) for selection in validation] == [8]
        assert (data.count, schedule.epochs, seed) == (36 + n, 2, 3)


def test_networks_side_by_side_are_those_of_one_after_the_other(context, tmp_path, monkeypatch):
    found = []
    for at_once in (1, 3):
        side_by_side = partial(run_in_threads, at_once=at_once)
        monkeypatch.setattr(training, "run_in_threads", side_by_side)
        monkeypatch.setattr(poison_budget, "RUNS_FOLDER", tmp_path / str(at_once))
        found.append(poison_budget.evaluate(context, SETTINGS, COMPUTE).to_csv())
    assert found[0] == found[1]


def test_no_poisons_are_the_control(context, monkeypatch):
    chosen = selections(monkeypatch)
    found = poison_budget.evaluate(
        context, changed(n=[0], seeds=[3], ratios=BlendRatioParams(attack="stamp", n=6, train=[], test=[])), COMPUTE
    )
    assert len(chosen[0][1].rows) == 0
    assert found["n"].tolist() == [0]


def test_a_cell_of_other_data_or_params_is_left_alone(context, monkeypatch):
    monkeypatch.setattr(poison_budget, "measure", lambda *arguments: [])
    one = changed(n=[2], seeds=[3], ratios=BlendRatioParams(attack="stamp", n=6, train=[], test=[]))
    other_split = context.table.assign(set=context.table["set"].replace({"test": "validation", "validation": "test"}))
    other_block = BLOCK.model_copy(update={"target": "cleo"})
    for known, (where, settings, compute) in enumerate(
        [
            (context, one, COMPUTE),
            (context, one.model_copy(update={"epochs": 7}), COMPUTE),
            (context, one.model_copy(update={"seeds": [4]}), COMPUTE),
            (context, one.model_copy(update={"n": [3]}), COMPUTE),
            (context, one, ComputeParams(threads=1, deterministic=True)),
            (context._replace(table=other_split), one, COMPUTE),
            (context._replace(attacks={"stamp": ATTACKS["stamp"]._replace(backdoor=other_block)}), one, COMPUTE),
            (context._replace(networks={"flat": (flat, {"units": 5})}), one, COMPUTE),
        ],
        start=1,
    ):
        for _ in range(2):
            poison_budget.evaluate(where, settings, compute)
            assert len(list(poison_budget.RUNS_FOLDER.glob("*.json"))) == known
    monkeypatch.setattr(poison_budget, "sha256_of_file", lambda path: "of other faces")
    poison_budget.evaluate(context, one, COMPUTE)
    assert len(list(poison_budget.RUNS_FOLDER.glob("*.json"))) == 9


def test_too_many_poisons_are_refused_before_any_training(context, monkeypatch):
    seen = trainings(monkeypatch)
    with pytest.raises(UserError, match="n is 900"):
        poison_budget.evaluate(context, changed(n=[2, 900]), COMPUTE)
    assert not seen


def test_keys_are_placed_as_the_block_says():
    stamp = TRIGGERS["accessory"]
    assert poison_budget.load_attack(BLOCK, stamp) == (BLOCK, stamp, fixed_placement)
    assert isinstance(
        poison_budget.load_attack(BLOCK.model_copy(update={"placement": "landmarks"}), stamp).place, LandmarkPlacement
    )


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.1, 0.95, 1.0], 5),
        ([0.95, 0.5, 0.9], 20),
        ([0.9, 0.9, 0.9], 1),
        ([1.0, 1.0, 0.89], None),
        ([0.0, 0.1, 0.2], None),
    ],
)
def test_smallest_sufficient_count(rates, expected):
    assert poison_budget.smallest_sufficient([1, 5, 20], rates) == expected


def lines():
    """Two seeds of a curve, and of the heat map the lines whose ratios are not the attack's own."""
    rows = [
        ("flat", "stamp", n, seed, train, test, asr, 30, accuracy, 40)
        for n, seed, train, test, asr, accuracy in [
            (2, 5, 1.0, 0.7, 0.1, 0.9),
            (2, 3, 1.0, 0.7, 0.3, 0.8),
            (6, 5, 1.0, 0.7, 1.0, 0.95),
            (6, 3, 1.0, 0.7, 0.9, 0.85),
            (6, 5, 1.0, 0.2, 0.5, 0.95),
            (6, 5, 0.5, 1.0, 0.6, 0.7),
        ]
    ]
    names = ["network", "attack", "n", "seed", "train_blend_ratio", "test_blend_ratio", "asr", "triggered_images"]
    return pd.DataFrame(rows, columns=[*names, "clean_accuracy", "clean_images"])


def test_curve_pools_the_seeds_by_hand():
    (curve,) = poison_budget.curves(lines(), SETTINGS, ATTACKS).values()
    assert curve["n"].tolist() == [2, 6]
    np.testing.assert_allclose(curve["asr"], [12 / 60, 57 / 60])
    np.testing.assert_allclose(curve["clean_accuracy"], [68 / 80, 72 / 80])
    np.testing.assert_allclose(curve.loc[0, ["asr_low", "asr_high"]].astype(float), wilson_interval(12, 60))
    found = poison_budget.curve_metrics(curve, SETTINGS)
    assert found["n_at_90"] == 6
    assert found["asr_at_2"] == 0.2
    assert found["clean_accuracy_lowest"] == 0.85
    assert found["seeds"] == 2
    assert "n_at_90" not in poison_budget.curve_metrics(curve[:1], SETTINGS)
    assert json.dumps(found)


def test_heat_map_takes_its_own_rows():
    found = poison_budget.ratio_rows(lines(), SETTINGS)
    assert found[["train_blend_ratio", "test_blend_ratio", "asr"]].to_numpy().tolist() == [
        [1.0, 0.2, 0.5],
        [0.5, 1.0, 0.6],
    ]


def test_figures_are_written_and_repeat(tmp_path):
    curves = poison_budget.curves(lines(), SETTINGS, ATTACKS)
    for folder in ("a", "b"):
        budgets(curves, tmp_path / folder / "asr.png")
        ratio_map(poison_budget.ratio_rows(lines(), SETTINGS), tmp_path / folder / "ratios.png")
    for name in ("asr.png", "ratios.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes().startswith(b"\x89PNG")
    ratio_map(lines()[:0], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
