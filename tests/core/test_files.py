"""Files: the output of Git commands."""

import subprocess

from visor.core import files


def test_git_returns_the_output_or_none(tmp_path, monkeypatch):
    assert files.git(tmp_path, "rev-parse", "--verify", "-q", "HEAD") is None
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "a").touch()
    assert files.git(tmp_path, "status", "--porcelain") == "?? a"
    monkeypatch.setenv("PATH", "")
    assert files.git(tmp_path, "status", "--porcelain") is None
