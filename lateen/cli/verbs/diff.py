"""`lateen diff`: two revisions of the mesh or of one object, as people read differences."""

from __future__ import annotations

import asyncio
import difflib
from pathlib import Path
from typing import Any

import click
import yaml

from lateen.apiserver.client import Client
from lateen.cli.options import mesh, output, running
from lateen.cli.output import document
from lateen.cli.references import reference

Json = dict[str, Any]


@click.command("diff")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.argument("target", required=False, metavar="[KIND/NAME]")
@click.option("-n", "--namespace", default="default", show_default=True)
@mesh
@output()
def command(
    first: str,
    second: str,
    target: str | None,
    namespace: str,
    name: str | None,
    settings_file: Path | None,
    output: str,
) -> None:
    """What is different at B from what was at A (revisions, or times like 2026-01-31T10:00:00Z)."""
    ref = str(reference(target, namespace)) if target else ""
    socket = running(name, settings_file).layout().api_socket
    answer = asyncio.run(_read(socket, first, second, ref))
    if output != "table":
        document(answer, output)
        return
    for each in answer["objects"]:
        print("".join(lines(each, answer["from"], answer["to"])), end="")


def lines(each: Json, first: int, second: int) -> list[str]:
    """One object's unified difference."""
    before, after = _text(each["before"]), _text(each["after"])
    names = (f"{each['ref']} at {first}", f"{each['ref']} at {second}")
    return list(difflib.unified_diff(before, after, *names))


def _text(value: Json | None) -> list[str]:
    if value is None:
        return []
    return yaml.safe_dump(value, sort_keys=True, allow_unicode=True).splitlines(keepends=True)


async def _read(socket: Path, first: str, second: str, ref: str) -> Json:
    async with Client(socket) as client:
        return await client.read("/lateen/v1/diff", **{"from": first, "to": second, "ref": ref})
