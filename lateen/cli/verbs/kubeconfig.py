"""`lateen kubeconfig`: how kubectl and its kin reach the mesh."""

from __future__ import annotations

from pathlib import Path

import click

from lateen.cli.options import mesh, running
from lateen.lib.errors import LateenError


@click.command("kubeconfig")
@mesh
def command(name: str | None, settings_file: Path | None) -> None:
    """Print the path of the mesh's kubeconfig, as in: export KUBECONFIG="$(lateen kubeconfig)"."""
    settings = running(name, settings_file)
    path = settings.layout().kubeconfig
    if not settings.api_port or not path.exists():
        raise LateenError("the mesh serves no Kubernetes API", remedy="start it with an --api-port")
    print(path)
