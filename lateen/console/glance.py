"""What `lateen status` shows: proxies that are behind, refuse or are away, objects that are refused, pending or lose,
certificates that end soon. Pure: answers of the API in, findings for people out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from lateen.analysis.envoy_words import translated
from lateen.api.istio.workload_entry import GROUP_ANNOTATION

Json = dict[str, Any]

JUMPED: Final = "LTN0370"
"""The code of errors that jumped after a change."""

SOON: Final = dt.timedelta(days=14)
"""When the end of a certificate that is not renewed by itself is near."""

LATE: Final = dt.timedelta(minutes=2)
"""How long after its time a renewal by an agent may take."""


class Glance(msgspec.Struct, frozen=True):
    """The parts; each line is complete in itself."""

    proxies: int
    in_sync: int
    behind: tuple[str, ...] = ()
    refusing: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    objects: int = 0
    refused: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    losing: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """True when nothing is refused or away, and no change made calls fail."""
        return not (self.refusing or self.refused or self.away or self.failing)

    @property
    def summary(self) -> str:
        """One line."""
        return f"proxies: {self.in_sync} of {self.proxies} in sync; configuration objects: {self.objects}"

    @property
    def parts(self) -> list[tuple[str, tuple[str, ...]]]:
        """What is to be said, by subject; nothing is said of what is well."""
        parts = (
            ("refusing", self.refusing),
            ("behind", self.behind),
            ("not connected", self.away),
            ("refused objects", self.refused),
            ("not live everywhere", self.pending),
            ("errors jumped after", self.failing),
            ("decided by another object", self.losing),
            ("without effect", self.idle),
            ("certificates", self.certificates),
        )
        return [(title, lines) for title, lines in parts if lines]


def glance(
    proxies: Sequence[Json],
    objects: Sequence[Json],
    expected: Iterable[str],
    certificates: Iterable[tuple[str, dt.datetime]],
    now: dt.datetime,
    workloads: Iterable[Json] = (),
) -> Glance:
    """`proxies` as `/lateen/v1/proxies` has them; `objects` with conditions; `expected` NAME.NAMESPACE of the Pods that
    run with a proxy (machines are found among `objects`); `certificates` what and until when; `workloads` what the
    agent says of those it renews itself."""
    lagging = {_full(each): each["behind"] for each in proxies if each["behind"]}
    connected = {_full(each) for each in proxies}
    awaited = {*expected, *_machines(objects)}
    return Glance(
        proxies=len(connected),
        in_sync=len(connected) - len(lagging),
        behind=tuple(_behind(name, listed) for name, listed in lagging.items() if not any(b["words"] for b in listed)),
        refusing=tuple(line for name, listed in lagging.items() for line in _refusing(name, listed)),
        away=tuple(f"{name} runs and is not connected" for name in sorted(awaited - connected)),
        objects=len(objects),
        refused=tuple(_having(objects, "Accepted", "False", ())),
        pending=tuple(_having(objects, "Programmed", "False", ("RefusedByProxies",))),
        failing=tuple(_failing(objects)),
        losing=tuple(_having(objects, "Conflicted", "True", ())),
        idle=tuple(_having(objects, "Enforced", "False", ("RefusedByProxies", "Shadowed", "NotLiveEverywhere"))),
        certificates=(*_ending(certificates, now), *_overdue(workloads, now)),
    )


def _machines(objects: Iterable[Json]) -> Iterator[str]:
    """Machines that have joined; their entries go soon after they do."""
    for each in objects:
        metadata = each["metadata"]
        if each["kind"] == "WorkloadEntry" and GROUP_ANNOTATION in (metadata.get("annotations") or {}):
            yield f"{metadata['name']}.{metadata['namespace']}"


def _full(proxy: Json) -> str:
    return f"{proxy['name']}.{proxy['namespace']}"


def _behind(name: str, listed: Sequence[Json]) -> str:
    oldest = max(listed, key=lambda each: each["forS"])
    how = "sent, not answered" if oldest["waiting"] else "waiting to be sent"
    more = f" and {len(listed) - 1} more" if len(listed) > 1 else ""
    return f"{name} behind for {oldest['forS']:g} s: {oldest['type']} {oldest['name']} ({how}){more}"


def _refusing(name: str, listed: Sequence[Json]) -> Iterator[str]:
    for each in listed:
        if each["words"]:
            plain = translated(each["words"])
            own = "" if plain == each["words"] else f" (Envoy: {each['words']})"
            yield f"{name} refuses {each['type']} {each['name']} for {each['forS']:g} s: {plain}{own}"


def _failing(objects: Sequence[Json]) -> Iterator[str]:
    for each in objects:
        status: Json = each.get("status") or {}
        for finding in status.get("findings") or ():
            if finding["code"] == JUMPED:
                metadata = each["metadata"]
                said = f"{finding['message']}; {finding['remedy']}"
                yield f"{each['kind']} {metadata.get('namespace', '')}/{metadata['name']}: {said}"


def _having(objects: Sequence[Json], kind: str, status: str, but: tuple[str, ...]) -> Iterator[str]:
    for each in objects:
        status_of: Json = each.get("status") or {}
        conditions: list[Json] = status_of.get("conditions") or []
        for condition in conditions:
            if (condition["type"], condition["status"]) == (kind, status) and condition["reason"] not in but:
                metadata = each["metadata"]
                said = condition["message"] or condition["reason"]
                yield f"{each['kind']} {metadata.get('namespace', '')}/{metadata['name']}: {said}"


def _overdue(workloads: Iterable[Json], now: dt.datetime) -> Iterator[str]:
    """Workloads whose certificate should have been renewed by now."""
    for each in sorted(workloads, key=lambda each: each["ends"]):
        late = each["renew_at"] < (now - LATE).timestamp()
        if each["error"] or late:
            end = dt.datetime.fromtimestamp(each["ends"], dt.UTC)
            until = f"good until {end:%Y-%m-%d %H:%M}" if each["ends"] else "none yet"
            why = each["error"] or "the agent is late"
            yield f"of {each['namespace']}/{each['name']} ({until}) not renewed: {why}"


def _ending(certificates: Iterable[tuple[str, dt.datetime]], now: dt.datetime) -> Iterator[str]:
    for what, end in sorted(certificates, key=lambda each: each[1]):
        if end < now:
            yield f"{what} ended {end:%Y-%m-%d %H:%M}"
        elif end < now + SOON:
            yield f"{what} ends {end:%Y-%m-%d %H:%M}"
