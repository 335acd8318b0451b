"""`lateen get`: objects with their findings."""

from __future__ import annotations

import asyncio
import datetime
import time
from pathlib import Path
from typing import Any

import click

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.apiserver.client import Client
from lateen.cli.options import mesh, output, running
from lateen.cli.output import document, table
from lateen.cli.verbs.ps import age
from lateen.lib.errors import LateenError

Json = dict[str, Any]


@click.command("get")
@click.argument("kind")
@click.argument("names", nargs=-1)
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True)
@click.option("-l", "--selector", "labels", default="", help="Only objects with these labels.")
@click.option("--at", default="", metavar="REVISION|TIME", help="As they were then (without statuses).")
@click.option("--show-managed-fields", "managed", is_flag=True, help="With -o yaml and json: who set which field.")
@mesh
@output()
def command(
    kind: str,
    names: tuple[str, ...],
    namespace: str,
    everywhere: bool,
    labels: str,
    at: str,
    managed: bool,
    name: str | None,
    settings_file: Path | None,
    output: str,
) -> None:
    """Objects of KIND (`vs`, `virtualservices`, `pods`, ...; several with commas), all or the NAMES given, with
    their findings."""
    wanted: list[Kind] = []
    for each in kind.split(","):
        found = kinds.by_name(each)
        if found is None:
            raise click.UsageError(f"there is no kind {each}")
        wanted.append(found)
    socket = running(name, settings_file).layout().api_socket
    if at and labels:
        raise click.UsageError("--selector is for what is there now")
    space = None if everywhere else namespace
    if at:
        objects = asyncio.run(_read_then(socket, wanted, names, space, at))
    else:
        objects = asyncio.run(_read(socket, wanted, names, space, labels))
    if output != "table":
        objects = objects if managed else [_without_managers(each) for each in objects]
        alone = len(names) == 1 and len(objects) == 1
        document(objects[0] if alone else {"apiVersion": "v1", "kind": "List", "items": objects}, output)
        return
    columns = ("NAMESPACE", "KIND", "NAME", "AGE", "FINDINGS") if everywhere else ("KIND", "NAME", "AGE", "FINDINGS")
    table(columns, [_row(each)[0 if everywhere else 1 :] for each in objects])
    for each in objects:
        for finding in _findings(each):
            print(f"\n{each['kind']} {each['metadata']['name']}: {_text(finding)}", end="")
    if any(_findings(each) for each in objects):
        print()


async def _read(
    socket: Path, wanted: list[Kind], names: tuple[str, ...], namespace: str | None, labels: str
) -> list[Json]:
    found: list[Json] = []
    async with Client(socket) as client:
        for kind in wanted:
            full = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
            space = namespace if kind.namespaced else None
            if names:
                found += [await client.get(full, each, space or "") for each in names]
            else:
                found += await client.list(full, space, labels=labels)
    return found


async def _read_then(
    socket: Path, wanted: list[Kind], names: tuple[str, ...], namespace: str | None, at: str
) -> list[Json]:
    async with Client(socket) as client:
        answer = await client.read("/lateen/v1/at", revision=at)
    found = [
        each
        for kind in wanted
        for each in answer["items"]
        if kinds.by_api(each["apiVersion"], each["kind"]) is kind
        and (namespace is None or not kind.namespaced or each["metadata"].get("namespace") == namespace)
        and (not names or each["metadata"]["name"] in names)
    ]
    for name in names:
        if not any(each["metadata"]["name"] == name for each in found):
            raise LateenError(f"there was no {name} at revision {answer['revision']}", remedy="lateen history")
    return found


def _without_managers(each: Json) -> Json:
    return {**each, "metadata": {key: part for key, part in each["metadata"].items() if key != "managedFields"}}


def _row(each: Json) -> tuple[object, ...]:
    metadata = each["metadata"]
    created = metadata.get("creationTimestamp", "")
    since = age(time.time() - datetime.datetime.fromisoformat(created).timestamp()) if created else "-"
    codes = ", ".join(str(finding.get("code")) for finding in _findings(each))
    return (metadata.get("namespace", "-"), each["kind"], metadata["name"], since, codes or "-")


def _findings(each: Json) -> list[Json]:
    status: Json = each.get("status") or {}
    return status.get("findings") or []


def _text(finding: Json) -> str:
    position: Json = finding.get("position") or {}
    place = f"{position['file']}:{position['line']}:{position['column']} " if position else ""
    where = f"{place}{finding.get('path', '')}".strip()
    line = f"{finding.get('level')} {finding.get('code')} {where}: {finding.get('message')}"
    return f"{line} ({finding['remedy']})" if finding.get("remedy") else line
