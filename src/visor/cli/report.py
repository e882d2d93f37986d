"""The command that writes the page of a run, with where its numbers come from."""

from pathlib import Path
from typing import Annotated

import typer

from visor import errors


def report(
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file, whatever it is.")] = False,
) -> None:
    """Write one HTML page that says what the last run showed, for people who never open a terminal."""
    from visor.config import load_params
    from visor.files import write_text
    from visor.report.page import TITLE, build
    from visor.report.provenance import gather

    if out.is_dir():
        raise errors.UserError(f"--out {out} is a folder; name a file")
    provenance = gather(Path(), load_params().gates)
    page = build(Path(), provenance)
    try:
        if out.exists() and not force and TITLE not in out.read_text(encoding="utf-8", errors="replace")[:2000]:
            raise errors.UserError(f"--out {out} is there and is no run report; name another file, or add --force")
        write_text(out, page)
    except OSError as error:
        raise errors.UserError(f"--out {out} cannot be written ({error.strerror}); name another file") from None
    if provenance.trouble:
        typer.echo(f"the numbers of {out} are not those of its params: {provenance.trouble}", err=True)
    typer.echo(f"{out}: {len(page.encode()) / 1e6:.1f} MB; open it in a browser")
