"""`lateen token`: a token with which a service account uses the API and the pages."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from lateen.api.struct import Json
from lateen.apiserver.client import Client
from lateen.cli.options import mesh, running
from lateen.lib.durations import parse_duration


@click.command("token")
@click.argument("account")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("--duration", default="1h", show_default=True, help="How long it is good; at least 10m.")
@mesh
def command(account: str, namespace: str, duration: str, name: str | None, settings_file: Path | None) -> None:
    """Print a token of the service account ACCOUNT. What it may do is for the roles that are bound to the account:
    `lateen:debug` for the debug paths, `view` for reading what is no secret."""
    socket = running(name, settings_file).layout().api_socket
    try:
        seconds = int(parse_duration(duration).seconds)
    except ValueError as error:
        raise click.UsageError(f"--duration: {error}") from None
    print(asyncio.run(_make(socket, namespace, account, seconds)))


async def _make(socket: Path, namespace: str, account: str, seconds: int) -> str:
    async with Client(socket) as client:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        answer: Json = await client.post(path, {"spec": {"expirationSeconds": seconds}})
        return answer["status"]["token"]
