"""`lateen proxy-status`: every connected proxy, per type in sync, behind, or rejecting."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from lateen.apiserver.client import Client
from lateen.cli.options import mesh, output, running
from lateen.cli.output import document, table

Json = dict[str, Any]

_TYPES = ("CDS", "EDS", "ECDS", "LDS", "RDS", "VHDS", "SDS")


@click.command("proxy-status")
@click.argument("pod", required=False)
@mesh
@output()
def command(pod: str | None, name: str | None, settings_file: Path | None, output: str) -> None:
    """Every connected proxy (or that of POD: NAME or NAME.NAMESPACE), per type SYNCED, STALE (something is on its
    way) or REFUSED with Envoy's words. Exit code 1 when one refuses."""
    socket = running(name, settings_file).layout().api_socket
    proxies = [each for each in asyncio.run(_read(socket)) if pod in (None, each["name"], _full(each))]
    refusals = [
        (_full(each), short, resource, words)
        for each in proxies
        for short, status in each["types"].items()
        for resource, words in status["errors"].items()
    ]
    if output == "table":
        table(("NAME", "KIND", *_TYPES, "REVISION"), [_row(each) for each in proxies])
        for full, short, resource, words in refusals:
            print(f"\n{full} refuses {short} {resource}: {words}")
    else:
        document(proxies, output)
    if pod is not None and not proxies:
        raise click.ClickException(f"no proxy {pod} is connected")
    sys.exit(1 if refusals else 0)


async def _read(socket: Path) -> list[Json]:
    async with Client(socket) as client:
        return (await client.read("/lateen/v1/proxies"))["proxies"]


def _full(proxy: Json) -> str:
    return f"{proxy['name']}.{proxy['namespace']}"


def _row(proxy: Json) -> tuple[object, ...]:
    types: dict[str, Json] = proxy["types"]
    states = [f"{types[short]['state']} ({types[short]['held']})" if short in types else "-" for short in _TYPES]
    return (_full(proxy), proxy["kind"], *states, proxy["revision"])
