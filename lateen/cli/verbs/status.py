"""`lateen status`: the mesh at a glance."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
from pathlib import Path
from typing import Any

import click

from lateen.api import kinds
from lateen.apiserver.client import Client
from lateen.cli.options import mesh, output, running
from lateen.cli.output import document
from lateen.cli.pods import running_pods
from lateen.cli.waiting import has_conditions
from lateen.console.certificates import of_files, of_secrets, of_workloads
from lateen.console.glance import Glance, glance
from lateen.lib.layout import Layout

Json = dict[str, Any]


@click.command("status")
@mesh
@output()
def command(name: str | None, settings_file: Path | None, output: str) -> None:
    """The mesh at a glance: proxies in sync, behind (since when, with what), refusing (what, in plain words) or away;
    objects refused, pending, after which calls failed more often, losing to others or without effect; certificates that
    end soon.

    Exit code 1 when something is refused or away, or a change made calls fail."""
    layout = running(name, settings_file).layout()
    seen = asyncio.run(_look(layout))
    if output != "table":
        document(seen, output)
    else:
        show(seen)
    sys.exit(0 if seen.healthy else 1)


def show(seen: Glance) -> None:
    """Prints what is to be said; nothing is said of what is well."""
    click.echo(seen.summary)
    for title, lines in seen.parts:
        click.echo(f"\n{title}:")
        for line in lines:
            click.echo(f"  {line}")


async def _look(layout: Layout) -> Glance:
    async with Client(layout.api_socket) as client:
        proxies = (await client.read("/lateen/v1/proxies"))["proxies"]
        objects: list[Json] = []
        for kind in kinds.KINDS:
            if has_conditions(kind):
                objects += await client.list(f"{kind.plural}.{kind.group}")
        secrets = await client.list("secrets")
    expected = [f"{pod.name}.{pod.namespace}" for pod in running_pods(layout) if pod.proxy is not None]
    certificates = [*of_files(layout), *of_secrets(secrets, objects)]
    return glance(proxies, objects, expected, certificates, dt.datetime.now(dt.UTC), await of_workloads(layout))
