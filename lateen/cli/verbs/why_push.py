"""`lateen why-push`: what a change became, from the object to the last proxy."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import click

from lateen.apiserver.client import Client
from lateen.cli.options import mesh, output, running
from lateen.cli.output import document, table
from lateen.cli.references import reference

Json = dict[str, Any]


@click.command("why-push")
@click.argument("target", required=False, metavar="[KIND/NAME]")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("--proxy", default="", metavar="POD", help="Only what this proxy was sent something of.")
@click.option("--revision", default=0, help="Only the change of that revision, with every proxy.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@mesh
@output()
def command(
    target: str | None,
    namespace: str,
    proxy: str,
    revision: int,
    limit: int,
    name: str | None,
    settings_file: Path | None,
    output: str,
) -> None:
    """What the last changes became, the newest first: the objects (with their revisions in the history), how many
    queries ran, what was sent to how many proxies, and when the first and the last of them had it.

    All times are from the moment the change came in. A proxy that connects or asks for something new is sent that
    without any change; it is not shown here. Kept in memory: the last 1,000 changes since the control plane started.
    """
    ref = str(reference(target, namespace)) if target else ""
    full = proxy if "." in proxy or not proxy else f"{proxy}.{namespace}"
    query = {"ref": ref, "proxy": full, "revision": str(revision or ""), "limit": str(limit)}
    pushes = asyncio.run(_read(running(name, settings_file).layout().api_socket, query))
    if output != "table":
        document(pushes, output)
        return
    columns = ("WHEN", "CHANGED", "QUERIES", "WORKED OUT", "RESOURCES", "BYTES", "SCOPES", "PROXIES", "FIRST", "LAST")
    table(columns, [_row(each) for each in pushes])
    if revision or len(pushes) == 1:
        for each in pushes:
            print()
            rows = [_proxy(one, took) for one, took in each["proxies"].items() if full in ("", one)]
            table(("PROXY", "RESOURCES", "BYTES", "HAD IT AFTER"), rows)


async def _read(socket: Path, query: dict[str, str]) -> list[Json]:
    async with Client(socket) as client:
        return (await client.read("/lateen/v1/pushes", **query))["pushes"]


def _row(push: Json) -> tuple[str, ...]:
    named = [f"{each['object']}@{each['revision'] or '-'}" for each in push["objects"]]
    more = push["changed"] - len(named)
    took: list[Json] = list(push["proxies"].values())
    had = sum(each["ackedS"] is not None for each in took)
    last = _seconds(push["lastS"]) if had == len(took) else f"{len(took) - had} wait"
    return (
        f"{dt.datetime.fromtimestamp(push['at'], dt.UTC):%H:%M:%S.%f}"[:-3],
        ", ".join(named[:3]) + (f" and {len(named) - 3 + more} more" if len(named) + more > 3 else ""),
        str(push["queries"]),
        _seconds(push["workedOutS"]),
        _resources(push["resources"]),
        f"{push['bytes']:,}",
        str(push["scopes"]),
        str(len(took)),
        _seconds(push["firstS"]),
        last,
    )


def _proxy(name: str, took: Json) -> tuple[str, ...]:
    when = "waits" if took["ackedS"] is None else _seconds(took["ackedS"])
    return (name, _resources(took["resources"]), f"{took['bytes']:,}", f"{when} (refused)" if took["refused"] else when)


def _resources(types: dict[str, int]) -> str:
    return " ".join(f"{short}:{count}" for short, count in sorted(types.items())) or "-"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} s"
