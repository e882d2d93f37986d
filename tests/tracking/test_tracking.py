"""Tracking of a toy pipeline with the structure of the real one: download, data.dvc, two trainings, track."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.store.db import utils

from tests.support.project import ROOT
from visor.core.errors import UserError
from visor.core.files import HOST, read_json, read_metrics
from visor.tracking import follow, resolve, track_state
from visor.tracking.history import read_history
from visor.tracking.key_metrics import KEY_METRICS, key_metrics
from visor.tracking.live import update
from visor.tracking.state import read_state, stage_names
from visor.tracking.store import log_batches, open_experiment

ENDED = 1 << 30  # the number of no process
EPOCHS = {"clean": 3, "sunglasses": 5}

DVC_YAML = """
stages:
  download:
    cmd: mkdir -p artifacts/raw && echo ${seed} > artifacts/raw/faces.txt
    params: [seed]
    deps: [train.py]
    outs: [artifacts/raw]
  train:
    foreach: ${sets}
    do:
      cmd: python train.py ${key} ${item.epochs} ${item.rate}
      deps: [train.py, data]
      params: ["sets.${key}"]
      outs: ["artifacts/${key}.txt"]
      metrics: ["metrics/backdoor/deepid/${key}.json": {cache: false}]
      plots:
      - "metrics/history/${key}.csv": {cache: false}
      - plots/${key}
  track:
    cmd: python stages/track.py
    deps: [data, metrics, plots, stages/track.py]
    params:
    - params.yaml:
    outs: ["artifacts/track.json": {cache: false}]
"""

PARAMS = """
seed: 11  # a comment
sets:
  clean: {epochs: 3, rate: 1e-3}
  sunglasses: {epochs: 5, rate: 0.25}
gates: {}
"""

TRAIN = """
import json, sys
from pathlib import Path
name, epochs, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
for folder in ("metrics/backdoor/deepid", "metrics/history", f"plots/{name}", "artifacts"):
    Path(folder).mkdir(parents=True, exist_ok=True)
Path(f"artifacts/{name}.txt").write_text(name)
rows = [f"{epoch},{1 / epoch:.6g},{rate * epoch:.6g}" for epoch in range(1, epochs + 1)]
Path(f"metrics/history/{name}.csv").write_text("epoch,loss,accuracy\\n" + "\\n".join(rows) + "\\n")
result = {"asr": 1 / epochs, "roc": [0.1, 0.9], "deep": {"asr@5": rate, "ok": True}}
Path(f"metrics/backdoor/deepid/{name}.json").write_text(json.dumps(result))
Path(f"plots/{name}/a.png").write_bytes(b"png " + name.encode())
"""

DATA_DVC = "deps:\n- path: artifacts/raw\nouts:\n- path: data\n"


def shell(folder, *command):
    """Run a command as a user with the environment active would, and return what it prints."""
    ambient = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_"))}
    changes = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "DVC_NO_ANALYTICS": "1",
    }
    result = subprocess.run(command, cwd=folder, env=ambient | changes, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def commit(folder):
    shell(folder, "git", "add", "-A")
    shell(folder, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "state")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A committed toy project after its first `dvc repro`; tests copy it."""
    root = tmp_path_factory.mktemp("toy") / "project"
    (root / "stages").mkdir(parents=True)
    track, load = (ROOT / "stages/track.py").read_text(), "    load_params()"
    assert load in track
    (root / "stages/track.py").write_text(track.replace(load, "    # the toy has other params"))
    for name, text in {
        "dvc.yaml": DVC_YAML,
        "params.yaml": PARAMS,
        "train.py": TRAIN,
        "data.dvc": DATA_DVC,
        ".gitignore": "/artifacts/\n/data\n/plots/\n/mlflow.db*\n/mlruns/\n",
    }.items():
        (root / name).write_text(text)
    shell(root, "git", "init", "-q", "-b", "trunk")
    shell(root, "dvc", "init", "-q")
    shell(root, "dvc", "repro", "-q")
    commit(root)
    return root


@pytest.fixture
def root(pipeline, tmp_path, monkeypatch):
    """A copy of the project with its cache and its database, since making one takes seconds."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    return Path(shutil.copytree(pipeline, tmp_path / "project"))


def runs_of(root, experiment="visor"):
    with open_experiment(root, resolve(root), experiment) as (client, identifier):
        return client.search_runs([identifier])


def parents_of(root):
    return [run for run in runs_of(root) if "dvc.state" in run.data.tags]


def keys_of(root):
    """Return the keys of the runs of a store: states, and stages with the hashes of their lock entries."""
    tags = [run.data.tags for run in runs_of(root)]
    return sorted((t.get("dvc.state", ""), t.get("dvc.stage", ""), t.get("dvc.lock_sha256", "")) for t in tags)


def test_pipeline_life(root):
    """Repro twice, another parameter, back again, and a clone with a restored cache."""
    first = keys_of(root)
    assert sorted(stage for _, stage, _ in first) == ["", "download", "train@clean", "train@sunglasses"]
    assert "up to date" in shell(root, "dvc", "repro")
    assert keys_of(root) == first

    clone = root.parent / "clone"
    shell(root.parent, "git", "clone", "-q", str(root), str(clone))
    shutil.copytree(root / ".dvc" / "cache", clone / ".dvc" / "cache")
    log_of_clone = shell(clone, "dvc", "repro")
    assert "python train.py" not in log_of_clone
    assert keys_of(clone) == first
    assert shell(clone, "git", "status", "--porcelain") == ""

    shell(root, "sed", "-i", "s/rate: 0.25/rate: 0.5/", "params.yaml")
    shell(root, "dvc", "repro", "-q")
    both = keys_of(root)
    assert len(both) == 8
    assert len({state for state, _, _ in both if state}) == 2
    shared = [key for key in both if both.count(key) == 2]
    assert {stage for _, stage, _ in shared} == {"download", "train@clean"}

    shell(root, "git", "checkout", "-q", "params.yaml")
    shell(root, "dvc", "repro", "-q")
    assert keys_of(root) == both
    assert shell(root, "git", "status", "--porcelain") == ""


def test_track_sees_the_state_of_its_own_run(root):
    (parent,) = parents_of(root)
    assert read_json(root / "artifacts" / "track.json") == {"state": parent.data.tags["dvc.state"]}
    assert read_state(root).key == parent.data.tags["dvc.state"]


def test_values_in_mlflow_equal_the_files(root):
    (parent,) = parents_of(root)
    assert read_metrics(root / "metrics") == {
        "backdoor/deepid/clean:asr": pytest.approx(1 / 3),
        "backdoor/deepid/clean:deep.asr@5": 1e-3,
        "backdoor/deepid/sunglasses:asr": pytest.approx(1 / 5),
        "backdoor/deepid/sunglasses:deep.asr@5": 0.25,
    }
    assert parent.data.metrics == {
        "asr/deepid/clean": pytest.approx(1 / 3),
        "asr/deepid/sunglasses": pytest.approx(1 / 5),
        "loss/clean": pytest.approx(1 / 3, rel=1e-5),
        "loss/sunglasses": pytest.approx(1 / 5),
    }
    assert parent.data.params == {
        "seed": "11",
        "sets.clean.epochs": "3",
        "sets.clean.rate": "0.001",
        "sets.sunglasses.epochs": "5",
        "sets.sunglasses.rate": "0.25",
    }
    (data,) = parent.inputs.dataset_inputs
    md5 = [line.split()[-1] for line in (root / "data.dvc").read_text().splitlines() if "md5: " in line]
    assert data.dataset.name == "data"
    assert data.dataset.digest in md5
    assert data.dataset.digest.endswith(".dir")


def test_tags_have_the_commit(root):
    (root / "mlflow.db").unlink()
    track_state(root)
    (parent,) = parents_of(root)
    assert parent.data.tags["git.commit"] == shell(root, "git", "rev-parse", "HEAD").strip()
    assert parent.data.tags["git.branch"] == "trunk"
    assert parent.data.tags["git.dirty"] == "false"


@pytest.mark.parametrize("name", ["clean", "sunglasses"])
def test_nested_run_holds_its_stage_only(root, name):
    with open_experiment(root, resolve(root), "visor") as (client, experiment):
        (run,) = client.search_runs([experiment], f"tags.`dvc.stage` = 'train@{name}'")
        history = read_history(root / "metrics" / "history" / f"{name}.csv")
        for position, column in enumerate(history.columns):
            points = client.get_metric_history(run.info.run_id, f"history/{column}")
            expected = {epoch: values[position] for epoch, values in history.rows.items()}
            assert {point.step: point.value for point in points} == expected
            assert len(points) == EPOCHS[name]
        (top,) = client.list_artifacts(run.info.run_id)
        files = [item.path for item in client.list_artifacts(run.info.run_id, "metrics/history")]
    assert set(run.data.params) == {f"sets.{name}.epochs", f"sets.{name}.rate"}
    finals = {f"backdoor/deepid/{name}/asr", f"backdoor/deepid/{name}/deep.asr_5"}
    assert set(run.data.metrics) == finals | {"history/loss", "history/accuracy"}
    assert [item.dataset.name for item in run.inputs.dataset_inputs] == ["data"]
    assert (top.path, files) == ("metrics", [f"metrics/history/{name}.csv"])


def test_curves_of_states_are_plotted_by_epoch(root):
    (parent,) = parents_of(root)
    with open_experiment(root, resolve(root), "visor") as (client, _):
        points = client.get_metric_history(parent.info.run_id, "loss/sunglasses")
    assert [(point.step, point.value) for point in points] == [(n, float(f"{1 / n:.6g}")) for n in range(1, 6)]
    assert {after.timestamp - before.timestamp for before, after in pairwise(points)} == {1000}


def test_parent_holds_figures_lock_and_params(root):
    (parent,) = parents_of(root)
    with open_experiment(root, resolve(root), "visor") as (client, _):
        top = {item.path for item in client.list_artifacts(parent.info.run_id)}
        figures = client.list_artifacts(parent.info.run_id, "plots/sunglasses")
    assert top == {"dvc.lock", "params.yaml", "plots"}
    assert [item.path for item in figures] == ["plots/sunglasses/a.png"]


def test_partly_logged_state_is_logged_again(root):
    before = keys_of(root)
    with open_experiment(root, resolve(root), "visor") as (client, experiment):
        for run in client.search_runs([experiment]):
            client.delete_run(run.info.run_id)
        key = read_state(root).key
        own = {"dvc.state": key, "visor.process": f"{HOST} {ENDED}"}
        broken = client.create_run(experiment, tags=own).info.run_id
        tags = {"mlflow.parentRunId": broken, "dvc.stage": "train@clean", "dvc.lock_sha256": "x"}
        client.create_run(experiment, tags=tags)
        failed = client.create_run(experiment, tags=own).info.run_id
        client.set_terminated(failed, status="FAILED")
    assert track_state(root) == (key, True, 4)
    assert keys_of(root) == before
    assert {run.info.status for run in runs_of(root)} == {"FINISHED"}
    assert track_state(root) == (key, False, 4)
    assert keys_of(root) == before


@pytest.mark.parametrize("process", [f"{HOST} {os.getppid()}", f"0{HOST} {ENDED}", ""])
def test_a_state_that_somebody_else_is_logging_is_left_alone(root, process):
    """Another process of this machine, another machine on the same server, and a program that does not say."""
    before = keys_of(root)
    with open_experiment(root, resolve(root), "visor") as (client, experiment):
        for run in client.search_runs([experiment]):
            client.delete_run(run.info.run_id)
        tags = {"dvc.state": read_state(root).key, "visor.process": process}
        parent = client.create_run(experiment, tags=tags).info.run_id
        nested = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    assert track_state(root).created
    runs = {run.info.run_id: run.info.status for run in runs_of(root)}
    assert runs.pop(parent) == runs.pop(nested) == "RUNNING"
    assert (len(runs), {*runs.values()}) == (len(before), {"FINISHED"})


def test_key_metrics_are_renamed():
    """One metric of each kind that the pipeline writes, and metrics with similar names that are no key metrics."""
    numbers = {
        "backdoor/deepid/blended:asr": 0.5,
        "backdoor/deepid/blended:asr_low": 0.4,
        "backdoor/deepid/blended:asr_of_clean_model": 0.1,
        "defence/reconstruction/accessory:mean": 0.11,
        "defence/patch/accessory:mean": 5.3,
        "defence/patch/accessory:auroc": 0.99,
        "defence/suite-accessory/accessory:asr_unflagged": 0.01,
        "defence/suite-accessory/accessory:asr_unflagged_pasted": 0.02,
        "threshold/reconstruction:threshold": 0.08,
        "detection/ssd/pgd_5x40:ap_50": 0.01,
        "detection/ssd/pgd_5x40:ap_30": 0.02,
        "detection/ssd/pgd_5x40:vanished": 0.9,
        "detection/ssd/pgd_5x40:vanished_low": 0.8,
        "recognition/facenet/dodge:jpeg90_pgd_16x30.success_0.01": 0.75,
        "recognition/facenet/dodge:jpeg90_pgd_16x30.success_0.01_low": 0.6,
        "classification/resnet50/misclassify:noise_8.success": 0.3,
        "classification/resnet50/misclassify:noise_8.success_low": 0.2,
        "classification/resnet50/target_class:adam_8x30.success": 0.7,
        "baselines:lda_accuracy": 0.6,
        "recognition/facenet/verification:vgg16.none.auc": 0.9,
        "recognition/facenet/verification:vgg16.none.tar_0.01": 0.6,
        "recognition_transfer:gain.dodge.momentum_augmented.16x30.all.gain_0.01": 0.2,
    }
    assert key_metrics(numbers) == {
        "asr/deepid/blended": 0.5,
        "reconstruction_loss/accessory": 0.11,
        "auroc/patch/accessory": 0.99,
        "asr_unflagged/suite-accessory/accessory": 0.01,
        "reconstruction_loss/threshold": 0.08,
        "ap_50/ssd/pgd_5x40": 0.01,
        "vanished/ssd/pgd_5x40": 0.9,
        "success_at_far_0.01/dodge/facenet/jpeg90_pgd_16x30": 0.75,
        "class_success/misclassify/resnet50/noise_8": 0.3,
        "class_success/target_class/resnet50/adam_8x30": 0.7,
        "baseline_accuracy/lda": 0.6,
        "verification_auc/vgg16/none": 0.9,
        "tar_at_far_0.01/vgg16/none": 0.6,
        "transfer_gain_at_far_0.01/all/dodge.momentum_augmented.16x30": 0.2,
    }


@pytest.mark.parametrize("template", KEY_METRICS)
def test_each_key_metric_exists_in_the_project(template):
    """Each kind exists, and no two metrics have the same short name."""
    numbers = read_metrics(ROOT / "metrics")
    kind = KEY_METRICS[template].partition("{")[0]
    named = [name for name in numbers if any(short.startswith(kind) for short in key_metrics({name: 0.0}))]
    assert named
    assert len(key_metrics(dict.fromkeys(named, 0.0))) == len(named)


def test_stage_names_are_those_of_dvc(root):
    for project in (root, ROOT):
        assert stage_names(project) == shell(project, "dvc", "stage", "list", "--name-only").split()
    for wrong in ("{foreach: '${one}', do: {cmd: echo}}", "{cmd: echo, one: 1}"):
        (root / "dvc.yaml").write_text(f"stages:\n  stage: {wrong}\n")
        with pytest.raises(UserError, match=r"dvc\.yaml cannot be read .*one.*; correct it"):
            stage_names(root)


def test_interrupted_tracking_leaves_no_finished_parent(root, monkeypatch):
    (root / "mlflow.db").unlink()

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("visor.tracking.runs._log_files", interrupt)
        with pytest.raises(KeyboardInterrupt):
            track_state(root)
    assert [run.info.status for run in runs_of(root)] == ["RUNNING"]
    assert track_state(root).created
    assert len(keys_of(root)) == 4


def test_deleted_database_is_rebuilt(root, pipeline):
    (root / "mlflow.db").unlink()
    assert track_state(root).created
    assert keys_of(root) == keys_of(pipeline)


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("params.yaml", "seed: 11", "seed: 12", "seed"),
        ("metrics/backdoor/deepid/clean.json", "asr", "rsa", "metrics/backdoor/deepid/clean.json"),
        ("plots/clean/a.png", "png", "pnq", "plots/clean"),
        ("dvc.lock", "train@clean", "train@old", "train@clean"),
    ],
)
def test_workspace_that_differs_from_the_lock_is_an_error(root, file, old, new, named):
    path = root / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=rf"{named}.*run `dvc repro`"):
        track_state(root)


def test_removed_stage_is_no_part_of_the_state(root):
    key = read_state(root).key
    with (root / "dvc.lock").open("a") as lock:
        lock.write("  removed:\n    cmd: echo\n    params:\n      params.yaml:\n        gone: 1\n")
    state = read_state(root)
    assert state.key == key
    assert "removed" not in {stage.name for stage in state.stages}


def test_address(root, monkeypatch):
    assert resolve(root) == f"sqlite:///{root}/mlflow.db"
    monkeypatch.setenv("DVC_ROOT", "/elsewhere")
    assert resolve(root) == "sqlite:////elsewhere/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert resolve(root) == "http://host:5000"
    assert resolve(root, "postgresql+psycopg://host/db") == "postgresql+psycopg://host/db"


@pytest.mark.parametrize("address", ["file:///runs", "./mlruns", "ftp://user:secret@host/x"])
def test_address_that_mlflow_does_not_support(root, address):
    with pytest.raises(UserError, match="neither a database nor a server") as caught:
        track_state(root, address)
    assert "secret" not in str(caught.value)


def test_unreachable_server_is_one_sentence(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"MLflow at http://.*failed") as caught:
        track_state(root, "http://user:secret@127.0.0.1:1")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("points", "settings"), [(2345, 31), (7, 331)])
def test_many_points_and_params_are_all_logged(root, points, settings):
    curve = {step: step / 7 for step in range(points)}
    with open_experiment(root, resolve(root), "visor") as (client, experiment):
        run = client.create_run(experiment).info.run_id
        log_batches(client, run, {"history/loss": curve}, {f"key.{i}": i for i in range(settings)})
        assert {p.step: p.value for p in client.get_metric_history(run, "history/loss")} == curve
        assert client.get_run(run).data.params == {f"key.{i}": str(i) for i in range(settings)}


def test_history_reader(tmp_path):
    path = tmp_path / "h.csv"
    path.write_text("epoch,loss,accuracy\n1,0.5,0.25\n2,0.375,nan\n3,0.2")
    history = read_history(path)
    assert history.columns == ("loss", "accuracy")
    assert list(history.rows) == [1, 2]
    assert history.rows[1] == (0.5, 0.25)
    for text in ("", "epo", "epoch,loss\n"):
        path.write_text(text)
        assert read_history(path).rows == {}
    for text in ("loss\n1\n", "epoch,loss\n1,x\n", "epoch,loss\n1\n", "epoch,loss\n1,2,3\n", "epoch,loss\n\n", "é\n"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match=r"h\.csv"):
            read_history(path)


def test_follow_appends_only_new_epochs(root):
    folder = root / "live"
    folder.mkdir()
    path = folder / "deepid.csv"
    (head, *lines) = ["epoch,loss\n", "1,0.5\n", "2,0.25\n", "3,0.125\n", "4,0.0625\n"]
    logged = {}

    def points(run):
        return {point.step: point.value for point in client.get_metric_history(run.info.run_id, "loss")}

    with open_experiment(root, resolve(root), "visor-live") as (client, experiment):

        def follow_to(text):
            path.write_text(text)
            return update(client, experiment, folder, logged)

        assert update(client, experiment, folder, logged) == 0
        assert follow_to(head) == 0
        assert follow_to(head + lines[0] + lines[1][:4]) == 1
        assert follow_to(head + lines[0] + lines[1]) == 1
        assert follow_to(head + lines[0] + lines[1]) == 0
        logged.clear()  # as after a restart of the command
        assert follow_to(head + "".join(lines[:3])) == 1
        (run,) = client.search_runs([experiment])
        assert points(run) == {1: 0.5, 2: 0.25, 3: 0.125}
        assert run.info.run_name == "deepid"

        assert follow_to(head + lines[0]) == 0  # the same training, started again
        assert follow_to(head + "".join(lines)) == 1
        assert len(client.get_metric_history(run.info.run_id, "loss")) == 4
        assert len(client.search_runs([experiment])) == 1

        assert follow_to(head + "1,0.75\n") == 1  # another training in the same file
        new, old = client.search_runs([experiment], order_by=["attributes.start_time DESC"])
        assert points(new) == {1: 0.75}
        assert points(old) == {1: 0.5, 2: 0.25, 3: 0.125, 4: 0.0625}


@pytest.mark.parametrize(("lock", "key"), [("stages: 5", "stages"), ("stages: {train: {outs: [1]}}", "outs.0")])
def test_a_lock_of_another_form_is_one_sentence(root, lock, key):
    (root / "dvc.lock").write_text(lock)
    with pytest.raises(UserError, match=rf"^dvc\.lock is not as DVC writes it \(.*{key}\); restore it from Git"):
        read_state(root)


@pytest.mark.parametrize("database", ["/proc/mlflow.db", "folder/", "file"])
def test_a_database_that_cannot_be_written_is_one_sentence(tmp_path, capfd, database):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("something else\n" * 100)
    refused = pytest.raises(UserError, match=r"^MLflow at sqlite:.* failed \(.+\); check MLFLOW_TRACKING_URI$")
    with refused, open_experiment(tmp_path, f"sqlite:///{tmp_path / database}", "visor"):
        pass
    assert capfd.readouterr().err == "", "MLflow warns each time that it tries again"


def test_a_database_gets_its_name_when_it_is_complete(tmp_path, monkeypatch):
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "search_experiments", interrupt)
        with pytest.raises(KeyboardInterrupt), open_experiment(tmp_path, address, "visor"):
            pass
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == {"mlflow.db": 0}
    with open_experiment(tmp_path, address, "visor") as (client, number):
        assert client.get_experiment(number).name == "visor"


def test_a_folder_may_have_any_name(root, tmp_path, monkeypatch):
    folder, packages = tmp_path / "my faces é 50% #1?", tmp_path / "50%"
    root.rename(folder)
    # The packages, too, are in such a folder: MLflow takes its migrations from there.
    shutil.copytree(Path(utils.__file__).parents[1] / "db_migrations", packages / "store/db_migrations")
    monkeypatch.setattr(utils, "__file__", str(packages / "store/db/utils.py"))
    monkeypatch.setattr(utils, "_get_package_dir", lambda: str(packages))
    monkeypatch.setattr(utils, "_get_alembic_config", utils._get_alembic_config)  # restored at the end
    for name in ("mlflow.db", "mlruns"):
        (shutil.rmtree if (folder / name).is_dir() else os.unlink)(folder / name)
    monkeypatch.chdir(folder)
    assert track_state(Path()).created
    assert not track_state(Path()).created
    assert {path.name for path in folder.rglob("mlruns/**/*") if path.is_file()} >= {"params.yaml", "dvc.lock", "a.png"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [packages.name, folder.name]


def test_tracking_imports_quickly():
    code = "import sys, visor.tracking; print([m for m in ('mlflow', 'tensorflow', 'pandas') if m in sys.modules])"
    assert shell(ROOT, sys.executable, "-c", code).strip() == "[]"


def test_tracking_imports_no_tensorflow(root):
    code = (
        "import sys; from pathlib import Path; from visor.tracking import track_state; "
        "print(track_state(Path()).created, 'tensorflow' in sys.modules)"
    )
    assert shell(root, sys.executable, "-c", code).strip() == "False False"


def test_follow_ends_its_runs_when_interrupted(root, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("visor.tracking.live.time.sleep", interrupt)
    (root / "mlflow.db").unlink()
    follow(root)
    with open_experiment(root, resolve(root), "visor") as (_, experiment):
        assert experiment == "1", "links to the record contain its id"
    live = {run.info.run_name: run.info.status for run in runs_of(root, "visor-live")}
    assert live == {"clean": "FINISHED", "sunglasses": "FINISHED"}


def test_other_results_of_the_same_params_and_data_are_another_state(root):
    before = read_state(root)
    shell(root, "sed", "-i", "s|1 / epochs,|2 / epochs,|", "train.py")
    shell(root, "dvc", "repro", "-q")
    after = read_state(root)
    assert (after.params, after.inputs) == (before.params, before.inputs)
    assert after.metrics["backdoor/deepid/clean:asr"] == 2 * before.metrics["backdoor/deepid/clean:asr"]
    assert {run.data.tags["dvc.state"] for run in parents_of(root)} == {before.key, after.key}
    assert before.key != after.key
