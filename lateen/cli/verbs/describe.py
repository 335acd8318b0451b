"""`lateen describe`: what applies to a service or Pod, and where each setting comes from."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from lateen.apiserver.client import Client
from lateen.cli.options import mesh, output, running
from lateen.cli.output import document
from lateen.cli.references import reference

Json = dict[str, Any]


@click.command("describe")
@click.argument("target", metavar="service/NAME|pod/NAME")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("--from", "clients", default="", help="Namespace of the clients; default: the service's own.")
@mesh
@output()
def command(
    target: str, namespace: str, clients: str, name: str | None, settings_file: Path | None, output: str
) -> None:
    """What applies to a service or Pod: the effective value of each setting, the object, file and line it comes from,
    what lost, and why."""
    ref = reference(target, namespace)
    if ref.kind not in ("Service", "Pod"):
        raise click.UsageError("describe takes service/NAME or pod/NAME")
    socket = running(name, settings_file).layout().api_socket
    sections = asyncio.run(_read(socket, {"kind": ref.kind, "namespace": namespace, "name": ref.name, "from": clients}))
    if output != "table":
        document(sections, output)
        return
    for section in sections:
        click.echo(section["title"])
        for line in section["lines"]:
            origin = " ".join(filter(None, (line["place"], line["object"], line["path"])))
            default = "" if section["title"] == "Its proxy" else "   [default]"
            click.echo(f"  {line['what']}: {line['value']}" + (f"   [{origin}]" if origin else default))


async def _read(socket: Path, query: dict[str, str]) -> list[Json]:
    async with Client(socket) as client:
        return (await client.read("/lateen/v1/describe", **query))["sections"]
