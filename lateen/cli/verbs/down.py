"""`lateen down`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from lateen.cli.options import mesh, settle
from lateen.cli.verbs.up import Progress
from lateen.daemon import lifecycle


@click.command("down")
@mesh
@click.option("--state-dir", help="Where `up` was told to keep the mesh.")
@click.option("--run-dir", help="Where `up` was told to put sockets.")
def command(name: str | None, settings_file: Path | None, **flags: str | None) -> None:
    """Stop every process of the mesh; configuration and root certificate are kept for the next `up`."""
    settings = settle(name, settings_file, **flags)
    progress = Progress()
    asyncio.run(lifecycle.down(settings, progress))
    progress(f"the mesh {settings.name} is down; kept: {settings.state_dir}")
