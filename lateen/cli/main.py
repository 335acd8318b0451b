"""The command `lateen`: a table of verbs, each loaded when it is called.

Exit codes: 0, 1 (an error or a finding of level error), 2 (the command line is wrong).
"""

from __future__ import annotations

import importlib
import sys
from typing import Final, cast

import click

from lateen.lib.errors import LateenError

VERBS: Final = {
    "up": "Start the mesh on this machine, with the demo",
    "down": "Stop the mesh; configuration and root certificate are kept",
    "ps": "Processes and Pods, and why one is not ready",
    "logs": "What a Pod's containers print",
    "apply": "Put objects into the mesh, all of a call or none",
    "get": "Show objects with their findings, now or at a former time",
    "describe": "What applies to a service or Pod, and where each setting comes from",
    "status": "The mesh at a glance: what is behind, refused, losing or expiring",
    "why-push": "What the last changes became: queries, resources, proxies, bytes, times",
    "wait": "Wait until objects are accepted, or live on every proxy that needs them",
    "history": "What changed, when and by whom",
    "diff": "What is different between two revisions",
    "rollback": "Bring an object, or the mesh's configuration, back to a former revision",
    "delete": "Remove objects",
    "validate": "Check files without a mesh",
    "kubeconfig": "The path of the kubeconfig with which kubectl reaches the mesh",
    "token": "A token with which a service account uses the API and the pages",
    "proxy-status": "Every proxy: in sync, behind, rejecting",
    "proxy-config": "What a proxy holds, from the live proxy",
    "ca": "The certificate authority: show, rotate, export, import",
    "bench": "What control plane and proxies cost, measured on this machine",
    "load": "Send requests and count the answers",
    "serve": "Run the control plane alone on a folder of YAML",
    "vm": "Let virtual machines into the mesh: groups and onboarding bundles",
    "agent": "Run the agent: of this mesh, or of a virtual machine with its bundle",
    "version": "Versions of lateen and of its data plane",
}
"""Verb -> one line of help. The verb's command is `lateen.cli.verbs.<verb>:command`."""


class _Verbs(click.Group):
    """Loads a verb's module when the verb is called; `--help` loads none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        try:
            module = importlib.import_module(f"lateen.cli.verbs.{cmd_name.replace('-', '_')}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("lateen"):
                raise
            message = f"`lateen {cmd_name}` needs {error.name}: what is installed here is the agent alone"
            raise LateenError(message, remedy="pip install 'lateen[mesh]'") from None
        return cast("click.Command", module.command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """A service mesh on this machine: control plane, an Envoy beside every workload, mutual TLS, your Istio YAML."""


def main() -> None:
    """Entry point of the console script."""
    try:
        cli.main(prog_name="lateen")
    except LateenError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.remedy:
            print(f"  try: {error.remedy}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
