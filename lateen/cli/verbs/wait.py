"""`lateen wait`: for scripts that must go on only when configuration is in force."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

import click

from lateen.api import kinds
from lateen.cli.options import mesh, running
from lateen.cli.waiting import For, Wanted, has_conditions, wait


@click.command("wait")
@click.argument("objects", nargs=-1, required=True, metavar="KIND/NAME...")
@click.option("--for", "what", type=click.Choice(["live", "accepted"]), default="live", show_default=True)
@click.option("--timeout", default=30.0, show_default=True, help="In seconds.")
@click.option("-n", "--namespace", default="default", show_default=True)
@mesh
def command(
    objects: tuple[str, ...], what: str, timeout: float, namespace: str, name: str | None, settings_file: Path | None
) -> None:
    """Wait until every KIND/NAME (`vs/reviews`) is accepted, or live on every connected proxy that needs it.

    Exit code 0: it is. 1: proxies refuse it, or it is not there. 3: the time is over.
    """
    wanted: list[Wanted] = []
    for each in objects:
        word, _, own = each.partition("/")
        kind = kinds.by_name(word)
        if kind is None or not own:
            raise click.UsageError(f"{each} is not KIND/NAME of a kind that there is")
        if not has_conditions(kind):
            raise click.UsageError(f"a {kind.kind} configures no proxy by itself; lateen ps shows whether it runs")
        wanted.append(Wanted(kind, namespace if kind.namespaced else "", own))
    socket = running(name, settings_file).layout().api_socket
    sys.exit(asyncio.run(wait(socket, wanted, cast("For", what), timeout)))
