"""What is said of a configuration object in its status, in Kubernetes' form of conditions. Pure: values in, values out.

`Accepted`: lateen and the proxies take it. `Programmed`: it is live on every connected proxy that needs it.
`Conflicted`: fields of it are decided by another object. `Enforced`: it has its effect now, or why it has none.
Messages name objects, fields and proxies, and hold no times, so that a status is written only when something changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from lateen.analysis.conflicts import Losses
from lateen.analysis.envoy_words import translated
from lateen.apiserver.rows import Row
from lateen.lib.findings import Finding, Level
from lateen.xds.progress import Behind, Progress

TYPES: Final = ("Accepted", "Programmed", "Conflicted", "Enforced")
_NAMED: Final = 5
"""How many proxies, fields or findings are named in one message."""
_TEMPLATE: Final = "WorkloadGroup"
"""What no proxy needs: its machines' entries are what proxies see."""
_NO_KIND: Final = "LTN0005"
_NO_FIELD: Final = "LTN0001"
_REFUSED: Final = "LTN0020"
_WHAT: Final = {"CDS": "cluster", "EDS": "endpoints of", "LDS": "listener", "RDS": "routes", "SDS": "secret"}


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One condition; the store adds times. `status` is `True` or `False`."""

    type: str
    status: str
    reason: str
    message: str = ""
    observed_generation: int = 0


def conditions(row: Row, found: Sequence[Finding], losses: Losses, progress: Progress) -> tuple[Condition, ...]:
    """The conditions of an object at its present generation."""
    accepted = _accepted(row, found)
    programmed = _programmed(row, found, progress)
    enforced = _enforced(row, found, losses, progress)
    return tuple(
        msgspec.structs.replace(each, observed_generation=row.generation)
        for each in (accepted, programmed, _conflicted(losses), enforced)
    )


def _left_out(row: Row, found: Sequence[Finding]) -> tuple[str, ...]:
    """The places of an object that Envoy refuses while the rest of it is in force."""
    return tuple(each.path for each in found if each.code == _REFUSED and each.path) if row.held is not None else ()


def _accepted(row: Row, found: Sequence[Finding]) -> Condition:
    if left_out := _left_out(row, found):
        message = f"Envoy refuses {_listed(left_out, len(left_out))}; the rest is in force"
        return Condition("Accepted", "False", "PartlyRefusedByProxies", message)
    if row.held is not None:
        kept = "its last good version stays in force" if row.held.body is not None else "it has no effect"
        return Condition(
            "Accepted", "False", "RefusedByProxies", f"Envoy refuses it, so {kept}: {_both(row.held.reason)}"
        )
    errors = [each for each in found if each.level is Level.ERROR]
    if errors:
        return Condition("Accepted", "False", "Invalid", _said(errors))
    warnings = [each for each in found if each.level is Level.WARNING]
    if warnings:
        return Condition("Accepted", "True", "AcceptedWithWarnings", _said(warnings))
    return Condition("Accepted", "True", "Accepted")


def _programmed(row: Row, found: Sequence[Finding], progress: Progress) -> Condition:
    count = f"live on {progress.live} of {progress.needed} proxies"
    if row.held is not None and not _left_out(row, found):
        return Condition("Programmed", "False", "RefusedByProxies", "no proxy gets this version: Envoy refuses it")
    if progress.needed == 0:
        return Condition("Programmed", "True", "NoProxyNeedsIt", f"{count}: no connected proxy needs it")
    if not progress.behind:
        return Condition("Programmed", "True", "Live", count)
    refusing = [each for each in progress.behind if each.words]
    reason = "RefusedByProxies" if refusing else "Pending"
    first = [*refusing, *(each for each in progress.behind if not each.words)]
    return Condition("Programmed", "False", reason, f"{count}; {_listed(map(behind_words, first), len(first))}")


def _conflicted(losses: Losses) -> Condition:
    if not losses.fields:
        return Condition("Conflicted", "False", "NoConflict")
    return Condition(
        "Conflicted",
        "True",
        "Shadowed" if losses.shadowed else "FieldsLost",
        _listed(map(str, losses.fields), len(losses.fields)),
    )


def _enforced(row: Row, found: Sequence[Finding], losses: Losses, progress: Progress) -> Condition:
    def no(reason: str, message: str) -> Condition:
        return Condition("Enforced", "False", reason, message)

    of_kind = [each for each in found if each.code == _NO_KIND]
    if of_kind:
        return no("NotImplemented", of_kind[0].message)
    if left_out := _left_out(row, found):
        return no("PartlyRefusedByProxies", f"without {_listed(left_out, len(left_out))}, which Envoy refuses")
    if row.held is not None and row.held.body is None:
        return no("RefusedByProxies", "Envoy refuses it and there is no earlier version")
    if row.held is not None:
        return no("EarlierVersion", "an earlier version is in force, because Envoy refuses this one")
    if losses.shadowed:
        winners = dict.fromkeys(each.winner.short for each in losses.fields)
        return no("Shadowed", f"shadowed by {_listed(winners, len(winners))}")
    if row.ref.kind == _TEMPLATE and progress.needed == 0:
        return Condition("Enforced", "True", "Template", "machines that join become entries after it")
    if progress.needed == 0:
        nobody = next((each.message for each in found if each.path.lower().endswith("selector")), "")
        return no("NoProxySelected", nobody or "no connected proxy needs it")
    if progress.behind:
        return no("NotLiveEverywhere", f"live on {progress.live} of {progress.needed} proxies")
    missing = [each for each in found if each.code == _NO_FIELD]
    if missing:
        paths = _listed((each.path for each in missing), len(missing))
        return Condition("Enforced", "True", "PartlyImplemented", f"without effect so far: {paths}")
    return Condition("Enforced", "True", "Enforced")


def behind_words(each: Behind) -> str:
    """A proxy and what it has not got, for people."""
    proxy = f"{each.proxy.name}.{each.proxy.namespace}"
    what = f"{_WHAT.get(each.type, each.type)} {each.name}"
    if each.words:
        return f"{proxy} refuses {what}: {translated(each.words)}"
    return f"{proxy} has not answered for {what}" if each.waiting else f"{proxy} waits for {what}"


def _both(reason: str) -> str:
    """Envoy's words, with what they mean before them where that is known."""
    plain = translated(reason)
    return reason if plain == reason else f"{plain} ({reason})"


def _said(found: Sequence[Finding]) -> str:
    lines = (
        f"{each.path}: {each.code} {each.message}" if each.path else f"{each.code} {each.message}" for each in found
    )
    return _listed(lines, len(found))


def _listed(parts: Iterable[str], count: int) -> str:
    shown = [part for part, _ in zip(parts, range(_NAMED), strict=False)]
    more = f"; and {count - len(shown)} more" if count > len(shown) else ""
    return "; ".join(shown) + more
