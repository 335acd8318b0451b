"""`lateen serve`: the control plane alone on a folder of YAML."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from lateen.daemon.process import log_json
from lateen.daemon.tool import serve_folder


@click.command("serve")
@click.option("--config-dir", type=click.Path(path_type=Path), required=True, help="Folder of YAML; it is followed.")
@click.option(
    "--xds-address", default="127.0.0.1:15010", show_default=True, help="HOST:PORT or unix:/path; xDS in plaintext."
)
@click.option(
    "--learned-file",
    type=click.Path(path_type=Path),
    help="Keeps what workloads were seen to call: their next proxies start with it. Replicas may share the file.",
)
@click.option("--allow-mass-delete", is_flag=True, help="Delete at once even when most of the folder vanishes.")
def command(config_dir: Path, xds_address: str, learned_file: Path | None, allow_mass_delete: bool) -> None:
    """Run the control plane alone on a folder of YAML and follow it.

    Objects that vanish together (all of them, or five and more than half) are kept and reported until the files are
    back or somebody touches `.allow-mass-delete` in the folder.
    """
    log_json()
    asyncio.run(serve_folder(config_dir, xds_address, allow_mass_delete=allow_mass_delete, learned_file=learned_file))
