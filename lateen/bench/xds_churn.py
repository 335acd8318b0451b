"""Endpoints that change without a pause: how far behind sidecars get, and whether memory comes back.

A hundred services a second change an endpoint; ten of the changes are of the service that all sidecars use, and their
endpoint's address says when it was written, so each sidecar knows how old the oldest change is that it did not have.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from lateen.bench.children import Helper, Server
from lateen.bench.xds_mesh import TICK_S, MeshShape, ServiceState, service, stamp
from lateen.bench.xds_sources import Source

STAMP_EVERY_S: Final = 0.1
CHANGES_A_SECOND: Final = 100

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
    began: float,
    seconds: float,
    say: Callable[[str], None],
) -> Churn:
    """Changes endpoints for some seconds. `began` is since when the sidecars count (`xds_sidecars`)."""
    say(f"{CHANGES_A_SECOND} endpoint changes a second for {seconds:g} s")
    before_mib, before = server.rss_mib(), server.settled_cpu_s()
    sidecars.ask("mark")
    start, made = time.time(), 0
    every = round(CHANGES_A_SECOND * STAMP_EVERY_S)
    while made < seconds * CHANGES_A_SECOND:
        due = start + made / CHANGES_A_SECOND
        if (wait := due - time.time()) > 0:
            time.sleep(wait)
        if made % every == 0:
            address = stamp(int((time.time() - began) / TICK_S))
            source.put("svc0", service(shape, 0, ServiceState(stamp=address)))
        else:
            number = 1 + made % (shape.services - 1)
            state = ServiceState(endpoints=4 + made // (shape.services - 1) % 3)
            source.put(f"svc{number}", service(shape, number, state))
        made += 1
    took, after_mib = time.time() - start, server.rss_mib()
    used = server.settled_cpu_s() - before
    got: Json = json.loads(sidecars.ask("wait 0"))
    return Churn(
        changes=made,
        seconds=round(took, 1),
        behind_p50_s=round(got["behind_p50_s"], 3),
        behind_max_s=round(got["behind_max_s"], 3),
        cpu_s=round(used, 2),
        bytes_each=int(got["bytes"]) / shape.sidecars,
        before_mib=round(before_mib),
        after_mib=round(after_mib),
        settled_mib=round(server.rss_mib()),
    )
