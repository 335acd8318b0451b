"""`lateen rollback`: back to a former revision, as a new one."""

from __future__ import annotations

import asyncio
import getpass
import sys
from pathlib import Path
from typing import Any

import click

from lateen.apiserver.client import Client
from lateen.cli.options import mesh, output, running
from lateen.cli.output import document
from lateen.cli.references import reference

Json = dict[str, Any]


@click.command("rollback")
@click.argument("target", metavar="REVISION|TIME|KIND/NAME")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("--to", default="", metavar="REVISION|TIME", help="Of KIND/NAME; default: its last good version before.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@mesh
@output()
def command(
    target: str,
    namespace: str,
    to: str,
    dry_run: bool,
    name: str | None,
    settings_file: Path | None,
    output: str,
) -> None:
    """Bring the mesh's configuration back to REVISION, or one object to an earlier version. It is checked like any
    change, becomes a revision of its own, and is done as a whole or not at all."""
    one = "/" in target
    body: Json = {"author": getpass.getuser(), "dryRun": dry_run}
    body |= {"ref": str(reference(target, namespace)), "to": to} if one else {"to": target}
    if to and not one:
        raise click.UsageError("--to is for KIND/NAME")
    socket = running(name, settings_file).layout().api_socket
    answer = asyncio.run(_ask(socket, body))
    if output != "table":
        document(answer, output)
    else:
        for each in answer["steps"]:
            as_of = f" (as of revision {each['revision']})" if each["revision"] else ""
            click.echo(f"{each['object']} {'would be ' if dry_run else ''}{each['action']}{as_of}")
        for finding in answer["findings"]:
            where = " ".join(filter(None, (finding.get("ref", {}).get("name"), finding.get("path"))))
            click.echo(f"{finding['level']} {finding['code']} {where}: {finding['message']}", err=True)
        if not answer["done"]:
            click.echo("nothing was changed: what was then is not valid any more", err=True)
        elif not answer["steps"]:
            click.echo("nothing to do: it is as it was")
        elif not dry_run:
            click.echo(f"this is revision {answer['revision']}")
    sys.exit(0 if answer["done"] else 1)


async def _ask(socket: Path, body: Json) -> Json:
    async with Client(socket) as client:
        return await client.post("/lateen/v1/rollback", body)
