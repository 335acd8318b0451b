"""`lateen delete`."""

from __future__ import annotations

import asyncio
import getpass
import sys
from pathlib import Path

import click

from lateen.api import kinds
from lateen.apiserver.applying import delete_files
from lateen.apiserver.client import Client
from lateen.apiserver.results import Applied, ApplyResult
from lateen.cli import files
from lateen.cli.options import mesh, running


@click.command("delete")
@click.argument("what", nargs=-1)
@click.option("-f", "--filename", "names", multiple=True, help="Delete what these files name; repeatable.")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted.")
@mesh
def command(
    what: tuple[str, ...],
    names: tuple[str, ...],
    namespace: str,
    dry_run: bool,
    name: str | None,
    settings_file: Path | None,
) -> None:
    """Remove objects: KIND NAME..., KIND/NAME..., or what the files of -f name."""
    if bool(what) == bool(names):
        raise click.UsageError("give KIND NAME... or -f FILE")
    socket = running(name, settings_file).layout().api_socket
    if names:
        result = asyncio.run(_delete_files(socket, files.read(names), namespace, dry_run))
    else:
        result = asyncio.run(_delete(socket, _targets(what), namespace, dry_run))
    files.show(result)
    sys.exit(1 if files.failed(result) else 0)


def _targets(what: tuple[str, ...]) -> list[tuple[str, str]]:
    if all("/" in each for each in what):
        pairs = [(each.split("/", 1)[0], each.split("/", 1)[1]) for each in what]
    else:
        if len(what) < 2 or any("/" in each for each in what):
            raise click.UsageError("give KIND NAME... or KIND/NAME...")
        pairs = [(what[0], each) for each in what[1:]]
    for kind, _ in pairs:
        if kinds.by_name(kind) is None:
            raise click.UsageError(f"there is no kind {kind}")
    return pairs


async def _delete_files(socket: Path, texts: list[tuple[str, str]], namespace: str, dry_run: bool) -> ApplyResult:
    async with Client(socket, getpass.getuser()) as client:
        return await delete_files(client, texts, namespace=namespace, dry_run=dry_run)


async def _delete(socket: Path, pairs: list[tuple[str, str]], namespace: str, dry_run: bool) -> ApplyResult:
    done: list[Applied] = []
    async with Client(socket, getpass.getuser()) as client:
        for name, target in pairs:
            kind = kinds.by_name(name)
            assert kind is not None
            space = namespace if kind.namespaced else ""
            await client.get(kind.kind, target, space)
            gone = None if dry_run else await client.delete(name, target, space)
            action = "would be deleted" if dry_run else "deleted" if gone is None else "is being deleted"
            done.append(Applied(kind.kind, space, target, action))
    return ApplyResult(True, tuple(done))
