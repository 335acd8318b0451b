"""`lateen bench`: what the control plane costs, measured on this machine."""

from __future__ import annotations

import click

from lateen.bench.xds import Plan, Row, measure
from lateen.bench.xds_mesh import MeshShape
from lateen.cli.options import output
from lateen.cli.output import document, table


@click.group("bench")
def command() -> None:
    """Measure what the mesh costs on this machine."""


@command.command("xds")
@click.option("--services", type=click.IntRange(30), default=1000, show_default=True)
@click.option("--sidecars", type=click.IntRange(1), default=200, show_default=True)
@click.option("--eager", is_flag=True, help="Sidecars that get everything at once, as Istio's do.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="How often each change is made.")
@click.option(
    "--server",
    default="",
    help="Another control plane: a command in which {folder} and {address} stand for the YAML and for HOST:PORT.",
)
@output()
def xds(services: int, sidecars: int, eager: bool, rounds: int, server: str, output: str) -> None:
    """What changes cost the control plane: seconds to the last sidecar, CPU, bytes; the floor beside it is a bare
    broadcast of the same bytes to the same streams."""
    shape = MeshShape(services, sidecars)
    plan = Plan(shape=shape, on_demand=not eager, server=server, rounds=rounds)
    report = measure(plan, lambda text: click.echo(text, err=True))
    if output != "table":
        document(report, output)
        return
    columns = ("", "LAST SIDECAR", "CPU", "BYTES EACH", "SIDECARS", "FLOOR", "FLOOR CPU")
    table(columns, [_shown(each) for each in (report.cold, *report.changes)])
    print(f"\npeak memory of the server {report.peak_mib:.0f} MiB")


def _shown(row: Row) -> tuple[str, ...]:
    floor = (f"{row.floor_s:.3f} s", f"{row.floor_cpu_s:.2f} s") if row.floor_s else ("-", "-")
    return (row.name, f"{row.last_s:.3f} s", f"{row.cpu_s:.2f} s", f"{row.bytes_each:,.0f}", str(row.sidecars), *floor)
