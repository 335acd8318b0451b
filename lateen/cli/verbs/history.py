"""`lateen history`: what changed, when and by whom, and what proxies refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from lateen.apiserver.client import Client
from lateen.cli.options import mesh, output, running
from lateen.cli.output import document, table
from lateen.cli.references import reference

Json = dict[str, Any]


@click.command("history")
@click.argument("target", required=False, metavar="[KIND/NAME]")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("--limit", default=50, show_default=True)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="With what controllers write: Pods, ReplicaSets, EndpointSlices, Nodes and more.",
)
@mesh
@output()
def command(
    target: str | None,
    namespace: str,
    limit: int,
    everything: bool,
    name: str | None,
    settings_file: Path | None,
    output: str,
) -> None:
    """The revisions of the mesh or of one object, newest first. REFUSED: proxies did not take what it became. ERRORS:
    calls failed more often after it, and which."""
    ref = str(reference(target, namespace)) if target else ""
    socket = running(name, settings_file).layout().api_socket
    versions = asyncio.run(_read(socket, ref, limit, everything))
    if output != "table":
        document(versions, output)
        return
    rows = [
        (each["revision"], each["at"], each["author"] or "-", each["action"], each["object"], _mark(each))
        for each in versions
    ]
    table(("REVISION", "WHEN", "WHO", "ACTION", "OBJECT", "MARK"), rows)


async def _read(socket: Path, ref: str, limit: int, everything: bool) -> list[Json]:
    async with Client(socket) as client:
        query = {"ref": ref, "limit": str(limit), "all": "1" if everything else ""}
        return (await client.read("/lateen/v1/revisions", **query))["versions"]


def _mark(each: Json) -> str:
    marks = ["REFUSED"] if each["refused"] else []
    for said in each["errors"]:
        close = f" (or {said['others']} changes beside it)" if said["others"] else ""
        marks.append(f"ERRORS: {said['what']} of {said['host']} {said['before']} -> {said['after']}{close}")
    return "; ".join(marks)
