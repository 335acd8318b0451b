"""On which proxies an object is live: of those that need it, those that hold its content and have said so.

A proxy needs an object when it gets a resource made from it (`Uses`), or holds one that was. The object is live there
when the proxy's watermark has reached the revision at which the object last changed; only for proxies that are
behind or hold something frozen is it asked which resources that is about.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from lateen.engine import Graph
from lateen.intent.scope import Proxy
from lateen.lib.ids import Ref
from lateen.xds.catalogue import Catalogue
from lateen.xds.lags import Lag
from lateen.xds.stream import Stream


class Behind(msgspec.Struct, frozen=True):
    """A resource of a proxy that is not what it should be. `words` are Envoy's when it was refused; `since` in seconds
    of the loop's clock; `waiting`: it was sent and is not answered."""

    proxy: Proxy
    type: str
    name: str
    since: float
    words: str = ""
    waiting: bool = False


class Progress(msgspec.Struct, frozen=True):
    """How many connected proxies need an object, and where it is not live yet (one entry for each proxy)."""

    needed: int
    behind: tuple[Behind, ...] = ()

    @property
    def live(self) -> int:
        """How many hold it."""
        return self.needed - len(self.behind)


def progress(
    graph: Graph, catalogue: Catalogue, streams: Iterable[Stream], refs: Collection[Ref]
) -> dict[Ref, Progress]:
    """The progress of some objects. A cost for each proxy that is behind, and for each that needs an object."""
    changed_at = {ref: graph.changed_at(ref) for ref in refs}
    left: dict[Ref, dict[Stream, Behind]] = {ref: {} for ref in refs}
    listed: list[tuple[Stream, int, Behind]] = []
    for stream in streams:
        for index, name, lag in stream.lags:
            missing, revision = stream.missing(index, name, lag)
            about = [ref for ref in missing if changed_at.get(ref, NEVER) > revision]
            if not about and not lag.listed:
                continue
            found = _behind(catalogue, stream, index, name, lag)
            for ref in about:
                before = left[ref].get(stream)
                if before is None or (found.words and not before.words):
                    left[ref][stream] = found
            if lag.listed:
                listed.append((stream, lag.revision, found))
    answer: dict[Ref, Progress] = {}
    for ref in refs:
        users = catalogue.users(ref)
        behind = left[ref]
        for stream, revision, found in listed:
            if stream in users and stream not in behind and changed_at[ref] > revision:
                behind[stream] = found
        needed = len(users) + sum(1 for stream in behind if stream not in users)
        answer[ref] = Progress(needed, tuple(sorted(behind.values(), key=_order)))
    return answer


NEVER = -(1 << 62)
"""The revision of objects nobody asked about."""


def lagging(catalogue: Catalogue, stream: Stream) -> list[Behind]:
    """All that a proxy has not got, the oldest first."""
    found = [_behind(catalogue, stream, index, name, lag) for index, name, lag in stream.lags]
    return sorted(found, key=lambda each: (each.since, each.type, each.name))


def _behind(catalogue: Catalogue, stream: Stream, index: int, name: str, lag: Lag) -> Behind:
    offer = stream.subscriptions[index].in_flight
    sent = offer is not None and (name in offer.sent or name in offer.removed)
    short = catalogue.types[index].short
    return Behind(stream.proxy, short, name, lag.since, stream.objection(index, name), sent)


def _order(each: Behind) -> tuple[str, str]:
    return (each.proxy.namespace, each.proxy.name)
