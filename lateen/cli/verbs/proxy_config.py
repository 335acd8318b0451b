"""`lateen proxy-config`: what a live proxy holds, from its admin interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import httpx

from lateen.cli import authz_view
from lateen.cli import proxy_view as view
from lateen.cli.options import mesh, output, running
from lateen.cli.output import document, table
from lateen.cli.pods import admin_socket, find_pod
from lateen.lib.errors import LateenError

WHAT = ("all", "clusters", "listeners", "routes", "endpoints", "secrets", "authz")
_SECTIONS = {
    "clusters": "ClustersConfigDump",
    "listeners": "ListenersConfigDump",
    "routes": "RoutesConfigDump",
    "secrets": "SecretsConfigDump",
}


class ProxyUnreachableError(LateenError):
    """The proxy's admin interface does not answer."""


def ask(socket: Path, path: str) -> dict[str, Any]:
    """GET on the admin interface; ProxyUnreachableError when it does not answer with JSON."""
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=10) as client:
            return client.get(f"http://admin{path}").raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise ProxyUnreachableError(
            f"the proxy's admin interface {socket} does not answer: {error}", remedy="lateen ps, lateen logs --proxy"
        ) from None


@click.command("proxy-config")
@click.argument("what", type=click.Choice(WHAT))
@click.argument("pod")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("--match", "pattern", default="", help="Only rows that contain this text.")
@mesh
@output()
def command(
    what: str, pod: str, namespace: str, pattern: str, name: str | None, settings_file: Path | None, output: str
) -> None:
    """What a proxy holds: WHAT is all, clusters, listeners, routes, endpoints, secrets or authz (the security
    policies it enforces, each with the object it comes from); POD is NAME, NAME.NAMESPACE, NAMESPACE/NAME or
    deploy/NAME. Private keys are never shown."""
    socket = admin_socket(find_pod(running(name, settings_file).layout(), pod, namespace))
    if what == "endpoints":
        status = ask(socket, "/clusters?format=json")
        _show(view.ENDPOINT_COLUMNS, view.endpoints(status), status, output, pattern)
        return
    dump = ask(socket, "/config_dump?include_eds")
    if what == "authz" and output != "table":
        document([dict(zip(authz_view.COLUMNS, row, strict=True)) for row in authz_view.policies(dump)], output)
        return
    if output != "table":
        section = _SECTIONS.get(what, "")
        document([each for each in dump.get("configs", ()) if each.get("@type", "").endswith(section)], output)
        return
    shown = ("clusters", "listeners", "routes", "secrets") if what == "all" else (what,)
    for number, section in enumerate(shown):
        if number:
            print()
        match section:
            case "clusters":
                _show(view.CLUSTER_COLUMNS, view.clusters(dump), dump, output, pattern)
            case "listeners":
                _show(view.LISTENER_COLUMNS, view.listeners(dump), dump, output, pattern)
            case "routes":
                _show(view.ROUTE_COLUMNS, view.routes(dump), dump, output, pattern)
            case "authz":
                _show(authz_view.COLUMNS, authz_view.policies(dump), dump, output, pattern)
            case _:
                rows = view.secrets(dump, ask(socket, "/certs"))
                _show(view.SECRET_COLUMNS, rows, dump, output, pattern)


def _show(columns: tuple[str, ...], rows: Any, raw: Any, output: str, pattern: str) -> None:
    if output == "table":
        table(columns, [row for row in rows if not pattern or any(pattern in cell for cell in row)])
    else:
        document(raw, output)
