"""The command line in a process of its own."""

import os
import subprocess
import sys

from tests.support.project import ROOT


def run_visor(folder, *arguments, environment=None):
    """Run ``visor`` in a folder, without variables of MLflow and DVC; return the completed process."""
    settings = {"PYTHONPATH": str(ROOT / "src"), "DVC_NO_ANALYTICS": "1", "COLUMNS": "200"}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
    command = [sys.executable, "-c", "from visor.cli import main; main()", *arguments]
    environment = inherited | settings | (environment or {})
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def read_error(result):
    """Return the one sentence of a command that ended with a user error."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith("error: ")
    return sentence
