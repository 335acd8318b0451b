"""Objects in every situation that conditions tell apart, for the golden file of conditions."""

from __future__ import annotations

import msgspec

from lateen.analysis.conflicts import OLDER, Loss, Losses
from lateen.apiserver.rows import Held, Row
from lateen.daemon.conditions import conditions
from lateen.intent.scope import Proxy, ProxyKind
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref
from lateen.xds.progress import Behind, Progress

ROUTE = Ref("networking.istio.io", "VirtualService", "default", "reviews")
OTHER = msgspec.structs.replace(ROUTE, name="older")
WORDS = "Proto constraint validation failed (RouteValidationError.Match: value is required)"


def said() -> dict[str, dict[str, str]]:
    """Situation -> condition -> `STATUS REASON MESSAGE`."""
    return {name: _of(*each) for name, each in _situations().items()}


def _of(row: Row, found: tuple[Finding, ...], losses: Losses, progress: Progress) -> dict[str, str]:
    made = conditions(row, found, losses, progress)
    assert {each.observed_generation for each in made} == {row.generation}
    return {each.type: f"{each.status} {each.reason} {each.message}".rstrip() for each in made}


def _row(ref: Ref = ROUTE, held: Held | None = None) -> Row:
    return Row(ref, "networking.istio.io/v1", b"{}", b"{}", b"{}", 7, 3, held=held)


def _behind(name: str, words: str = "", *, waiting: bool = True) -> Behind:
    proxy = Proxy(ProxyKind.SIDECAR, "default", name)
    return Behind(proxy, "RDS", "9080", 0.0, words, waiting)


def _finding(code: str, level: Level, path: str, message: str) -> tuple[Finding, ...]:
    return (Finding(code=code, level=level, message=message, ref=ROUTE, path=path),)


def _situations() -> dict[str, tuple[Row, tuple[Finding, ...], Losses, Progress]]:
    row, calm, live = _row(), Losses(), Progress(3)
    lost = Loss("spec.http[0]", OTHER, OLDER)
    many = tuple(_behind(f"app-{number}") for number in range(7))
    error = _finding("IST0106", Level.ERROR, "spec.hosts", "is empty")
    warning = _finding("IST0101", Level.WARNING, "spec.http[0].route[0].destination.host", "there is no host revews")
    missing = _finding("LTN0001", Level.WARNING, "spec.http[0].mirrors", "mirrors is not implemented yet")
    unknown = _finding("LTN0005", Level.WARNING, "kind", "X is not implemented yet: it is stored and has no effect")
    selector = _finding("IST0127", Level.WARNING, "spec.selector", "no workload has the labels app=gone")
    left_out = _finding("LTN0020", Level.ERROR, "spec.configPatches[1]", WORDS)
    group = Ref("networking.istio.io", "WorkloadGroup", "default", "vm")
    return {
        "live everywhere": (row, (), calm, live),
        "with a warning": (row, warning, calm, live),
        "invalid": (row, error, calm, live),
        "partly implemented": (row, missing, calm, live),
        "kind not implemented": (row, unknown, calm, Progress(0)),
        "refused, never good": (_row(held=Held(WORDS)), (), calm, live),
        "refused, an earlier version counts": (_row(held=Held(WORDS, b"{}", b"{}")), (), calm, live),
        "refused in part": (_row(held=Held(WORDS, b"{}", b"{}")), left_out, calm, live),
        "one proxy refuses": (row, (), calm, Progress(3, (_behind("a"), _behind("b", WORDS)))),
        "two proxies behind": (row, (), calm, Progress(3, (_behind("a"), _behind("b", waiting=False)))),
        "many proxies behind": (row, (), calm, Progress(9, many)),
        "no proxy needs it": (row, (), calm, Progress(0)),
        "its selector picks nobody": (row, selector, calm, Progress(0)),
        "a field lost": (row, (), Losses((lost,)), live),
        "shadowed": (row, (), Losses((lost,), shadowed=True), live),
        "a template": (_row(group), (), calm, Progress(0)),
    }
