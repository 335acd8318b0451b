"""`lateen bench`: what the mesh costs, measured on this machine."""

from __future__ import annotations

import click

from lateen.bench.loads import PROTOCOLS
from lateen.bench.proxy import ProxyPlan, Way
from lateen.bench.proxy import measure as measure_proxy
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


@command.command("proxy")
@click.option("--seconds", type=click.FloatRange(0.1), default=3, show_default=True, help="Of each measurement.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often each is made.")
@click.option(
    "--protocol",
    "protocols",
    type=click.Choice(PROTOCOLS),
    multiple=True,
    default=PROTOCOLS,
    help="Only these; may be given again. Default: all.",
)
@output()
def proxy(seconds: float, rounds: int, protocols: tuple[str, ...], output: str) -> None:
    """What two sidecars cost a request, against no proxy and against two Envoys written by hand, at 1,000 requests a
    second and with as many as go, in the clear and with mutual TLS; and the memory of an idle sidecar.

    Needs root (or user namespaces), h2load, nghttpd, nft and ip.
    """
    plan = ProxyPlan(protocols=tuple(each for each in PROTOCOLS if each in protocols), seconds=seconds, rounds=rounds)
    report = measure_proxy(plan, lambda text: click.echo(text, err=True))
    if output != "table":
        document(report, output)
        return
    columns = (
        "PROTOCOL",
        "TLS",
        "RATE",
        "WAY",
        "REQUESTS/S",
        "P50",
        "P99",
        "CPU A REQUEST",
        "CPU, P50, P99, RATE TO HAND",
    )
    rows = [
        (each.protocol, "mutual" if each.mtls else "-", str(each.rate or "max"), *_way(way))
        for each in report.cases
        for way in each.ways
    ]
    table(columns, rows)
    print()
    table(
        ("IDLE", "RSS", "PSS"),
        [(name, f"{each.rss_mib:.1f} MiB", f"{each.pss_mib:.1f} MiB") for name, each in report.memory.items()],
    )


def _way(way: Way) -> tuple[str, ...]:
    cpu = f"{way.cpu_us:.0f} us" if way.cpu_us else "-"
    ratios = f"{way.cpu_ratio:.2f}  {way.p50_ratio:.2f}  {way.p99_ratio:.2f}  {way.per_second_ratio:.2f}"
    failed = f" ({way.failed} failed)" if way.failed else ""
    times = (f"{way.p50_ms:.2f} ms", f"{way.p99_ms:.2f} ms")
    return (way.name, f"{way.per_second:,.0f}{failed}", *times, cpu, ratios if way.cpu_ratio else "-")
