"""`lateen up`."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from pathlib import Path

import click

from lateen.cli.options import mesh, settle
from lateen.daemon import lifecycle
from lateen.daemon.settings import read


class Progress:
    """Prints each step; on a terminal a line may replace the one before."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._open = False

    def __call__(self, line: str) -> None:
        replaces = line.startswith("\r")
        text = f"{time.monotonic() - self._began:5.1f} s  {line.removeprefix(chr(13))}"
        if replaces and sys.stdout.isatty():
            print(f"\r\x1b[K{text}", end="", flush=True)
            self._open = True
            return
        self.end()
        print(text, flush=True)

    def end(self) -> None:
        if self._open:
            print(flush=True)
            self._open = False


@click.command("up")
@mesh
@click.option("--host", help="Where host ports listen; default 127.0.0.1.")
@click.option("--gateway-port", type=int, help="The gateway's HTTP port on this machine; default 8080, 0: off.")
@click.option("--https-port", type=int, help="The gateway's HTTPS port on this machine; default 8443, 0: off.")
@click.option("--console-port", type=int, help="The control plane's pages; default 20001, 0: off.")
@click.option("--debug-port", type=int, help="Metrics and debug paths, on loopback; default 15014, 0: off.")
@click.option("--api-port", type=int, help="The Kubernetes API, on loopback; default 6443, 0: off.")
@click.option("--console-login/--no-console-login", default=None, help="Whether the pages ask who one is.")
@click.option("--oidc-issuer", help="An identity provider whose users may log in to the pages and use the API.")
@click.option("--oidc-client-id", help="What the identity provider calls this mesh.")
@click.option("--oidc-client-secret-file", help="A file with the client's secret; default: a public client.")
@click.option("--oidc-ca-file", help="A CA (PEM) that the provider's certificate may be from.")
@click.option("--oidc-username-claim", help="The claim that is the user's name; default `sub`.")
@click.option("--oidc-groups-claim", help="The claim that is the user's groups; default `groups`.")
@click.option("--xds-port", type=int, help="xDS with TLS on loopback; default 15012, 0: off.")
@click.option("--vm-host", help="The address of this machine where virtual machines join the mesh; default: none may.")
@click.option("--plaintext-xds-port", type=int, help="xDS without authentication, on loopback, for tools; default off.")
@click.option("--state-dir", help="What outlives the mesh; default ~/.local/state/lateen/MESH.")
@click.option("--run-dir", help="Sockets; short.")
@click.option("--demo/--no-demo", default=None, help="Apply the demo: always, never; default: to a mesh without any.")
@click.option("--ready-timeout", "ready_timeout_s", type=float, help="Seconds to wait until it is ready.")
def command(name: str | None, settings_file: Path | None, demo: bool | None, **flags: str | int | float | None) -> None:
    """Start the mesh on this machine and wait until it is ready."""
    settings = settle(name, settings_file, **flags)
    progress = Progress()
    try:
        asyncio.run(lifecycle.up(settings, progress, demo=demo))
    finally:
        progress.end()
    progress("ready")
    settings = read(settings.layout().state / "settings.json")  # a mesh that ran already keeps its own
    print()
    if settings.gateway_port:
        print(f"  demo      http://localhost:{settings.gateway_port}/productpage")
    if settings.https_port:
        print(f"  https     https://localhost:{settings.https_port} (once a Gateway serves it)")
    if settings.console_port:
        print(f"  pages     http://localhost:{settings.console_port}")
    if settings.api_port:
        print(f"  kubectl   export KUBECONFIG={shlex.quote(str(settings.layout().kubeconfig))}")
    print(f"  state     {settings.state_dir}")
    print("\ntry:")
    lateen = _typed(settings.name)
    for words in ("ps", "proxy-config routes deploy/productpage-v1", "apply -f FILE"):
        print(f"  {lateen} {words}")


def _typed(name: str) -> str:
    """How this program was called, with what it takes to mean the same mesh."""
    program = Path(sys.argv[0])
    here = Path.cwd()
    shown = program.relative_to(here) if program.is_relative_to(here) else program
    return f"LATEEN_NAME={name} {shown}" if name != "default" else str(shown)
