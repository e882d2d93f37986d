"""Run every documented command in a fresh clone, with small files in place of those that it names.  make docs

The clone has the working tree's files, and the cache of the last `dvc repro`, so that nothing is trained anew.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.commands import Command, Serve, Skip, documented, meant, recipe

ROOT = Path(__file__).parents[1]
SECONDS = 1200  # that one command may take


class Shell(NamedTuple):
    """Where commands run: the clone, its environment (`export` adds to it), and commands that keep running."""

    root: Path
    environment: dict[str, str]
    serving: list[subprocess.Popen[bytes]]


def main(words: list[str]) -> int:
    """Run the commands of all pages, or of those named; print a table; return 1 if one failed."""
    chosen = [command for command in documented(ROOT) if not words or command.page in words]
    failed, said = 0, set[str]()
    with tempfile.TemporaryDirectory(dir=ROOT / ".dvc/tmp") as folder:  # where the cache can be linked
        shell = cloned(Path(folder) / "visor")
        print("| page | command | result |\n|---|---|---|")
        for page in dict.fromkeys(command.page for command in chosen):
            prepare(shell)
            for command in once([each for each in chosen if each.page == page], said):
                result = attempt(shell, command)
                failed += result.startswith("FAILED")
                print(f"| {page}:{command.line} | `{command.text}` | {result} |", flush=True)
            finish(shell)
    return int(failed > 0)


def once(commands: Iterable[Command], said: set[str]) -> Iterator[Command]:
    """Leave out what the text mentions again; blocks are run whole."""
    for command in commands:
        if not (command.inline and command.text in said):
            yield command
        said.add(command.text)


def cloned(root: Path) -> Shell:
    """Clone the project, lay the working tree's files over it, and link the cache of the pipeline."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(root)], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-cozm", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for name in sorted({*listed.stdout.split("\0")} - {""}):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy2(ROOT / name, root / name)
        elif not (ROOT / name).is_symlink():
            (root / name).unlink(missing_ok=True)
    cache = subprocess.run(["dvc", "cache", "dir"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    shutil.copytree(cache, root / ".dvc/cache", copy_function=os.link)
    (root / ".venv").symlink_to(ROOT / ".venv")
    for name in ("requirements-uv.lock", "requirements.lock", "pyproject.toml"):
        os.utime(root / name, (0, 0))  # Older than the environment, which is not to be made anew.
    own = {
        "PATH": f"{root / '.venv/bin'}:{os.environ['PATH']}",
        "PYTHONPATH": f"{root / 'src'}:{root}",
        "DVC_NO_ANALYTICS": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PAGER": "cat",
    }
    shell = Shell(root, {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_"))} | own, [])
    run(shell, "git add -A && git -c user.name=a -c user.email=a@b commit -qm pages")
    return shell


def prepare(shell: Shell) -> None:
    """Give a page the clone as committed, what the pipeline made, and the stand-ins."""
    run(shell, "git checkout -q -- . && git clean -fdq && dvc repro -q && python docs/stand_ins.py")


def attempt(shell: Shell, command: Command) -> str:
    """Run one command as its recipe says, and return the outcome in a few words."""
    how, start = recipe(command), time.monotonic()
    try:
        if isinstance(how, Skip):
            return f"skipped: {how.reason}"
        if isinstance(how, Serve):
            serve(shell, meant(command.text), how.ready)
        elif command.text.startswith("export "):
            name, _, value = command.text.removeprefix("export ").partition("=")
            shell.environment[name] = value
        elif how:
            words = meant(command.text)
            before, arrow, after = words.partition(" > ")
            run(shell, f"{before} {how.more}{arrow}{after}", how.answer, how.status)
        else:
            return "FAILED: docs/commands.py has no recipe for it"
    except (subprocess.SubprocessError, TimeoutError) as error:
        output = getattr(error, "output", None) or b""
        return f"FAILED: {error} {' '.join(output.decode(errors='replace').split())[-400:]}"
    return f"ok, {time.monotonic() - start:.0f} s"


def run(shell: Shell, words: str, answer: str = "", status: int = 0) -> None:
    """Run a command line to its end, with ``answer`` as its input; raise if its exit code is not ``status``."""
    process = subprocess.Popen(
        ["bash", "-c", words],
        cwd=shell.root,
        env=shell.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # without a terminal, passwords are read from the input
    )
    try:
        output, _ = process.communicate(f"{answer}\n".encode(), SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # and what it started: DVC would hold its lock
        process.wait()
        raise
    if process.returncode != status:
        raise subprocess.CalledProcessError(process.returncode, words, output)


def serve(shell: Shell, words: str, ready: str) -> None:
    """Start a command that keeps running, and wait until it prints that it is ready.

    Raises:
        TimeoutError: It does not, or ends before.
    """
    finish(shell)
    log = Path(tempfile.mkstemp(dir=shell.root.parent)[1])
    with log.open("wb") as output:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {words}"],
            cwd=shell.root,
            env=shell.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    shell.serving.append(server)
    end = time.monotonic() + 120
    while not re.search(ready, text := log.read_text(errors="replace")):
        if time.monotonic() > end or server.poll() is not None:
            raise TimeoutError(f"it never printed {ready!r} but: {' '.join(text.split())[-300:]}")
        time.sleep(0.5)


def finish(shell: Shell) -> None:
    """Stop what was started."""
    while shell.serving:
        server = shell.serving.pop()
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGINT)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
