"""`lateen ca`: the certificate authority of the mesh."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import click

from lateen.apiserver.client import Client
from lateen.cli.options import mesh, output, running
from lateen.cli.output import document, table
from lateen.lib.errors import LateenError

Json = dict[str, Any]

FILES = ("ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem")
REVOKED = "ca-crl.pem"
_PATH = "/lateen/v1/ca"
_LOOK_S = 0.2


@click.group("ca")
def command() -> None:
    """The mesh's certificate authority: what signs, what is trusted, and replacing it."""


@command.command("show")
@mesh
@output()
def show(name: str | None, settings_file: Path | None, output: str) -> None:
    """The signing certificate, the trusted roots, and where a replacement is."""
    found = _ask(name, settings_file)
    if output == "table":
        _print(found)
    else:
        document(found, output)


@command.command("rotate")
@click.option("--wait", is_flag=True, help="Return when the new root signs.")
@click.option("--timeout", default=120.0, show_default=True, help="In seconds, with --wait.")
@click.option("--force", is_flag=True, help="Sign with the new root although some proxies do not trust it yet.")
@click.option("--retire", is_flag=True, help="Stop trusting the former root now, not when its last certificate ends.")
@mesh
def rotate(wait: bool, timeout: float, force: bool, retire: bool, name: str | None, settings_file: Path | None) -> None:
    """Replace the root by a new one of lateen's own: make it known, sign with it, drop the old one."""
    orders = {"switch": force, "retire": retire}
    if sum(orders.values()) > 1:
        raise click.UsageError("--force and --retire are different steps")
    do = next((each for each, wanted in orders.items() if wanted), "begin")
    _replace({"do": do}, name, settings_file, wait, timeout)


@command.command("import")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--wait", is_flag=True, help="Return when it signs.")
@click.option("--timeout", default=120.0, show_default=True, help="In seconds, with --wait.")
@mesh
def import_(directory: Path, wait: bool, timeout: float, name: str | None, settings_file: Path | None) -> None:
    """Replace the CA by ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem (and ca-crl.pem) of a DIRECTORY."""
    files: dict[str, str] = {}
    for each in (*FILES, REVOKED):
        path = directory / each
        if path.exists():
            files[each] = path.read_text()
        elif each != REVOKED:
            raise LateenError(f"there is no {path}", remedy=f"a CA has {', '.join(FILES)}")
    _replace({"do": "begin", "files": files}, name, settings_file, wait, timeout)


@command.command("export")
@click.option("--format", "form", type=click.Choice(["pem", "spiffe"]), default="pem", show_default=True)
@click.option(
    "--private-key",
    "directory",
    type=click.Path(path_type=Path),
    help="Copy the whole CA into a new DIRECTORY instead.",
)
@mesh
def export(form: str, directory: Path | None, name: str | None, settings_file: Path | None) -> None:
    """Print the trusted roots, for whoever is to trust this mesh; or copy the CA with its key, for a backup."""
    if directory is not None:
        _copy(running(name, settings_file).layout().ca, directory)
        print(f"the CA and its private key are in {directory}: keep them safe")
        return
    bundle = _ask(name, settings_file)["bundle"]
    if form == "pem":
        print(bundle, end="")
    else:
        from lateen.lib.bundles import to_spiffe

        print(to_spiffe(bundle).decode())


def _ask(name: str | None, settings_file: Path | None, order: Json | None = None) -> Json:
    socket = running(name, settings_file).layout().api_socket

    async def ask() -> Json:
        async with Client(socket) as client:
            return await (client.read(_PATH) if order is None else client.post(_PATH, order))

    return asyncio.run(ask())


def _replace(order: Json, name: str | None, settings_file: Path | None, wait: bool, timeout_s: float) -> None:
    found = _ask(name, settings_file, order)
    end = time.monotonic() + timeout_s
    while wait and found["stage"] == "distributing":
        if time.monotonic() > end:
            _print(found)
            sys.exit(3)
        time.sleep(_LOOK_S)
        found = _ask(name, settings_file)
    _print(found)


def _print(found: Json) -> None:
    rows = [("signs", found["signing"])] + [("trusted", each) for each in found["roots"]]
    table(
        ("", "SUBJECT", "EXPIRES", "SHA-256"),
        [(what, each["subject"], each["expires"], each["fingerprint"][:16]) for what, each in rows],
    )
    match found["stage"]:
        case "distributing":
            print("a new CA is being made known; it signs when every proxy trusts it")
            for pod in found["behind"]:
                print(f"  not yet: {pod}")
        case "retiring":
            print(f"the former CA is trusted until {found['retiresAt']}, when the last certificate of it ends")
        case _:
            pass


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        raise LateenError(f"{target} is there already", remedy="name a new directory")
    target.mkdir(mode=0o700, parents=True)
    for each in (*FILES, REVOKED):
        if (source / each).exists():
            copy = target / each
            copy.touch(mode=0o600)
            copy.write_bytes((source / each).read_bytes())
