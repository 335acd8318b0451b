"""`lateen apply`."""

from __future__ import annotations

import asyncio
import getpass
import sys
from pathlib import Path

import click

from lateen.api import kinds
from lateen.apiserver.applying import apply_files
from lateen.apiserver.client import Client
from lateen.apiserver.results import ApplyResult
from lateen.cli import files
from lateen.cli.options import mesh, output, running
from lateen.cli.output import document
from lateen.cli.waiting import Wanted, has_conditions, wait
from lateen.lib.errors import LateenError


@click.command("apply")
@click.option("-f", "--filename", "names", multiple=True, required=True, help="File, directory or `-`; repeatable.")
@click.option("-n", "--namespace", default="default", show_default=True, help="Of documents that name none.")
@click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")
@click.option("--wait", "until_live", is_flag=True, help="Return when all of it is live on every proxy that needs it.")
@click.option("--timeout", default=30.0, show_default=True, help="Of --wait, in seconds.")
@mesh
@output()
def command(
    names: tuple[str, ...],
    namespace: str,
    dry_run: bool,
    until_live: bool,
    timeout: float,
    name: str | None,
    settings_file: Path | None,
    output: str,
) -> None:
    """Put the objects of files into the mesh: all of them, or none with the reasons.

    With --wait the exit code is 1 when proxies refuse some of it and 3 when the time is over.
    """
    socket = running(name, settings_file).layout().api_socket
    result = asyncio.run(_apply(socket, files.read(names), namespace, dry_run))
    if output == "table":
        files.show(result)
        if dry_run and result.applied:
            click.echo("dry run: nothing was changed", err=True)
    else:
        document(result, output)
    if not result.objects and not result.findings:
        raise LateenError(f"there is no object in {', '.join(names)}", remedy="give documents with apiVersion and kind")
    if files.failed(result) or dry_run or not until_live:
        sys.exit(1 if files.failed(result) else 0)
    wanted = [
        Wanted(kind, each.namespace, each.name)
        for each in result.objects
        if (kind := kinds.by_name(each.kind)) is not None and has_conditions(kind)
    ]
    sys.exit(asyncio.run(wait(socket, wanted, "live", timeout)))


async def _apply(socket: Path, texts: list[tuple[str, str]], namespace: str, dry_run: bool) -> ApplyResult:
    async with Client(socket, getpass.getuser()) as client:
        return await apply_files(client, texts, namespace=namespace, dry_run=dry_run)
