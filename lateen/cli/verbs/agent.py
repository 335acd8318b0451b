"""`lateen agent`: the agent in the foreground, beside a mesh that was started with `up`."""

from __future__ import annotations

from pathlib import Path

import click

from lateen.cli.options import mesh, running
from lateen.daemon import agent
from lateen.daemon.process import log_json, run


@click.command("agent")
@mesh
def command(name: str | None, settings_file: Path | None) -> None:
    """Run the agent of a mesh in the foreground: certificates and names for its proxies, until interrupted."""
    settings = running(name, settings_file)
    log_json()
    run(agent.serve, settings)
