"""What a documentation page promises, as data: a request and what becomes of it.

- GET: http://reviews:9080/reviews/1     any method; port 9080 is a sidecar's table, 8080 the gateway's
  headers: {end-user: jason}
  script: {reviews/v2: [503, reset, wait 0.5]}   what servers answer next
  status: 200
  from: reviews/v2                       who answered
  seconds: [2.0, 2.5]
  body: text
  answer: {x-served-by: mesh, server: null}      headers of the answer, null for absent
  arrives: {path: /v2, host: reviews, headers: {x-debug: null}}
  seen: {reviews/v2: 3}                  how many requests each got, once all have come
  of: 600                                send so many
  shares: {reviews/v1: 90, reviews/v2: 10}       in percent, within 5 standard deviations
  counters: {"vhost.*upstream_rq_2xx": 1}        by how much the proxy's counters grow, by expression

Connections, on whole proxies only: a client says a line.

- TCP: reviews:9000
  from: ratings/v1                       who answered, null for nobody
- TLS: reviews:9443
  sni: ratings.test                      the server name of the handshake, the host by default
  of: 200
  shares: {ratings/v1: 80, details/v1: 20}
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

from tests.envoy.playground import Json, Playground
from tests.lab.pages import LabPage

METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD")
KEYS = {
    *METHODS,
    *(
        "headers",
        "script",
        "status",
        "from",
        "seconds",
        "body",
        "answer",
        "arrives",
        "seen",
        "of",
        "shares",
        "endpoints",
        "counters",
    ),
}
STREAM_KEYS = {"TCP", "TLS", "sni", "from", "of", "shares"}
SIGMAS = 5
TIMER_S = 0.005
"""Envoy's timers count from the time at which its event loop last woke."""


def check(playground: Playground | LabPage, expectation: Json) -> None:
    """Does what an expectation says. AssertionError when it comes out otherwise, ValueError for an unknown key."""
    if isinstance(playground, LabPage) and playground.checked(expectation):
        return
    stream = bool(expectation.keys() & {"TCP", "TLS"})
    if unknown := expectation.keys() - (STREAM_KEYS if stream else KEYS):
        raise ValueError(f"an expectation has no {', '.join(sorted(unknown))}")
    if stream:
        assert isinstance(playground, LabPage), "connections are for whole proxies"
        _check_stream(playground, expectation)
        return
    method = next(each for each in METHODS if each in expectation)
    url = urlsplit(str(expectation[method]))
    table = "http.8080" if url.port == 8080 else "9080"
    path = url.path + (f"?{url.query}" if url.query else "")
    playground.forget()
    before = {name: playground.counter(name) for name in expectation.get("counters", {})}
    for target, steps in expectation.get("script", {}).items():
        playground.script(target, steps)
    if "of" in expectation:
        _check_many(playground, expectation, url.netloc, path, table)
        return
    answer = playground.request(url.netloc, path, method, expectation.get("headers", {}), table)
    said = f"{method} {url.geturl()}: {answer}"
    assert answer.status == expectation.get("status", 200), said
    if "from" in expectation:
        assert answer.headers.get("x-server", "").partition("-")[0] == expectation["from"], said
    if "seconds" in expectation:
        least, most = expectation["seconds"]
        assert least - TIMER_S <= answer.seconds <= most, said
    if "body" in expectation:
        assert answer.body.decode() == expectation["body"], said
    for name, value in expectation.get("answer", {}).items():
        assert answer.headers.get(name) == value, f"{name}: {said}"
    if "seen" in expectation:
        wanted = cast("dict[str, int]", expectation["seen"])
        seen = Counter(each.target for each in playground.wait_seen(sum(wanted.values())))
        assert {**dict.fromkeys(wanted, 0), **seen} == wanted, said
    if "arrives" in expectation:
        _check_arrival(playground, expectation["arrives"])
    for name, grown in expectation.get("counters", {}).items():
        eventually(lambda name=name: playground.counter(name) - before[name], grown, f"{name}: {said}")


def _check_arrival(playground: Playground | LabPage, wanted: dict[str, Any]) -> None:
    seen = playground.wait_seen(1)[0]
    if "path" in wanted:
        assert seen.path == wanted["path"], seen
    if "host" in wanted:
        assert seen.headers["host"] == wanted["host"], seen
    for name, value in wanted.get("headers", {}).items():
        assert seen.headers.get(name) == value, f"{name}: {seen}"


def _check_many(playground: Playground | LabPage, expectation: Json, host: str, path: str, table: str) -> None:
    times = int(expectation["of"])
    servers = playground.requests(host, times, path, expectation.get("headers"), table)
    if "endpoints" in expectation:
        assert len(servers) == expectation["endpoints"], servers
    found: Counter[str] = Counter()
    for server, count in servers.items():
        found[server.partition("-")[0]] += count
    _check_shares(found, expectation, times)


def _check_stream(lab: LabPage, expectation: Json) -> None:
    kind = "TLS" if "TLS" in expectation else "TCP"
    host, _, port = str(expectation[kind]).partition(":")
    sni = str(expectation.get("sni", host)) if kind == "TLS" else ""
    times = int(expectation.get("of", 1))
    found = Counter(lab.line(host, int(port), sni) for _ in range(times))
    if "from" in expectation:
        assert found == {expectation["from"] or "": times}, expectation
    _check_shares(found, expectation, times)


def eventually(look: Callable[[], int], wanted: int, what: str, within_s: float = 5) -> None:
    """Returns when a number is what is wanted; AssertionError after that time."""
    end = time.monotonic() + within_s
    while (seen := look()) != wanted:
        assert time.monotonic() < end, f"{seen}, not {wanted}: {what}"
        time.sleep(0.005)


def _check_shares(found: Counter[str], expectation: Json, times: int) -> None:
    shares = {str(name): float(percent) / 100 for name, percent in expectation.get("shares", {}).items()}
    assert not shares or found.keys() <= shares.keys(), f"{found}, not {shares}"
    for name, share in shares.items():
        sigma = math.sqrt(times * share * (1 - share))
        assert abs(found[name] - times * share) <= SIGMAS * sigma, f"{name}: {found} of {times}, not {share:.0%}"
