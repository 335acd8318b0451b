"""`lateen agent`: the agent in the foreground, of a mesh that was started with `up`, or of a virtual machine."""

from __future__ import annotations

from pathlib import Path

import click

from lateen.cli.options import mesh


@click.command("agent")
@mesh
@click.option("--bundle", type=click.Path(path_type=Path), help="The folder that `lateen vm entry configure` wrote.")
@click.option("--address", default="", help="The address of this machine; default: the one it calls the mesh from.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="What outlives the agent; default /var/lib/lateen.")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Its sockets; default /run/lateen.")
def command(
    name: str | None,
    settings_file: Path | None,
    bundle: Path | None,
    address: str,
    state_dir: Path | None,
    run_dir: Path | None,
) -> None:
    """Run an agent in the foreground until it is interrupted.

    With --bundle, as root on a host outside of the Pods: makes the host a machine of the mesh. It runs Envoy, leads
    the traffic of all programs through it, answers their questions for names, and keeps certificate and registration.
    When it ends, the host is as it was, and no longer in the mesh.

    Without: the agent of a mesh of this machine, certificates and names for its proxies.
    """
    if bundle is not None:
        _machine(bundle, address, state_dir, run_dir)
        return
    from lateen.cli.options import running
    from lateen.daemon import agent
    from lateen.daemon.process import log_json, run

    settings = running(name, settings_file)
    log_json()
    run(lambda: agent.serve(settings))


def _machine(bundle: Path, address: str, state_dir: Path | None, run_dir: Path | None) -> None:
    from lateen.daemon import machine
    from lateen.daemon.process import log_json, run
    from lateen.node.bundle import read

    wanted = machine.Machine(
        bundle=read(bundle), address=address, state=state_dir or machine.STATE, run=run_dir or machine.RUN
    )
    log_json()
    run(lambda: machine.serve(wanted))
