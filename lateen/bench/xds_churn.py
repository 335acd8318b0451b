"""Endpoints that change without a pause: how far behind sidecars get, and whether memory comes back.

A hundred services a second change an endpoint; ten of the changes are of the service that all sidecars use, and the
address of its endpoint says with which change it came: so it is known how old the oldest change was that a sidecar did
not have when it got a newer one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from lateen.bench.children import Helper, Server
from lateen.bench.host import BenchError
from lateen.bench.xds_mesh import MeshShape, ServiceState, service, stamp
from lateen.bench.xds_sources import Source

CHANGES_A_SECOND: Final = 100
_STAMPED: Final = 10
"""Every how many-th change is one of the service that all use."""

Json = dict[str, Any]


class Churn(msgspec.Struct, frozen=True, kw_only=True):
    """`behind` is how old the oldest change was that a sidecar did not have, each time it got a newer one. Memory is
    what the server had resident before, at the end, and when it had nothing more to do."""

    changes: int
    seconds: float
    behind_p50_s: float
    behind_max_s: float
    cpu_s: float
    bytes_each: float
    before_mib: float
    after_mib: float
    settled_mib: float


def churn(
    source: Source,
    shape: MeshShape,
    server: Server,
    sidecars: Helper,
    seconds: float,
    say: Callable[[str], None],
) -> Churn:
    """Changes endpoints for some seconds."""
    say(f"{CHANGES_A_SECOND} endpoint changes a second for {seconds:g} s")
    before_mib, before = server.rss_mib(), server.settled_cpu_s()
    sidecars.ask("mark")
    start, made, written = time.time(), 0, list[float]()
    while made < seconds * CHANGES_A_SECOND:
        due = start + made / CHANGES_A_SECOND
        if (wait := due - time.time()) > 0:
            time.sleep(wait)
        if made % _STAMPED == 0:
            written.append(time.time())
            source.put("svc0", service(shape, 0, ServiceState(stamp=stamp(len(written)))))
        else:
            number = 1 + made % (shape.services - 1)
            state = ServiceState(endpoints=4 + made // (shape.services - 1) % 3)
            source.put(f"svc{number}", service(shape, number, state))
        made += 1
    took, after_mib = time.time() - start, server.rss_mib()
    used = server.settled_cpu_s() - before
    got: Json = json.loads(sidecars.ask("wait 0"))
    stamps: list[tuple[int, float]] = got["stamps"]
    behind = sorted(at - written[had] for had, at in stamps)
    if len(behind) < shape.sidecars:
        raise BenchError(f"only {len(behind)} of {shape.sidecars} sidecars heard of the changes")
    return Churn(
        changes=made,
        seconds=round(took, 1),
        behind_p50_s=round(behind[len(behind) // 2], 3),
        behind_max_s=round(behind[-1], 3),
        cpu_s=round(used, 2),
        bytes_each=int(got["bytes"]) / shape.sidecars,
        before_mib=round(before_mib),
        after_mib=round(after_mib),
        settled_mib=round(server.rss_mib()),
    )
