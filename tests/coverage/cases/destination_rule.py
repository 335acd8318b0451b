"""DestinationRule, field by field; policies on all four levels that they may stand on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import yaml

from tests.coverage.case import REFUSED, Case, Json, Probe, Refusal, new
from tests.coverage.fields import fields, general
from tests.lab.client import Caller, Caller2, ask, at_once, exchange, line, shares
from tests.lab.lab import Lab

KIND = "DestinationRule"
LEVELS = (
    "spec.trafficPolicy",
    "spec.trafficPolicy.portLevelSettings[0]",
    "spec.subsets[0].trafficPolicy",
    "spec.subsets[0].trafficPolicy.portLevelSettings[0]",
)
LABELS = {"reviews": {"app": "reviews"}, "ratings": {"app": "ratings"}}
OUTSIDE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: [outside.test]
  addresses: [10.97.0.1]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports:
  - {number: 9080, name: http, protocol: HTTP, targetPort: 443}
  endpoints: [{address: 10.88.3.1, labels: {all: "yes"}}]
---
"""


def policy(
    place: str,
    said: Json,
    value: Any,
    probe: Probe,
    before: Any,
    after: Any,
    beside: str = "",
    *,
    host: str = "ratings",
    port: int = 9080,
    http: Json | None = None,
    more: Json | None = None,
    field: str = "",
    slow: bool = False,
) -> Iterator[Case]:
    """A field of a traffic policy on every level that has it. The copies are for the long run."""
    labels = LABELS.get(host, {"all": "yes"})
    for number, level in enumerate(LEVELS):
        if not any(
            kind == KIND and path.partition("=")[0] == general(f"{level}.{field or place}") for kind, path in fields()
        ):
            continue
        ported: Json = {"portLevelSettings": [{"port": {"number": port}, **said}]} if number % 2 else said
        subset = "one" if number >= 2 else ""
        spec: Json = {"host": host, **(more or {})}
        spec |= {"subsets": [{"name": "one", "labels": labels, "trafficPolicy": ported}]} if subset else {}
        spec |= {} if subset else {"trafficPolicy": ported}
        whole = f"{level}.{field}" if field else ""
        yield Case(
            KIND,
            f"{level}.{place}",
            new(KIND, host.partition(".")[0], spec),
            value,
            probe,
            before,
            after,
            beside + _route(host, port, subset, http or {}),
            long=slow or number > 0,
            field=general(whole),
        )


def _route(host: str, port: int, subset: str, http: Json) -> str:
    destination: Json = {"host": host, "port": {"number": port}, **({"subset": subset} if subset else {})}
    rule: Json = {"route": [{"destination": destination}]}
    kind = {9000: "tcp", 9443: "tls"}.get(port, "http")
    if kind == "http":
        rule |= http
    elif kind == "tcp":
        rule["match"] = [{"port": port}]
    else:
        rule["match"] = [{"port": port, "sniHosts": [host]}]
    named = new("VirtualService", host.partition(".")[0], {"hosts": [host], kind: [rule]})
    return yaml.safe_dump(named) + "---\n"


def cases() -> Iterator[Case]:
    yield from _selection()
    yield from _tcp_pool()
    yield from _http_pool()
    yield from _balancers()
    yield from _hashing()
    yield from _localities()
    yield from _zones()
    yield from _warming()
    yield from _outliers()
    yield from _transport()
    yield from _budget()


def refusals() -> Iterator[Refusal]:
    return iter(())


PROXIED: Json = {"proxyProtocol": {"version": "V1"}}


def _proxied(lab: Lab) -> bool:
    """Whether connections to reviews start with a PROXY header: a mark that a rule counts."""
    return ask(lab).seen["proxy"] != ""


def _selection() -> Iterator[Case]:
    rule = new(KIND, "marked", {"host": "reviews.default.svc.cluster.local", "trafficPolicy": PROXIED}, "istio-system")
    none = yaml.safe_dump(new(KIND, "reviews", {"host": "nobody"})) + "---\n"
    yield Case(KIND, "spec.exportTo[0]", rule, ".", _proxied, True, False, none)
    rule = new(KIND, "reviews", {"host": "ratings", "trafficPolicy": PROXIED})
    yield Case(KIND, "spec.host", rule, "reviews", _proxied, False, True)
    selecting = new(
        KIND,
        "reviews",
        {"host": "reviews", "trafficPolicy": PROXIED, "workloadSelector": {"matchLabels": {"app": "app"}}},
    )
    yield Case(KIND, "spec.workloadSelector.matchLabels{app}", selecting, "other", _proxied, True, False)
    routed = _route("reviews", 9080, "one", {})
    subset = new(KIND, "reviews", {"host": "reviews", "subsets": [{"name": "two", "labels": {"version": "v1"}}]})
    yield Case(KIND, "spec.subsets[0].name", subset, "one", _who, 503, "reviews-v1", routed)
    subset = new(KIND, "reviews", {"host": "reviews", "subsets": [{"name": "one", "labels": {"version": "v1"}}]})
    yield Case(KIND, "spec.subsets[0].labels{version}", subset, "v2", _who, "reviews-v1", "reviews-v2", routed)
    for level, beside in (("spec.trafficPolicy", ""), ("spec.subsets[0].trafficPolicy", routed)):
        said = {
            "portLevelSettings": [{"port": {"number": 9080}, "tls": {"mode": "SIMPLE", "insecureSkipVerify": True}}]
        }
        spec: Json = {"host": "reviews", "trafficPolicy": said}
        if beside:
            spec = {
                "host": "reviews",
                "subsets": [{"name": "one", "labels": {"app": "reviews"}, "trafficPolicy": said}],
            }
        place = f"{level}.portLevelSettings[0].port.number"
        yield Case(KIND, place, new(KIND, "reviews", spec), 9081, _over_tls, True, False, beside)


def _who(lab: Lab) -> str | int:
    answer = ask(lab)
    return answer.server if answer.status == 200 else answer.status


def _over_tls(lab: Lab) -> bool:
    return bool(ask(lab).seen["tls"])


# -- connection pools -------------------------------------------------------------------------------------


def _most(lab: Lab) -> int:
    """The most connections that the server had while three requests waited."""
    at_once(lab, 3, host="ratings", headers={"x-do": "wait 0.3"})
    return lab.servers.most_open("ratings-v1")


def _alive(lab: Lab) -> bool:
    """Whether a connection still works after 0.4 s of silence."""
    with lab.connect("ratings", 9000) as one:
        assert exchange(one)["server"] == "ratings-v1"
        time.sleep(0.4)
        return bool(exchange(one))


NOWHERE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: nowhere}
spec:
  hosts: [nowhere.test]
  addresses: [10.97.0.2]
  resolution: STATIC
  ports: [{number: 9080, name: http, protocol: HTTP}]
  endpoints: [{address: 10.88.9.9, labels: {all: "yes"}}]
---
"""


def _patient(lab: Lab) -> bool:
    """Whether the proxy waits longer than 1.2 s for a connection to nowhere."""
    answer = ask(lab, "10.97.0.2", authority="nowhere.test")
    assert answer.status == 503, answer
    return answer.seconds > 1.2


def _outlives(lab: Lab) -> bool:
    """Whether a connection lives on 3.5 s after its server has fallen silent."""
    with lab.connect("ratings", 9000) as one:
        assert exchange(one)["server"] == "ratings-v1"
        lab.silence("10.88.2.1")
        try:
            one.settimeout(3.5)
            try:
                return one.recv(1) != b""
            except TimeoutError:
                return True
            except OSError:
                return False
        finally:
            lab.silence("10.88.2.1", on=False)


def _tcp_pool() -> Iterator[Case]:
    pool: Json = {"connectionPool": {"tcp": {"maxConnections": 100}}}
    yield from policy("connectionPool.tcp.maxConnections", pool, 1, _most, 3, 1)
    pool = {"connectionPool": {"tcp": {"connectTimeout": "0.1s"}}}
    how: Json = {"host": "nowhere.test", "http": {"retries": {"attempts": 0}}}
    yield from policy("connectionPool.tcp.connectTimeout", pool, "2s", _patient, False, True, NOWHERE, **how)
    pool = {"connectionPool": {"tcp": {"maxConnections": 100}}}
    at = "connectionPool.tcp"
    yield from policy(f"{at}.idleTimeout", pool, "0.2s", _alive, True, False, port=9000)
    yield from policy(f"{at}.maxConnectionDuration", pool, "0.2s", _alive, True, False, port=9000)
    fast: Json = {"time": "1s", "interval": "1s", "probes": 1}
    for field, value in (("time", "3600s"), ("interval", "60s"), ("probes", 100)):
        pool = {"connectionPool": {"tcp": {"tcpKeepalive": fast}}}
        place = f"{at}.tcpKeepalive.{field}"
        yield from policy(place, pool, value, _outlives, False, True, port=9000, slow=True)


def _overflows(lab: Lab) -> int:
    """How many of three requests at once are turned away when a connection is there."""
    assert ask(lab, "ratings").status == 200
    answers = at_once(lab, 3, host="ratings", headers={"x-do": "wait 0.3"})
    return sum(each.status == 503 for each in answers)


def _connections(lab: Lab) -> int:
    """How many connections two requests take, 0.3 s apart."""
    with Caller(lab, "ratings") as caller:
        first = caller.ask(authority="ratings").seen["connection"]
        time.sleep(0.3)
        return len({first, caller.ask(authority="ratings").seen["connection"]})


def _connections2(lab: Lab) -> int:
    """How many connections the server of the HTTP/2 port has under three requests at once."""
    lab.servers.script("ratings-v1", "wait 0.3*")
    with Caller2(lab, "ratings", 9090) as caller:
        assert [each.status for each in caller.ask("ratings", 3)] == [200] * 3
    return lab.servers.most_open("ratings-v1")


def _retried(lab: Lab) -> int:
    """How many of three failing requests get their retry."""
    lab.servers.script("ratings-v1", "503 0.2", "503 0.2", "503 0.2", "200 0.3", "200 0.3", "200 0.3")
    others = threading.Thread(target=at_once, args=(lab, 6), kwargs={"host": "ratings", "headers": {"x-do": "wait 1"}})
    others.start()
    lab.wait(lambda: lab.servers.working("ratings-v1") == 6)
    found = sum(each.status == 200 for each in at_once(lab, 3, host="ratings"))
    others.join()
    return found


def _spoken(lab: Lab) -> str:
    return str(ask(lab, "ratings").seen["protocol"])


def _spoken2(lab: Lab) -> str:
    with Caller2(lab, "ratings") as caller:
        return str(caller.ask("ratings")[0].seen["protocol"])


def _survives(lab: Lab) -> int:
    """What becomes of a slow request when the server doesn't answer pings."""
    lab.servers.silent.add("ratings-v1")
    lab.servers.script("ratings-v1", "wait 0.8*")
    with Caller2(lab, "ratings", 9090) as caller:
        return caller.ask("ratings")[0].status


UPGRADING = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "h2UpgradePolicy: UPGRADE"}
---
"""


def _http_pool() -> Iterator[Case]:
    at = "connectionPool.http"
    one: Json = {"connectionPool": {"tcp": {"maxConnections": 1}}}
    none: Json = {"connectionPool": {"http": {"maxRetries": 100}}}
    never: Json = {"retries": {"attempts": 0}}
    yield from policy(f"{at}.http1MaxPendingRequests", one, 1, _overflows, 0, 1, http=never)
    yield from policy(f"{at}.http2MaxRequests", none, 1, _overflows, 0, 2, http=never)
    yield from policy(f"{at}.maxRequestsPerConnection", none, 1, _connections, 1, 2)
    yield from policy(f"{at}.idleTimeout", none, "0.1s", _connections, 1, 2)
    once: Json = {"retries": {"attempts": 1, "retryOn": "5xx"}}
    yield from policy(f"{at}.maxRetries", none, 1, _retried, 3, 1, http=once)
    yield from policy(f"{at}.maxConcurrentStreams", none, 1, _connections2, 1, 3, port=9090)
    yield from policy(f"{at}.useClientProtocol", none, True, _spoken2, "http/1.1", "h2")
    for value, beside, before, after in (
        ("UPGRADE", "", "DEFAULT", ("http/1.1", "h2")),
        ("DO_NOT_UPGRADE", UPGRADING, "DEFAULT", ("h2", "http/1.1")),
    ):
        said: Json = {"connectionPool": {"http": {"h2UpgradePolicy": before}}}
        yield from policy(f"{at}.h2UpgradePolicy", said, value, _spoken, *after, beside)
    for field, alive in (
        ("interval", {"interval": "3600s", "timeout": "0.1s"}),
        ("timeout", {"interval": "0.1s", "timeout": "60s"}),
    ):
        said = {"connectionPool": {"http": {"http2KeepAlive": alive}}}
        place = f"{at}.http2KeepAlive.{field}"
        yield from policy(place, said, "0.1s", _survives, 200, 503, port=9090, http=never)


# -- load balancers ---------------------------------------------------------------------------------------


def _choice(lab: Lab) -> str:
    """How endpoints are chosen: as dialled, in turn, by load, or by chance."""
    with Caller(lab, "10.88.1.2") as caller:
        if {caller.ask(authority="reviews").server for _ in range(12)} == {"reviews-v2"}:
            return "dialled"
    with Caller(lab, "reviews") as caller:
        order = [caller.ask(authority="reviews").server for _ in range(12)]
    if order[:3] * 4 == order and len(set(order)) == 3:
        return "turn"
    lab.servers.script("reviews-v1", *["hold"] * 3)
    while lab.servers.working("reviews-v1") < 3:
        threading.Thread(target=ask, args=(lab,), daemon=True).start()
        time.sleep(0.01)
    share = shares(lab, 400)["reviews-v1"] / 400  # 1/9 by load of two, 1/3 by chance
    return "load" if share < 0.21 else "chance"


def _balancers() -> Iterator[Case]:
    for first, second, before, after in (
        ("ROUND_ROBIN", "RANDOM", "turn", "chance"),
        ("ROUND_ROBIN", "LEAST_REQUEST", "turn", "load"),
        ("ROUND_ROBIN", "PASSTHROUGH", "turn", "dialled"),
        ("RANDOM", "LEAST_CONN", "chance", "load"),
        ("RANDOM", "UNSPECIFIED", "chance", "load"),
    ):
        said: Json = {"loadBalancer": {"simple": first}}
        yield from policy("loadBalancer.simple", said, second, _choice, before, after, host="reviews")


def _reached(**how: Any) -> Probe:
    """Whether many requests that are alike reach several servers."""
    return lambda lab: len(shares(lab, 24, **how)) > 1


def _cookie(part: str) -> Probe:
    """Whether the cookie that the proxy makes says something."""
    return lambda lab: part.lower() in ask(lab).headers.get("set-cookie", "").lower()


def _hashing() -> Iterator[Case]:
    at = "loadBalancer.consistentHash"
    nothing: Json = {"loadBalancer": {"consistentHash": {"httpHeaderName": "x-none"}}}
    jason: Json = {"headers": {"x-user": "jason", "cookie": "user=jason"}, "path": "/?user=jason"}
    spread = _reached(**jason)
    how: Json = {"host": "reviews"}
    yield from policy(f"{at}.httpHeaderName", nothing, "x-user", spread, True, False, **how)
    nothing = {"loadBalancer": {"consistentHash": {"httpQueryParameterName": "none"}}}
    yield from policy(f"{at}.httpQueryParameterName", nothing, "user", spread, True, False, **how)
    nothing = {"loadBalancer": {"consistentHash": {"httpCookie": {"name": "none"}}}}
    yield from policy(f"{at}.httpCookie.name", nothing, "user", spread, True, False, **how)
    lasting: Json = {"loadBalancer": {"consistentHash": {"httpCookie": {"name": "user", "ttl": "0s", "path": "/a"}}}}
    yield from policy(f"{at}.httpCookie.ttl", lasting, "60s", _cookie("max-age=60"), False, True, **how)
    yield from policy(f"{at}.httpCookie.path", lasting, "/b", _cookie("path=/b"), False, True, **how)
    flagged: Json = {"name": "user", "ttl": "0s", "attributes": [{"name": "SameSite", "value": "Strict"}]}
    said: Json = {"loadBalancer": {"consistentHash": {"httpCookie": flagged}}}
    place = f"{at}.httpCookie.attributes[0]"
    yield from policy(f"{place}.name", said, "Priority", _cookie("priority=strict"), False, True, **how)
    yield from policy(f"{place}.value", said, "Lax", _cookie("samesite=lax"), False, True, **how)
    other: Json = {"connectionPool": {"tcp": {"maxConnections": 100}}}
    yield from policy(f"{at}.useSourceIp", other, True, spread, True, False, **how)
    ring: Json = {"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user"}}}
    size = _gauge("ring_hash_lb.size")
    yield from policy(f"{at}.minimumRingSize", ring, 3000, size, 1024, 3000, **how)
    yield from policy(f"{at}.ringHash.minimumRingSize", ring, 3000, size, 1024, 3000, **how)
    least = _gauge("maglev_lb.min_entries_per_host")
    maglev: Json = {"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user", "maglev": {"tableSize": 65537}}}}
    yield from policy(f"{at}.maglev.tableSize", maglev, 307, least, 65537 // 3 // 100, 307 // 3 // 100, **how)


def _gauge(name: str) -> Probe:
    """A gauge of the cluster; sizes of rings are rounded to what was asked for, entries per host to hundreds."""

    def probe(lab: Lab) -> int:
        found = max(
            lab.stat(rf"cluster\.outbound\|9080\|{subset}\|reviews\.default\.svc\.cluster\.local;?\.{name}")
            for subset in ("", "one")
        )
        return found // 100 if "entries" in name else found // 3 * 3 if found > 1030 else 1024

    return probe


def _servers(lab: Lab) -> tuple[str, ...]:
    return tuple(sorted(name.removeprefix("reviews-") for name in shares(lab, 30)))


ALL: Final = ("v1", "v2", "v3")
FAR = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: far}
spec:
  hosts: [far.test]
  addresses: [10.97.0.3]
  resolution: STATIC
  ports: [{number: 9080, name: http, protocol: HTTP}]
  endpoints:
  - {address: 10.88.1.2, locality: west/c, labels: {all: "yes"}}
  - {address: 10.88.1.3, locality: north/n, labels: {all: "yes"}}
---
"""


def _far(lab: Lab) -> tuple[str, ...]:
    found = shares(lab, 30, "10.97.0.3", authority="far.test")
    return tuple(sorted(name.removeprefix("reviews-") for name in found))


def _localities() -> Iterator[Case]:
    at = "loadBalancer.localityLbSetting"
    how: Json = {"host": "reviews"}

    def said(**setting: Any) -> Json:
        return {"loadBalancer": {"localityLbSetting": setting}, "outlierDetection": {"consecutive5xxErrors": 100}}

    away = said(distribute=[{"from": "west/*", "to": {"west/c/*": 100}}])
    yield from policy(f"{at}.distribute[0].from", away, "east/*", _servers, ALL, ("v3",), **how)
    away = said(distribute=[{"from": "east/*", "to": {"west/c/*": 100}}])
    there: Json = {"east/b/*": 100}
    to = f"{at}.distribute[0].to"
    yield from policy(to, away, there, _servers, ("v3",), ("v2",), field=f"{to}{{}}", **how)
    yield from policy(f"{at}.enabled", said(enabled=True), False, _servers, ("v1",), ALL, **how)
    how = {"host": "far.test", "beside": FAR}
    away = said(failover=[{"from": "east", "to": "west"}])
    yield from policy(f"{at}.failover[0].to", away, "north", _far, ("v2",), ("v3",), **how)
    away = said(failover=[{"from": "south", "to": "west"}])
    yield from policy(f"{at}.failover[0].from", away, "east", _far, ("v2", "v3"), ("v2",), **how)
    near = said(failoverPriority=["version=v2"])
    where = f"{at}.failoverPriority[0]"
    yield from policy(where, near, "version=v3", _servers, ("v2",), ("v3",), host="reviews")


TWINS = """
apiVersion: v1
kind: Pod
metadata: {name: app-2, namespace: default, labels: {app: app, version: v1, topology.istio.io/locality: east.b}}
spec: {containers: [{name: it}]}
status: {phase: Running, podIP: 10.88.0.6, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {name: app-1, namespace: default, labels: {kubernetes.io/service-name: app}}
endpoints:
- {addresses: [10.88.0.5], targetRef: {kind: Pod, name: app, namespace: default}}
- {addresses: [10.88.0.6], targetRef: {kind: Pod, name: app-2, namespace: default}}
ports: [{name: http, port: 9080}]
---
"""
"""The application is in both zones of its region, as reviews are: each zone has the endpoints it needs."""


def _zones() -> Iterator[Case]:
    at = "loadBalancer.zoneAwareLbSetting"

    def said(**setting: Any) -> Json:
        return {"loadBalancer": {"zoneAwareLbSetting": {"enabled": True, **setting}}}

    how: Json = {"host": "reviews", "beside": TWINS}
    yield from policy(f"{at}.enabled", said(minClusterSize=1), False, _servers, ("v1",), ALL, **how)
    yield from policy(f"{at}.minClusterSize", said(minClusterSize=1), 3, _servers, ("v1",), ("v1", "v2"), **how)
    how = {"host": "far.test", "beside": FAR}
    away = said(failover=[{"from": "east", "to": "west"}])
    yield from policy(f"{at}.failover[0].to", away, "north", _far, ("v2",), ("v3",), **how)
    away = said(failover=[{"from": "south", "to": "west"}])
    yield from policy(f"{at}.failover[0].from", away, "east", _far, ("v2", "v3"), ("v2",), **how)
    near = said(failoverPriority=["topology.kubernetes.io/region=west"])
    place = f"{at}.failoverPriority[0]"
    yield from policy(place, near, "topology.kubernetes.io/region=north", _far, ("v2",), ("v3",), **how)


def _endpoints(*versions: str) -> str:
    found = "".join(
        f"\n- {{addresses: [10.88.1.{version[1]}], conditions: {{ready: true}},"
        f" targetRef: {{kind: Pod, name: reviews-{version}, namespace: default}}}}"
        for version in versions
    )
    return f"""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {{name: reviews-1, namespace: default, labels: {{kubernetes.io/service-name: reviews}}}}
endpoints:{found}
ports: [{{name: http, port: 9080}}]
---
"""


def _newcomer(lab: Lab) -> bool:
    """Whether a new endpoint gets a good share at once."""
    time.sleep(2.1)
    lab.add(_endpoints("v1", "v2"))
    found = shares(lab, 60)
    return found["reviews-v2"] > 20


def _warming() -> Iterator[Case]:
    at = "loadBalancer"
    how: Json = {"host": "reviews", "beside": _endpoints("v1"), "slow": True}

    def said(**warmup: Any) -> Json:
        return {"loadBalancer": {"simple": "ROUND_ROBIN", **warmup}}

    yield from policy(f"{at}.warmupDurationSecs", said(), "2s", _newcomer, True, False, **how)
    yield from policy(f"{at}.warmup.duration", said(warmup={"duration": "0.001s"}), "2s", _newcomer, True, False, **how)
    slow: Json = {"duration": "2s"}
    yield from policy(f"{at}.warmup.minimumPercent", said(warmup=slow), 100, _newcomer, False, True, **how)
    slow = {"duration": "2s", "minimumPercent": 1}
    yield from policy(f"{at}.warmup.aggression", said(warmup=slow), 20, _newcomer, False, True, **how)


# -- outliers ---------------------------------------------------------------------------------------------


EJECTION_S: Final = 0.15
"""An endpoint is ejected by Envoy's main thread; the worker hears of it a moment after the answer."""


def _after(failing: str, times: int = 3, wait_s: float = 0) -> Probe:
    """Who answers after so many requests to a near endpoint that fails, and works again later."""

    def probe(lab: Lab) -> str | int:
        lab.servers.script("reviews-v1", *[failing] * times)
        for _ in range(times):
            ask(lab)
        time.sleep(wait_s or EJECTION_S)
        return _who(lab)

    return probe


FLAKY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: flaky}
spec:
  hosts: [flaky.test]
  addresses: [10.97.0.4]
  resolution: STATIC
  ports: [{number: 9080, name: http, protocol: HTTP}]
  endpoints:
  - {address: 10.88.1.1, ports: {http: 9999}, locality: east/a, labels: {all: "yes"}}
  - {address: 10.88.1.2, locality: west/c, labels: {all: "yes"}}
---
"""


def _flaky(lab: Lab) -> int:
    """What the fourth request gets when the near endpoint can't be connected to."""
    for _ in range(3):
        ask(lab, "10.97.0.4", authority="flaky.test")
    time.sleep(EJECTION_S)
    return ask(lab, "10.97.0.4", authority="flaky.test").status


def _failures(lab: Lab) -> bool:
    """Whether requests still fail when two of three endpoints have been failing for a while."""
    for version in ("v1", "v2"):
        lab.servers.script(f"reviews-{version}", "503*")
    shares(lab, 40)
    time.sleep(EJECTION_S)
    return "503" in shares(lab, 20)


def _only(lab: Lab) -> int:
    """What the only endpoint's client gets after it was taken out."""
    lab.servers.script("ratings-v1", "503", "503", "503")
    for _ in range(3):
        ask(lab, "ratings")
    time.sleep(EJECTION_S)
    return ask(lab, "ratings").status


def _outliers() -> Iterator[Case]:
    never: Json = {"http": {"retries": {"attempts": 0}}}
    how: Json = {"host": "reviews", **never}

    def said(**settings: Any) -> Json:
        return {"outlierDetection": {"interval": "30s", "baseEjectionTime": "60s", **settings}}

    at = "outlierDetection"
    after, near, far = _after("500"), "reviews-v1", "reviews-v2"
    patient = said(consecutive5xxErrors=100)
    yield from policy(f"{at}.consecutive5xxErrors", patient, 3, after, near, far, **how)
    yield from policy(f"{at}.consecutiveErrors", said(), 3, after, near, far, **how)
    off = said(consecutive5xxErrors=0)
    yield from policy(f"{at}.consecutiveGatewayErrors", off, 3, _after("502"), near, far, **how)
    quick = said(consecutive5xxErrors=3, interval="0.1s")
    later = _after("500", wait_s=0.5)
    yield from policy(f"{at}.baseEjectionTime", quick, "0.1s", later, far, near, **how)
    quick = said(consecutive5xxErrors=3, baseEjectionTime="0.1s")
    yield from policy(f"{at}.interval", quick, "0.1s", later, far, near, **how)
    codes = said(consecutive5xxErrors=3, outlierDetectionHttpErrorCodes=[418])
    yield from policy(f"{at}.outlierDetectionHttpErrorCodes[0]", codes, 429, _after("429"), near, far, **how)
    split = said(splitExternalLocalOriginErrors=True, consecutiveLocalOriginFailures=100)
    elsewhere: Json = {"host": "flaky.test", "beside": FLAKY, **never}
    yield from policy(f"{at}.consecutiveLocalOriginFailures", split, 2, _flaky, 503, 200, **elsewhere)
    together = said(splitExternalLocalOriginErrors=False, consecutive5xxErrors=2)
    yield from policy(f"{at}.splitExternalLocalOriginErrors", together, True, _flaky, 200, 503, **elsewhere)
    level: Json = {**said(consecutive5xxErrors=2), "loadBalancer": {"localityLbSetting": {"enabled": False}}}
    yield from policy(f"{at}.maxEjectionPercent", level, 100, _failures, True, False, **how)
    alone = said(consecutive5xxErrors=2, maxEjectionPercent=100)
    yield from policy(f"{at}.minHealthPercent", alone, 50, _only, 503, 200, host="ratings", **never)


# -- transport --------------------------------------------------------------------------------------------


def _outside(part: str) -> Probe:
    """What the server outside saw of a connection; the status when there is no answer from it."""

    def probe(lab: Lab) -> Any:
        answer = ask(lab, "outside", authority="outside.test")
        return answer.seen[part] if answer.status == 200 else answer.status

    return probe


def _transport() -> Iterator[Case]:
    how: Json = {"host": "outside.test", "beside": OUTSIDE}
    root = "@files/root.pem"
    own: Json = {"clientCertificate": "@files/client.pem", "privateKey": "@files/client.key", "caCertificates": root}

    def said(**settings: Any) -> Json:
        return {"tls": settings}

    client = "spiffe://cluster.local/ns/default/sa/client,client.test"
    workload = "spiffe://cluster.local/ns/default/sa/default"
    yield from policy("tls.mode", said(mode="SIMPLE", **own), "MUTUAL", _outside("client"), "", client, **how)
    yield from policy("tls.mode", said(mode="DISABLE"), "ISTIO_MUTUAL", _outside("client"), "", workload, **how)
    mutual, simple = said(mode="MUTUAL", **own), said(mode="SIMPLE", caCertificates=root)
    twin = "@files/twin.pem"
    yield from policy("tls.clientCertificate", mutual, twin, _outside("client"), client, "twin.test", **how)
    wrong: Json = {**own, "privateKey": "@files/edge.key"}
    yield from policy(
        "tls.privateKey", said(mode="MUTUAL", **own), wrong["privateKey"], _outside("client"), client, REFUSED, **how
    )
    status = _outside("tls")
    yield from policy("tls.caCertificates", simple, "@files/other.pem", status, True, 503, **how)
    yield from policy("tls.caCrl", simple, "@files/revoked-server.pem", status, True, 503, **how)
    yield from policy("tls.insecureSkipVerify", said(mode="SIMPLE"), True, status, 503, True, **how)
    yield from policy("tls.sni", simple, "a.outside.test", _outside("sni"), "outside.test", "a.outside.test", **how)
    yield from policy("tls.subjectAltNames[0]", simple, "nobody.test", status, True, 503, **how)
    selecting: Json = {"workloadSelector": {"matchLabels": {"app": "app"}}}
    named = said(mode="MUTUAL", credentialName="client")
    yield from policy(
        "tls.credentialName", named, "edge", _outside("client"), client, "shop.test,*.shop.test", more=selecting, **how
    )
    version = "proxyProtocol.version"
    marked = _proxy_header
    yield from policy(version, PROXIED, "V2", marked, "V1 10.88.0.5", "V2 10.88.0.5")
    tunnel: Json = {"tunnel": {"protocol": "CONNECT", "targetHost": "away.test", "targetPort": 7000}}
    for field, value, after in (
        ("protocol", "POST", "POST away.test:7000"),
        ("targetHost", "other.test", "CONNECT other.test:7000"),
        ("targetPort", 7001, "CONNECT away.test:7001"),
    ):
        yield from policy(f"tunnel.{field}", tunnel, value, _tunnel, "CONNECT away.test:7000", after, port=9000)


def _proxy_header(lab: Lab) -> str:
    return str(ask(lab, "ratings").seen["proxy"])


def _tunnel(lab: Lab) -> str:
    return str(line(lab, "ratings")["tunnel"])


def _budget() -> Iterator[Case]:
    once: Json = {"retries": {"attempts": 1, "retryOn": "5xx"}}
    budget: Json = {"retryBudget": {"percent": 0.1, "minRetryConcurrency": 3}}
    yield from policy("retryBudget.minRetryConcurrency", budget, 1, _retried, 3, 1, http=once)
    budget = {"retryBudget": {"percent": 0.1, "minRetryConcurrency": 1}}
    yield from policy("retryBudget.percent", budget, 100, _retried, 1, 3, http=once)
    budget = {"retryBudget": {"percent": 50, "minRetryConcurrency": 1, "budgetInterval": "0s"}}
    yield from policy("retryBudget.budgetInterval", budget, "10s", _retried_after_many, 1, 3, http=once)


def _retried_after_many(lab: Lab) -> int:
    """How many of three failing requests get their retry when many requests have ended just before."""
    shares(lab, 30, host="ratings")
    lab.servers.script("ratings-v1", "503 0.2", "503 0.2", "503 0.2", "200 0.3", "200 0.3", "200 0.3")
    return sum(each.status == 200 for each in at_once(lab, 3, host="ratings"))
