"""`lateen status`: the mesh at a glance."""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime as dt
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lateen.api import kinds
from lateen.apiserver.client import Client
from lateen.cli.glance import Glance, glance
from lateen.cli.options import mesh, output, running
from lateen.cli.output import document
from lateen.cli.pods import running_pods
from lateen.cli.waiting import has_conditions
from lateen.lib.layout import Layout
from lateen.node.control import ControlError, call

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
    click.echo(f"proxies: {seen.in_sync} of {seen.proxies} in sync; configuration objects: {seen.objects}")
    parts = (
        ("refusing", seen.refusing),
        ("behind", seen.behind),
        ("not connected", seen.away),
        ("refused objects", seen.refused),
        ("not live everywhere", seen.pending),
        ("errors jumped after", seen.failing),
        ("decided by another object", seen.losing),
        ("without effect", seen.idle),
        ("certificates", seen.certificates),
    )
    for title, lines in parts:
        if lines:
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
    certificates = [*_of_files(layout), *_of_secrets(secrets)]
    return glance(proxies, objects, expected, certificates, dt.datetime.now(dt.UTC), await _of_workloads(layout))


async def _of_workloads(layout: Layout) -> list[Json]:
    """What the agent says of the certificates of Pods; nothing while it is away, which `lateen ps` says."""
    try:
        return await call(layout.agent_socket, "list")
    except (OSError, ControlError):
        return []


def _of_files(layout: Layout) -> Iterator[tuple[str, dt.datetime]]:
    for file in sorted(layout.ca.glob("*.pem")):
        if "key" not in file.name:
            for end in _ends(file.read_bytes()):
                yield f"the CA's {file.name}", end


def _of_secrets(secrets: list[Json]) -> Iterator[tuple[str, dt.datetime]]:
    for each in secrets:
        metadata: Json = each["metadata"]
        data: Json = each.get("data") or {}
        for key in ("tls.crt", "cert"):
            try:
                pem = base64.b64decode(data.get(key, ""))
            except binascii.Error:
                continue
            for end in _ends(pem):
                yield f"Secret {metadata['namespace']}/{metadata['name']} {key}", end


def _ends(pem: bytes) -> list[dt.datetime]:
    from cryptography import x509  # half of the time of starting, and only this verb needs it

    try:
        return [min(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(pem))] if pem else []
    except ValueError:
        return []
