"""`lateen bench`: what the mesh costs, measured on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from lateen.bench.api import ApiPlan, ApiReport, programs
from lateen.bench.api import figures as api_figures
from lateen.bench.api import measure as measure_api
from lateen.bench.large_mesh import LargePlan, LargeReport
from lateen.bench.large_mesh import figures as large_figures
from lateen.bench.large_mesh import measure as measure_large
from lateen.bench.loads import PROTOCOLS
from lateen.bench.proxy import ProxyPlan, ProxyReport, Way
from lateen.bench.proxy import figures as proxy_figures
from lateen.bench.proxy import measure as measure_proxy
from lateen.bench.results import Figures, compared, load, store
from lateen.bench.soak import SoakPlan, SoakReport
from lateen.bench.soak import figures as soak_figures
from lateen.bench.soak import soak as run_soak
from lateen.bench.truth import TruthPlan, TruthReport
from lateen.bench.truth import figures as truth_figures
from lateen.bench.truth import measure as measure_truth
from lateen.bench.xds import Plan, Report, Row, measure
from lateen.bench.xds import figures as xds_figures
from lateen.bench.xds_mesh import MeshShape
from lateen.cli.options import output
from lateen.cli.output import document, table

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", Report, ProxyReport, LargeReport, SoakReport, TruthReport, ApiReport)


@click.group("bench")
def command() -> None:
    """Measure what the mesh costs on this machine."""


def results(verb: F) -> F:
    """`--results` and `--save`; the verb gets `folder` and `save`."""
    verb = click.option(
        "--results", "folder", type=click.Path(path_type=Path), help="A folder of earlier results, to compare with."
    )(verb)
    return click.option("--save", is_flag=True, help="Keep this result there in place of the earlier one.")(verb)


def compare(folder: Path | None, name: str, report: T, figures: Callable[[T], Figures], *, save: bool) -> None:
    """Shows a report beside the earlier one of its name, and keeps it if that is wanted."""
    if folder is None:
        if save:
            raise click.UsageError("--save needs --results, the folder to keep the result in")
        return
    file = folder / f"{name}.json"
    if (earlier := load(file, type(report))) is not None:
        rows = compared(figures(report), figures(earlier))
        click.echo(f"\nagainst {file}, {earlier.origin.revision} of {earlier.origin.at}:", err=True)
        for each in (row for row in rows if row.then or row.now):
            click.echo(f"  {each.name}: {each.then:g} then, {each.now:g} now{each.ratio}", err=True)
    if save:
        store(file, report)


@command.command("xds")
@click.option("--services", type=click.IntRange(30), default=1000, show_default=True)
@click.option("--sidecars", type=click.IntRange(1), default=200, show_default=True)
@click.option("--eager", is_flag=True, help="Sidecars that get everything at once, as Istio's do.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="How often each change is made.")
@click.option("--source", type=click.Choice(["folder", "api"]), default="folder", help="Where the mesh is.")
@click.option("--churn", type=click.FloatRange(0), default=0, help="Seconds of 100 endpoint changes each, at the end.")
@click.option("--confirm", is_flag=True, help="Let real Envoys confirm each row; needs root.")
@click.option(
    "--server",
    default="",
    help="Another control plane: a command in which {folder} (or {kubeconfig}) and {address} stand for where the mesh "
    "is and for HOST:PORT.",
)
@results
@output()
def xds(
    services: int,
    sidecars: int,
    eager: bool,
    rounds: int,
    source: Literal["folder", "api"],
    churn: float,
    confirm: bool,
    server: str,
    folder: Path | None,
    save: bool,
    output: str,
) -> None:
    """What changes cost the control plane: seconds to the last sidecar, CPU, bytes; the floor beside it is a bare
    broadcast of the same bytes to the same streams."""
    plan = Plan(
        shape=MeshShape(services, sidecars),
        on_demand=not eager,
        source=source,
        server=server,
        rounds=rounds,
        churn_s=churn,
        confirm=confirm,
    )
    report = measure(plan, lambda text: click.echo(text, err=True))
    if output == "table":
        _show(report)
    else:
        document(report, output)
    compare(folder, plan.name, report, xds_figures, save=save)


def _show(report: Report) -> None:
    columns = ("", "LAST SIDECAR", "CPU", "BYTES EACH", "SIDECARS", "MESSAGES", "FLOOR", "FLOOR CPU", "REAL ENVOYS")
    table(columns, [_shown(each) for each in (report.cold, *report.changes)])
    print(f"\n{report.streams} streams, {report.scopes} scopes; the mesh was read in {report.read_s:.1f} s;")
    print(f"peak memory of the server {report.peak_mib:.0f} MiB")
    if (moved := report.churn) is not None:
        print(
            f"{moved.changes} changes in {moved.seconds:.0f} s: behind by {moved.behind_p50_s:.3f} s (median), "
            f"{moved.behind_max_s:.3f} s (at most); CPU {moved.cpu_s:.1f} s; memory {moved.before_mib:.0f} MiB before, "
            f"{moved.after_mib:.0f} at the end, {moved.settled_mib:.0f} settled"
        )


def _shown(row: Row) -> tuple[str, ...]:
    floor = (f"{row.floor_s:.3f} s", f"{row.floor_cpu_s:.2f} s") if row.floor_s else ("-", "-")
    envoys = "never heard" if row.unheard else "-" if row.envoy_s is None else f"{row.envoy_s:.3f} s"
    counts = (f"{row.bytes_each:,.0f}", str(row.sidecars), str(row.messages))
    return (row.name, f"{row.last_s:.3f} s", f"{row.cpu_s:.3f} s", *counts, *floor, envoys)


@command.command("truth")
@click.option("--objects", type=click.IntRange(1), default=1000, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(0.1), default=10, show_default=True, help="In which all of them change."
)
@click.option("--sidecars", type=click.IntRange(1), default=20, show_default=True)
@click.option("--eager", is_flag=True, help="Sidecars that get everything at once: each needs every object.")
@results
@output()
def truth(
    objects: int, seconds: float, sidecars: int, eager: bool, folder: Path | None, save: bool, output: str
) -> None:
    """What it costs to say of every object whether it is live, while many change: seconds until the conditions are
    right, statuses written, CPU of the whole control plane."""
    plan = TruthPlan(objects=objects, seconds=seconds, sidecars=sidecars, on_demand=not eager)
    report = measure_truth(plan, lambda text: click.echo(text, err=True))
    name = f"truth-{objects}-{seconds:g}s-{sidecars}-{'eager' if eager else 'on-demand'}"
    if output != "table":
        document(report, output)
    else:
        _show_truth(report)
    compare(folder, name, report, truth_figures, save=save)


def _show_truth(report: TruthReport) -> None:
    columns = ("CHANGED", "IN", "NEEDED", "RIGHT AFTER THE LAST", "P50", "P99", "STATUSES", "CPU")
    times = [f"{each:.3f} s" for each in (report.right_s, report.p50_s, report.p99_s)]
    row = (report.plan.objects, f"{report.took_s:g} s", report.needed, *times, report.statuses, f"{report.cpu_s:.2f} s")
    table(columns, [tuple(map(str, row))])


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
@results
@output()
def proxy(
    seconds: float, rounds: int, protocols: tuple[str, ...], folder: Path | None, save: bool, output: str
) -> None:
    """What two sidecars cost a request, against no proxy and against two Envoys written by hand, at 1,000 requests a
    second and with as many as go, in the clear and with mutual TLS; and the memory of an idle sidecar.

    Needs root (or user namespaces), h2load, nghttpd, nft and ip.
    """
    plan = ProxyPlan(protocols=tuple(each for each in PROTOCOLS if each in protocols), seconds=seconds, rounds=rounds)
    report = measure_proxy(plan, lambda text: click.echo(text, err=True))
    if output == "table":
        _show_ways(report)
    else:
        document(report, output)
    compare(folder, "proxy", report, proxy_figures, save=save)


def _show_ways(report: ProxyReport) -> None:
    case = ("PROTOCOL", "TLS", "RATE", "WAY")
    rows = [
        (each.protocol, "mutual" if each.mtls else "-", str(each.rate or "max"), *_way(way))
        for each in report.cases
        for way in each.ways
    ]
    table((*case, "REQUESTS/S", "P50", "P99", "CPU A REQUEST", "CPU (LEAST), P50, P99, RATE TO HAND"), rows)
    print()
    table(
        ("IDLE", "RSS", "PSS"),
        [(name, f"{each.rss_mib:.1f} MiB", f"{each.pss_mib:.1f} MiB") for name, each in report.memory.items()],
    )


def _way(way: Way) -> tuple[str, ...]:
    cpu = f"{way.cpu_us:.0f} us (least {way.cpu_least_us:.0f})" if way.cpu_us else "-"
    others = "  ".join(f"{each:.2f}" for each in (way.p50_ratio, way.p99_ratio, way.per_second_ratio))
    ratios = f"{way.cpu_ratio:.2f} ({way.cpu_least_ratio:.2f})  {others}"
    failed = f" ({way.failed} failed)" if way.failed else ""
    times = (f"{way.p50_ms:.2f} ms", f"{way.p99_ms:.2f} ms")
    return (way.name, f"{way.per_second:,.0f}{failed}", *times, cpu, ratios if way.cpu_ratio else "-")


@command.command("envoy")
@click.option("--services", type=click.IntRange(300), default=10_000, show_default=True)
@click.option("--first", type=click.IntRange(1, 200), default=200, show_default=True, help="Services called once more.")
@click.option("--unknown", type=click.IntRange(0), default=2_000, show_default=True, help="Names that nobody has.")
@click.option("--single", type=click.IntRange(0), default=300, show_default=True, help="Such names without a dot.")
@results
@output()
def envoy(services: int, first: int, unknown: int, single: int, folder: Path | None, save: bool, output: str) -> None:
    """What a sidecar's Envoy pays for a large mesh of which its workload calls ten services: its memory beside that in
    a mesh of ten, the first request to a service it has not loaded, and what calls of unknown names leave behind.

    Needs root (or user namespaces), nft and ip.
    """
    plan = LargePlan(services=services, first=first, unknown=unknown, single=single)
    report = measure_large(plan, lambda text: click.echo(text, err=True))
    if output == "table":
        _show_large(report)
    else:
        document(report, output)
    compare(folder, "envoy", report, large_figures, save=save)


def _show_large(report: LargeReport) -> None:
    plan = report.plan
    answers = ", ".join(f"{status} x {count}" for status, count in sorted(report.unknown_answers.items()))
    envoy_mib = report.before_unknown_mib, report.after_unknown_mib, report.after_single_mib
    server_mib = report.server_before_mib, report.server_after_unknown_mib, report.server_after_single_mib
    rows = [
        ("Envoy that calls 10 services of 10", f"{report.small_mib:.1f} MiB"),
        (f"Envoy that calls 10 services of {plan.services:,}", f"{report.large_mib:.1f} MiB (x {report.ratio:.2f})"),
        ("first request, p50 and p99", f"{report.first_p50_ms:.1f} ms, {report.first_p99_ms:.1f} ms"),
        ("next request, p50 and p99", f"{report.next_p50_ms:.1f} ms, {report.next_p99_ms:.1f} ms"),
        (f"Envoy before, after {plan.unknown:,} unknown names, after {plan.single} single words", _mib(*envoy_mib)),
        ("control plane, the same", _mib(*server_mib)),
        ("answers to unknown names", answers),
    ]
    table(("", ""), rows)


def _mib(*sizes: float) -> str:
    return ", ".join(f"{each:.1f} MiB" for each in sizes)


@command.command("soak")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=30, show_default=True)
@click.option("--period", type=click.FloatRange(0, min_open=True), default=5, show_default=True, help="Minutes a line.")
@click.option("--source", type=click.Choice(["folder", "api"]), default="api", help="Where the mesh is.")
@results
@output()
def soak(
    minutes: float, period: float, source: Literal["folder", "api"], folder: Path | None, save: bool, output: str
) -> None:
    """A control plane under churn, with sidecars that leave and come back: is its memory flat? Exit code 1 if not."""
    plan = SoakPlan(minutes=minutes, period_minutes=min(period, minutes), source=source)
    report = run_soak(plan, lambda text: click.echo(text, err=True))
    if output != "table":
        document(report, output)
    compare(folder, "soak", report, soak_figures, save=save)
    click.echo(f"the last period has {report.growth:.2f} times the memory of the one after the first", err=True)
    if not report.flat:
        raise SystemExit(1)


@command.command("api")
@click.option("--objects", type=click.IntRange(100), default=10_000, show_default=True)
@click.option("--watchers", type=click.IntRange(1), default=20, show_default=True)
@click.option("--rate", type=click.IntRange(1), default=2_000, show_default=True, help="Changes offered each second.")
@click.option("--seconds", type=click.FloatRange(0.5), default=10, show_default=True)
@click.option("--alone", is_flag=True, help="Without a real kube-apiserver, even where there is one.")
@results
@output()
def api(
    objects: int, watchers: int, rate: int, seconds: float, alone: bool, folder: Path | None, save: bool, output: str
) -> None:
    """What the Kubernetes API costs: lists, watches and changes, beside a real kube-apiserver with etcd where
    scripts/kube/build.sh has built one (LATEEN_KUBE_BIN, else the cache)."""
    beside = "" if alone else programs()
    plan = ApiPlan(objects=objects, watchers=watchers, rate=rate, seconds=seconds, kubernetes=beside)
    if not beside and not alone:
        click.echo("no kube-apiserver is here to measure beside: scripts/kube/build.sh cluster builds one", err=True)
    report = measure_api(plan, lambda text: click.echo(text, err=True))
    if output == "table":
        _show_api(report)
    else:
        document(report, output)
    compare(folder, plan.name, report, api_figures, save=save)


def _show_api(report: ApiReport) -> None:
    plan = report.plan
    columns = ("", *(each.name for each in report.servers))
    rows = [
        ("start, CPU of it", *(f"{each.start_s:.2f} s, {each.start_cpu_s:.2f} s" for each in report.servers)),
        (f"list of {plan.objects:,}", *(f"{each.list_s:.2f} s, {each.list_mib:.1f} MiB" for each in report.servers)),
        ("the same as a table", *(f"{each.table_s:.2f} s" for each in report.servers)),
        ("list, watch, first event", *(f"{each.watch_s:.2f} s" for each in report.servers)),
        (
            f"changes to {plan.watchers} watchers, {plan.rate:,}/s offered",
            *(f"{each.changes_s:,.0f}/s" for each in report.servers),
        ),
        (
            "event after its answer, p50 and p99",
            *(f"{each.behind_ms[0]:.1f} ms, {each.behind_ms[1]:.1f} ms" for each in report.servers),
        ),
        ("loop lag, p50 and p99", *(_lag(each.lag_ms) for each in report.servers)),
        ("CPU of a change", *(f"{each.cpu_us:.0f} us" for each in report.servers)),
        ("memory", *(f"{each.memory.rss_mib:.0f} MiB" for each in report.servers)),
    ]
    table(columns, rows)


def _lag(lag_ms: tuple[float, float]) -> str:
    return f"{lag_ms[0]:.1f} ms, {lag_ms[1]:.1f} ms" if any(lag_ms) else "-"
