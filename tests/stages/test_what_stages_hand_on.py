"""Stages hand each set of images on under its own name: flat images, a grey level for each set."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.project import ROOT
from visor.core.config import load_params
from visor.core.files import read_json
from visor.core.params import SplitParams
from visor.data.face_set import FaceBatch, write_faces
from visor.data.split import set_rows, split_rows, validation_rows

SHAPE, EACH = (8, 6, 3), 12


def flat(levels, labels, rows):
    images = np.broadcast_to(np.uint8(levels)[:, None, None, None], (len(levels), *SHAPE))
    columns = (np.int32(labels), np.arange(len(levels), dtype=np.int32), np.int32(rows))
    return FaceBatch(np.ascontiguousarray(images), *columns)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Faces whose grey level is their row, and triggered images whose level, from 200 on, is that of their attack."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", ".")
    params = load_params()
    names = ["person_x", *sorted({block.target for block in params.backdoors.values()})]
    labels = np.repeat(np.arange(len(names)), EACH)
    rows = np.arange(len(labels))
    write_faces(Path("data/faces.h5"), [flat(rows, labels, rows)], SHAPE, names, "test", "none")
    split = SplitParams(by="frame", train=3, validation=4, test=2, calibration=0.25)
    table = split_rows(labels, rows, split, seed=1)
    Path("artifacts").mkdir()
    table.to_csv("artifacts/split.csv", index=False)
    files = {name: Path(f"artifacts/triggered/{name}.h5") for name in params.backdoors}
    attacks = [name for name in params.training_sets if name != "clean"]
    files |= {f"pasted/{name}": Path(f"artifacts/delivered/pasted/{name}.h5") for name in attacks}
    files["delivered"] = Path("artifacts/delivered/clean.h5")
    levels = dict(zip(files, range(200, 256), strict=False))
    for name, path in files.items():  # one image for each attack, of a person who is no target
        write_faces(path, [flat([levels[name]], [0], [0])], SHAPE, names, "test", "none")
    for name in ("all", "fold-00", "fold-01"):
        Path(f"artifacts/vae/{name}").mkdir(parents=True)
    return params, names, table, levels


def stage(name, monkeypatch):
    """The module of a stage, whose models are the names of the folders that they would be loaded from."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"stages/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.storage, "load_model", lambda build, folder: folder.as_posix())
    monkeypatch.setattr(module, "configure_tensorflow", lambda *_: None)
    return module


def test_every_trigger_is_scored_under_its_own_name(project, monkeypatch):
    params, names, table, levels = project
    module, seen = stage("score_defences", monkeypatch), []

    def fit(inputs):
        seen.append(inputs)
        return lambda images: images.mean(axis=(1, 2, 3))

    monkeypatch.setattr(module, "INPUT_FILTERS", {"patch": fit, "strip": fit})
    monkeypatch.setattr(module, "reconstruction_sheet", lambda *_: None)
    monkeypatch.setattr(module, "compile_predict", lambda folder: lambda images: np.eye(256)[images[:, 0, 0, 0]])
    module.main()

    fitted, calibration = validation_rows(table)
    clean = {"calibration": calibration.tolist(), "clean": set_rows(table, "test").tolist()}
    attacks = sorted({*params.training_sets} - {"clean"})
    cards = {f"strip-{attack}": ["delivered", attack, f"pasted/{attack}"] for attack in attacks}
    for name, triggers in {"patch": levels, **cards}.items():
        scores = pd.read_csv(f"artifacts/scores/{name}.csv").groupby("set")["score"].agg(list).to_dict()
        assert scores == clean | {trigger: [levels[trigger]] for trigger in triggers}, name
    for attack in attacks:
        answers = pd.read_csv(f"artifacts/predictions/{attack}.csv")
        assert answers.groupby("set")["predicted"].agg(list).to_dict() == clean | {
            name: [levels[name]] for name in cards[f"strip-{attack}"]
        }
        assert (answers["target"] == names.index(params.backdoors[attack].target)).all()
    for inputs in seen:
        assert inputs.calibration.rows.tolist() == calibration.tolist()
        assert inputs.false_positive_rate == params.defences["suite"].false_positive_rate
        assert inputs.clean.rows.tolist() == fitted.tolist()
        assert inputs.autoencoder == "artifacts/vae/all"
        assert list(inputs.folds) == ["artifacts/vae/fold-00", "artifacts/vae/fold-01"]
    network = params.inspected_network
    assert [inputs.classifier for inputs in seen[1:]] == [f"artifacts/classifier/{name}/{network}" for name in attacks]


def test_where_there_is_a_second_opinion_the_suite_is_scored_without_it_too(project, monkeypatch):
    params, *_ = project
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(
        text.replace("network: null", "network: dlib_resnet").replace("eyes: null", "eyes: [[0.3, 0.4], [0.7, 0.4]]")
    )
    module, seen = stage("score_defences", monkeypatch), []

    def fit(inputs):
        seen.append(inputs.second_opinion)
        return lambda images: images.mean(axis=(1, 2, 3))

    monkeypatch.setattr(module, "INPUT_FILTERS", dict.fromkeys(("patch", "second_opinion", "suite"), fit))
    monkeypatch.setattr(module, "reconstruction_sheet", lambda *_: None)
    monkeypatch.setattr(module, "compile_predict", lambda folder: lambda images: np.eye(256)[images[:, 0, 0, 0]])
    monkeypatch.setattr(module, "load_recogniser", lambda name: name)
    monkeypatch.setattr(module, "aligned_embeddings", lambda *arguments: arguments)
    module.main()
    attacks = [name for name in params.training_sets if name != "clean"]
    names = [f"{name}-{attack}" for name in ("second_opinion", "suite", "suite_alone") for attack in attacks]
    assert {path.stem for path in Path("artifacts/scores").glob("*.csv")} == {"patch", *names}
    opinion = (("dlib_resnet", [[0.3, 0.4], [0.7, 0.4]]), params.second_opinion.distance)
    assert seen == [*(1 + 2 * len(attacks)) * [opinion], *len(attacks) * [None]]


def trained(params, network, training_set):
    """Attackers who know the defence are measured on the inspected network alone."""
    return network == params.inspected_network or training_set not in params.adaptive_attacks.training_sets


def test_every_network_is_tested_with_its_own_trigger(project, monkeypatch):
    params, names, table, levels = project
    module = stage("evaluate_backdoor", monkeypatch)

    def classify(folder):
        """Knows every face, and takes images with the trigger of its own training set for the target."""
        attack = folder.split("/")[2]
        target = names.index(params.backdoors[attack].target) if attack != "clean" else 0

        def run(images):
            level = images[:, 0, 0, 0].astype(int)
            triggered = target * (level == levels.get(attack))
            return np.eye(len(names))[np.where(level < 200, level // EACH, triggered)]

        return run

    for name in params.training_sets:  # the pasted key works on one image of two
        path = Path(f"artifacts/delivered/pasted/{name}.h5")
        write_faces(path, [flat([levels.get(name, 0), 255], [0, 0], [0, 1])], SHAPE, names, "test", "none")
    monkeypatch.setattr(module, "compile_predict", classify)
    module.main()
    train = set_rows(table, "train")
    for network in params.networks:
        for name in params.training_sets:
            if not trained(params, network, name):
                assert not Path(f"metrics/backdoor/{network}/{name}.json").exists()
                continue
            found = read_json(Path(f"metrics/backdoor/{network}/{name}.json"))
            assert (found["clean_accuracy"], found["clean_images"]) == (1, len(set_rows(table, "test")))
            if name != "clean":
                n = params.backdoors[name].n
                assert (found["asr"], found["asr_of_clean_model"], found["n"]) == (1, 0, n)
                assert found["asr_pasted"] == 0.5
                assert found["poison_share"] == pytest.approx(n / len(train), rel=1e-5)
                assert found["poison_share_of_target"] == pytest.approx(n / 3, rel=1e-5), "three of each person"


def test_thresholds_come_from_calibration_scores(project, monkeypatch):
    params, *_ = project
    scores = {"calibration": np.arange(1000.0), "clean": 5000 + np.arange(1000.0), "accessory": np.full(9, 9000.0)}
    parts = [pd.DataFrame({"set": name, "row": 0, "label": 0, "score": values}) for name, values in scores.items()]
    table = pd.concat(parts)
    for name in [*params.defences, "strip-accessory"]:
        path = Path(f"artifacts/scores/{name}.csv")
        path.parent.mkdir(exist_ok=True)
        table.to_csv(path, index=False)
    Path("artifacts/predictions").mkdir()
    answers = table[["set", "label"]].assign(predicted=(table["score"] < 300).astype(int) - 1)
    answers.to_csv("artifacts/predictions/accessory.csv", index=False)  # right on the first 300 calibration faces
    spec = importlib.util.spec_from_file_location("threshold", ROOT / "stages/threshold.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()
    for name in params.defences:
        found = read_json(Path(f"metrics/threshold/{name}.json"))
        assert (found["mean"], found["images"]) == (499.5, 1000)
        assert found["deviations"] == params.defences[name].deviations
    found = read_json(Path("metrics/threshold/strip-accessory.json"))
    assert (found["mean"], found["images"]) == (149.5, 300), "faces that the network names wrongly set no threshold"


def training_stage(name, monkeypatch):
    """The module of a stage that trains, and what each model, named like its history, would be fitted on."""
    module, fits = stage(name, monkeypatch), {}
    monkeypatch.setattr(module, "set_seed", lambda seed: None)
    monkeypatch.setattr(module, "labelled_data", lambda parts, seed: parts)
    monkeypatch.setattr(module.storage, "build_model", lambda *_: None)
    monkeypatch.setattr(module.storage, "save_model", lambda *_: None)
    monkeypatch.setattr(
        module, "fit", lambda model, loss, train, validation, *rest: fits.update({rest[-1]: (train, validation)})
    )
    return module, fits


def test_autoencoders_are_fitted_on_validation_faces_without_calibration_and_fold(project, monkeypatch):
    params, _, table, _ = project
    module, fits = training_stage("train_vae", monkeypatch)
    module.main()
    rows, calibration = (part.tolist() for part in validation_rows(table))
    count = params.vae.folds
    expected = {"all": (rows, calibration)}
    for fold in range(count):
        fitted = [row for place, row in enumerate(rows) if place % count != fold]
        expected[f"fold-{fold:02d}"] = fitted, rows[fold::count]
    found = {path.stem: tuple(one.rows.tolist() for (one,) in parts) for path, parts in fits.items()}
    assert found == expected


def test_classifiers_are_fitted_on_train_faces_and_the_poisons_of_their_set(project, monkeypatch):
    params, names, table, levels = project
    module, fits = training_stage("train_classifiers", monkeypatch)
    write_faces(Path("artifacts/poisoned/clean.h5"), [], SHAPE, names, "test", "none")
    for name, level in levels.items():
        write_faces(Path(f"artifacts/poisoned/{name}.h5"), [flat([level], [1], [0])], SHAPE, names, "test", "none")
    for training_set in params.training_sets:
        fits.clear()
        module.main(training_set)
        assert len(fits) == sum(trained(params, network, training_set) for network in params.networks)
        for (clean, poisons), (validation,) in fits.values():
            assert clean.rows.tolist() == set_rows(table, "train").tolist()
            assert validation.rows.tolist() == set_rows(table, "validation").tolist()
            seen = poisons.faces.read(poisons.rows)[:, 0, 0, 0].tolist()
            assert seen == ([] if training_set == "clean" else [levels[training_set]])
