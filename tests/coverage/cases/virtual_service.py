"""VirtualService, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.coverage.case import Case, Json, Probe, Refusal, new
from tests.lab.client import ask, line, shares
from tests.lab.lab import Lab

TEAPOT: Json = {"directResponse": {"status": 418}}


def to(subset: str = "", host: str = "reviews", **more: Any) -> Json:
    destination = {"host": host, **({"subset": subset} if subset else {}), **more.pop("destination", {})}
    return {"destination": destination, **more}


def vs(*http: Json, **spec: Any) -> Json:
    rules = {"http": list(http)} if http else {}
    return new("VirtualService", "reviews", {"hosts": ["reviews"], **rules, **spec})


def who(**how: Any) -> Probe:
    """Who answers, or the status."""

    def probe(lab: Lab) -> str | int:
        answer = ask(lab, **how)
        return answer.server if answer.status == 200 and answer.server else answer.status

    return probe


def both(*probes: Probe) -> Probe:
    return lambda lab: tuple(each(lab) for each in probes)


def sent(name: str, **how: Any) -> Probe:
    """A part of the request as the server saw it; `header:x` for a header."""

    def probe(lab: Lab) -> Any:
        seen = ask(lab, **how).seen
        return seen["headers"].get(name.removeprefix("header:")) if name.startswith("header:") else seen[name]

    return probe


def answered(name: str, **how: Any) -> Probe:
    """A header of the answer."""
    return lambda lab: ask(lab, **how).headers.get(name)


def got(*servers: str) -> Probe:
    """How many requests these servers get when one is sent."""

    def probe(lab: Lab) -> list[int]:
        ask(lab)
        lab.wait(lambda: any(each["server"] not in servers for each in lab.servers.log))
        import time

        time.sleep(0.15)  # a mirrored request is sent beside; none may come
        return [sum(each["server"] == server for each in lab.servers.log) for server in servers]

    return probe


def case(place: str, document: Json, value: Any, probe: Probe, before: Any, after: Any, beside: str = "") -> Case:
    return Case("VirtualService", f"spec.{place}", document, value, probe, before, after, beside)


def cases() -> Iterator[Case]:
    yield from _selection()
    yield from _matches()
    yield from _cors()
    yield from _answers()
    yield from _faults()
    yield from _headers()
    yield from _mirrors()
    yield from _retries()
    yield from _rewrites()
    yield from _streams()


def refusals() -> Iterator[Refusal]:
    fault = vs({"fault": {"abort": {"percentage": {"value": 100}}}, "route": [to("v1")]})
    yield Refusal("VirtualService", "spec.http[0].fault.abort.http2Error", fault, "REFUSED_STREAM", "LTN0001")
    delay = vs({"fault": {"delay": {"percentage": {"value": 100}}}, "route": [to("v1")]})
    yield Refusal("VirtualService", "spec.http[0].fault.delay.exponentialDelay", delay, "1s", "LTN0001")


def _selection() -> Iterator[Case]:
    teapot = vs(TEAPOT)
    elsewhere = new("VirtualService", "reviews", {"hosts": ["reviews.default.svc.cluster.local"], "http": [TEAPOT]})
    elsewhere["metadata"]["namespace"] = "other"
    yield case("exportTo[0]", elsewhere, ".", _status, 418, 200)
    yield case("gateways[0]", teapot, "istio-system/edge", _status, 418, 200)
    yield case("hosts[0]", vs(TEAPOT, hosts=["ratings"]), "reviews", _status, 200, 418)
    delegates = "".join(
        f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{http: [{{directResponse: {{status: {code}}}}}]}}
---"""
        for name, namespace, code in (("one", "default", 411), ("two", "default", 412), ("one", "other", 413))
    )
    delegating = vs({"delegate": {"name": "one", "namespace": "default"}})
    yield case("http[0].delegate.name", delegating, "two", _status, 411, 412, delegates)
    yield case("http[0].delegate.namespace", delegating, "other", _status, 411, 413, delegates)
    named = vs({"match": [{"uri": {"prefix": "/"}}], "name": "one", "route": [to("v1")]})
    yield case("http[0].name", named, "two", _route_name, "one", "two", ACCESS_LOG)
    yield case("http[0].match[0].name", named, "m", _route_name, "one", "one.m", ACCESS_LOG)
    counted = vs({"match": [{"uri": {"prefix": "/"}, "statPrefix": "first"}], "route": [to("v1")]})
    yield case("http[0].match[0].statPrefix", counted, "second", _route_stats, [1, 0], [0, 1])


ACCESS_LOG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFile: /tmp/lateen-lab-access.log
    accessLogFormat: "%ROUTE_NAME%\\n"
---
"""


def _route_name(lab: Lab) -> str:
    import pathlib

    path = pathlib.Path("/tmp/lateen-lab-access.log")
    ask(lab)
    lab.sidecar.envoy.admin("/reopen_logs", "POST")
    lab.wait(lambda: path.exists() and path.read_text().endswith("\n"))
    name = path.read_text().split("\n")[-2]
    path.write_text("")
    return name


def _route_stats(lab: Lab) -> list[int]:
    stats = [f"vhost\\..*\\.route\\.{name}\\.upstream_rq_completed" for name in ("first", "second")]
    before = [lab.stat(each) for each in stats]
    ask(lab)
    lab.wait(lambda: [lab.stat(each) for each in stats] != before)
    return [lab.stat(each) - old for each, old in zip(stats, before, strict=True)]


def _matches() -> Iterator[Case]:
    def of(field: str, base: Json, exact: str, prefix: str, regex: str, yes: Json, no: Json) -> Iterator[Case]:
        document = vs({"match": [base], "route": [to("v2")]}, {"route": [to("v1")]})
        probe = both(who(**yes), who(**no))
        without = field.startswith("withoutHeaders")
        before, after = ("reviews-v2", "reviews-v2"), ("reviews-v2", "reviews-v1")
        if without:
            after = ("reviews-v1", "reviews-v2")
        for how, value in (("exact", exact), ("prefix", prefix), ("regex", regex)):
            yield case(f"http[0].match[0].{field}.{how}", document, value, probe, before, after)

    get: Json = {"method": {"exact": "GET"}}
    everything: Json = {"uri": {"prefix": "/"}}
    yield from of("uri", get, "/a/b", "/a", "/a/.*", {"path": "/a/b"}, {"path": "/c"})
    yield from of("method", everything, "GET", "GE", "G.T", {}, {"method": "POST"})
    full: Json = {"authority": "reviews.default"}
    short: Json = {}
    yield from of("authority", get, "reviews.default", "reviews.d", r"r.*\.default", full, short)
    one: Json = {"headers": {"x-a": "one"}}
    other: Json = {"headers": {"x-a": "two"}}
    yield from of("headers{x-a}", get, "one", "on", "o.e", one, other)
    yield from of("queryParams{a}", get, "one", "on", "o.e", {"path": "/?a=one"}, {"path": "/?a=two"})
    yield from of("withoutHeaders{x-a}", get, "one", "on", "o.e", one, other)
    for how, value in (("exact", "https"), ("prefix", "https"), ("regex", "h...s")):
        http: Json = {"destination": {"port": {"number": 9080}}}
        routes = ({"match": [get], "route": [to("v2", **http)]}, {"route": [to("v1", **http)]})
        document = vs(*routes, gateways=["istio-system/edge"])
        document["spec"]["hosts"] = ["shop.test"]
        probe = both(_secured, who(host="gateway", port=8080, authority="shop.test"))
        after = ("reviews-v2", "reviews-v1")
        yield case(f"http[0].match[0].scheme.{how}", document, value, probe, ("reviews-v2",) * 2, after, EDGE)
    document = vs({"match": [{"uri": {"prefix": "/a"}}], "route": [to("v2")]}, {"route": [to("v1")]})
    probe = who(path="/A")
    yield case("http[0].match[0].ignoreUriCase", document, True, probe, "reviews-v1", "reviews-v2")
    document = vs({"match": [everything], "route": [to("v2")]}, {"route": [to("v1")]})
    second = who(port=9081)
    gone = both(who(), second)
    both_v2 = ("reviews-v2", "reviews-v2")
    yield case("http[0].match[0].port", document, 9081, gone, both_v2, ("reviews-v1", "reviews-v2"))
    yield case("http[0].match[0].gateways[0]", document, "istio-system/edge", who(), "reviews-v2", "reviews-v1")
    yield case("http[0].match[0].sourceLabels{app}", document, "other", who(), "reviews-v2", "reviews-v1")
    yield case("http[0].match[0].sourceNamespace", document, "other", who(), "reviews-v2", "reviews-v1")


EDGE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}
  - port: {number: 8443, name: https, protocol: HTTPS}
    hosts: ["*"]
    tls: {mode: SIMPLE, credentialName: edge}
---
"""


def _secured(lab: Lab) -> str | int:
    tls = lab.certificates.client_context()
    answer = ask(lab, "gateway", port=8443, authority="shop.test", tls=tls, sni="shop.test")
    return answer.server or answer.status


def _cors() -> Iterator[Case]:
    asking = {"origin": "http://a.test"}
    preflight = {"method": "OPTIONS", "headers": {**asking, "access-control-request-method": "GET"}}
    other = {"method": "OPTIONS", "headers": {"origin": "http://b.test", "access-control-request-method": "GET"}}
    allowed: Json = {"allowOrigins": [{"exact": "http://a.test"}]}

    def rule(policy: Json) -> Json:
        return vs({"corsPolicy": policy, "route": [to("v1")]})

    at = "http[0].corsPolicy"
    origin = answered("access-control-allow-origin", headers=asking)
    bare = rule({"allowMethods": ["GET"]})
    for how, value in (("exact", "http://a.test"), ("prefix", "http://a"), ("regex", "http://..test")):
        yield case(f"{at}.allowOrigins[0].{how}", bare, value, origin, None, "http://a.test")
    yield case(f"{at}.allowOrigin[0]", bare, "http://a.test", origin, None, "http://a.test")
    credentials = answered("access-control-allow-credentials", headers=asking)
    yield case(f"{at}.allowCredentials", rule(allowed), True, credentials, None, "true")
    for field, value in (("allowHeaders[0]", "x-a"), ("allowMethods[0]", "PUT")):
        name = "access-control-" + ("allow-headers" if "Headers" in field else "allow-methods")
        yield case(f"{at}.{field}", rule(allowed), value, answered(name, **preflight), None, value)
    age = answered("access-control-max-age", **preflight)
    yield case(f"{at}.maxAge", rule(allowed), "90s", age, None, "90")
    exposed = answered("access-control-expose-headers", headers=asking)
    yield case(f"{at}.exposeHeaders[0]", rule(allowed), "x-a", exposed, None, "x-a")
    place, server = f"{at}.unmatchedPreflights", answered("x-server", **other)
    forwarding = rule({**allowed, "unmatchedPreflights": "FORWARD"})
    ignoring = rule({**allowed, "unmatchedPreflights": "IGNORE"})
    yield case(place, forwarding, "IGNORE", server, "reviews-v1", None)
    yield case(place, ignoring, "UNSPECIFIED", server, None, "reviews-v1")


def _answers() -> Iterator[Case]:
    at = "http[0].directResponse"
    yield case(f"{at}.status", vs(TEAPOT), 503, _status, 418, 503)
    yield case(f"{at}.body.string", vs(TEAPOT), "short", _body, b"", b"short")
    yield case(f"{at}.body.bytes", vs(TEAPOT), "c3RvdXQ=", _body, b"", b"stout")
    at = "http[0].redirect"
    location = answered("location", path="/a/b")
    here: Json = vs({"redirect": {"uri": "/z"}})
    yield case(f"{at}.uri", here, "/y", location, "http://reviews/z", "http://reviews/y")
    yield case(f"{at}.authority", here, "other.test", location, "http://reviews/z", "http://other.test/z")
    yield case(f"{at}.scheme", here, "https", location, "http://reviews/z", "https://reviews/z")
    yield case(f"{at}.port", here, 8000, location, "http://reviews/z", "http://reviews:8000/z")
    yield case(f"{at}.redirectCode", here, 308, _status, 301, 308)
    prefix = vs({"match": [{"uri": {"prefix": "/a"}}], "redirect": {"scheme": "https"}})
    yield case(f"{at}.prefixRewrite", prefix, "/c", location, "https://reviews/a/b", "https://reviews/c/b")
    ported = answered("location", path="/")
    derived = vs({"redirect": {"scheme": "https", "derivePort": "FROM_REQUEST_PORT"}})
    place = f"{at}.derivePort"
    yield case(place, derived, "FROM_PROTOCOL_DEFAULT", ported, "https://reviews:9080/", "https://reviews/")
    yield case("http[0].timeout", vs({"timeout": "5s", "route": [to("v1")]}), "0.1s", _late, 200, 504)


def _status(lab: Lab) -> int:
    return ask(lab).status


def _body(lab: Lab) -> bytes:
    return ask(lab).body


def _late(lab: Lab) -> int:
    lab.servers.script("reviews-v1", "wait 0.4")
    return ask(lab).status


def _took(**how: Any) -> Probe:
    """Whether an answer takes longer than 0.7 s."""
    return lambda lab: ask(lab, **how).seconds > 0.7


def _faults() -> Iterator[Case]:
    def rule(fault: Json) -> Json:
        return vs({"fault": fault, "route": [to("v1")]})

    whole: Json = {"percentage": {"value": 100}}
    at = "http[0].fault.abort"
    yield case(f"{at}.httpStatus", rule({"abort": {"httpStatus": 503, **whole}}), 418, _status, 503, 418)
    none = rule({"abort": {"httpStatus": 503, "percentage": {"value": 0}}})
    yield case(f"{at}.percentage.value", none, 100, _status, 200, 503)
    grpc = answered("grpc-status", headers={"content-type": "application/grpc"})
    yield case(f"{at}.grpcStatus", rule({"abort": {"grpcStatus": "NOT_FOUND", **whole}}), "14", grpc, "5", "14")
    at = "http[0].fault.delay"
    yield case(f"{at}.fixedDelay", rule({"delay": {"fixedDelay": "0.01s", **whole}}), "1s", _took(), False, True)
    yield case(f"{at}.percent", rule({"delay": {"fixedDelay": "1s"}}), 100, _took(), False, True)
    none = rule({"delay": {"fixedDelay": "1s", "percentage": {"value": 0}}})
    yield case(f"{at}.percentage.value", none, 100, _took(), False, True)


def _headers() -> Iterator[Case]:
    plain = vs({"route": [to("v1")]})
    own: Json = {"headers": {"x-a": "own"}}
    for at in ("http[0].headers", "http[0].route[0].headers"):
        yield case(f"{at}.request.add{{x-a}}", plain, "more", sent("header:x-a", **own), "own", "more")
        yield case(f"{at}.request.set{{x-a}}", plain, "new", sent("header:x-a", **own), "own", "new")
        yield case(f"{at}.request.remove[0]", plain, "x-a", sent("header:x-a", **own), "own", None)
        yield case(f"{at}.response.add{{x-noise}}", plain, "2", answered("x-noise"), "1", "1,2")
        yield case(f"{at}.response.set{{x-noise}}", plain, "2", answered("x-noise"), "1", "2")
        yield case(f"{at}.response.remove[0]", plain, "x-noise", answered("x-noise"), "1", None)


def _mirrors() -> Iterator[Case]:
    two = got("ratings-v1", "details-v1")

    def rule(**mirror: Any) -> Json:
        return vs({"route": [to("v1")], **mirror})

    both_hosts = rule(mirror={"host": "ratings", "port": {"number": 9080}})
    yield case("http[0].mirror.host", both_hosts, "details", two, [1, 0], [0, 1])
    yield case("http[0].mirror.port.number", both_hosts, 9081, _mirrored_port, 9080, 9081)
    subset = rule(mirror={"host": "reviews", "port": {"number": 9080}, "subset": "v2"})
    yield case("http[0].mirror.subset", subset, "v3", got("reviews-v2", "reviews-v3"), [1, 0], [0, 1])
    never = rule(mirror={"host": "ratings"}, mirrorPercentage={"value": 0})
    yield case("http[0].mirrorPercentage.value", never, 100, two, [0, 0], [1, 0])
    for name in ("mirrorPercent", "mirror_percent"):
        never = rule(mirror={"host": "ratings"}, **{name: 0})
        yield case(f"http[0].{name}", never, 100, two, [0, 0], [1, 0])
    at = "http[0].mirrors[0]"
    many = rule(mirrors=[{"destination": {"host": "ratings", "port": {"number": 9080}}, "percentage": {"value": 100}}])
    yield case(f"{at}.destination.host", many, "details", two, [1, 0], [0, 1])
    yield case(f"{at}.destination.port.number", many, 9081, _mirrored_port, 9080, 9081)
    yield case(f"{at}.percentage.value", many, 0, two, [1, 0], [0, 0])
    subset = rule(mirrors=[{"destination": {"host": "reviews", "subset": "v2"}}])
    yield case(f"{at}.destination.subset", subset, "v3", got("reviews-v2", "reviews-v3"), [1, 0], [0, 1])


def _mirrored_port(lab: Lab) -> int:
    ask(lab)
    lab.wait(lambda: any(each["server"] == "ratings-v1" for each in lab.servers.log))
    return next(each["port"] for each in lab.servers.log if each["server"] == "ratings-v1")


def _retries() -> Iterator[Case]:
    def rule(subset: str = "v1", **retries: Any) -> Json:
        return vs({"retries": retries, "route": [to(subset)]})

    def scripted(*steps: str) -> Probe:
        def probe(lab: Lab) -> int:
            lab.servers.script("reviews-v1", *steps)
            return ask(lab).status

        return probe

    at = "http[0].retries"
    yield case(f"{at}.attempts", rule(attempts=1, retryOn="5xx"), 3, scripted("503", "503", "503"), 503, 200)
    yield case(f"{at}.retryOn", rule(attempts=2, retryOn="connect-failure"), "503", scripted("503", "503"), 503, 200)
    base = rule(attempts=1, retryOn="5xx", perTryTimeout="5s")
    yield case(f"{at}.perTryTimeout", base, "0.1s", _tries, 1, 2)
    base = vs({"timeout": "0.5s", "retries": {"attempts": 2, "retryOn": "5xx"}, "route": [to("v1")]})
    yield case(f"{at}.backoff", base, "1000s", scripted("503", "503"), 200, 504)
    base = rule("", attempts=2, retryOn="5xx", retryIgnorePreviousHosts=True)
    yield case(f"{at}.retryIgnorePreviousHosts", base, False, _hosts_tried, 3, 1, STICKY)
    base = rule("", attempts=2, retryOn="5xx")
    yield case(f"{at}.retryRemoteLocalities", base, True, _far, 503, 200, FAILOVER)


STICKY = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}
---
"""
FAILOVER = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 100, interval: 60s}}
---
"""


def _tries(lab: Lab) -> int:
    lab.servers.script("reviews-v1", "wait 0.4")
    ask(lab)
    return len(lab.servers.log)


def _hosts_tried(lab: Lab) -> int:
    for version in ("v1", "v2", "v3"):
        lab.servers.script(f"reviews-{version}", "503*")
    ask(lab, headers={"x-user": "jason"})
    assert len(lab.servers.log) == 3, lab.servers.log
    return len({each["server"] for each in lab.servers.log})


def _far(lab: Lab) -> int:
    """The near endpoint always fails."""
    lab.servers.script("reviews-v1", "503*")
    return ask(lab).status


def _rewrites() -> Iterator[Case]:
    rule = vs({"match": [{"uri": {"prefix": "/a"}}], "rewrite": {"uri": "/x"}, "route": [to("v1")]})
    path = sent("path", path="/a/b")
    yield case("http[0].rewrite.uri", rule, "/y", path, "/x/b", "/y/b")
    yield case("http[0].rewrite.authority", rule, "other.test", sent("header:host", path="/a"), "reviews", "other.test")
    expression = {"match": "/a/(.*)", "rewrite": r"/z/\1"}
    rule = vs({"rewrite": {"uriRegexRewrite": expression}, "route": [to("v1")]})
    at = "http[0].rewrite.uriRegexRewrite"
    yield case(f"{at}.match", rule, "/a(.*)", path, "/z/b", "/z//b")
    yield case(f"{at}.rewrite", rule, r"/\1/z", path, "/z/b", "/b/z")


def _streams() -> Iterator[Case]:
    at = "http[0].route[0].destination"
    rule = vs({"route": [to(host="ratings", destination={"port": {"number": 9080}})]})
    yield case(f"{at}.host", rule, "details", who(), "ratings-v1", "details-v1")
    yield case(f"{at}.port.number", rule, 9081, sent("port"), 9080, 9081)
    yield case(f"{at}.subset", vs({"route": [to("v1")]}), "v2", who(), "reviews-v1", "reviews-v2")
    weights = vs({"route": [to("v1", weight=1), to("v2", weight=0)]})
    yield case("http[0].route[1].weight", weights, 1_000_000, _first, "reviews-v1", "reviews-v2")
    for protocol, port, probe in (("tcp", 9000, _lines), ("tls", 9443, _secured_lines)):
        names: Json = {"sniHosts": ["reviews"]} if protocol == "tls" else {}

        def rules(*routes: Json, match: Json | None = None, protocol: str = protocol) -> Json:
            return vs(**{protocol: [{"match": [match or {}], "route": list(routes)}]})

        match = {"port": port, **names}
        there = to(host="ratings", destination={"port": {"number": port}})
        base = rules(there, match=match)
        selected, not_selected = "ratings-v1", "reviews"
        here = f"{protocol}[0].match[0]"
        for field, value in (
            ("destinationSubnets[0]", "10.97.0.0/16"),
            ("gateways[0]", "istio-system/edge"),
            ("port", 9081),
            ("sourceLabels{app}", "other"),
            ("sourceNamespace", "other"),
        ):
            # What no TLS rule routes has no way to the service; TCP goes to it.
            elsewhere = "" if protocol == "tls" and field.startswith("dest") else not_selected
            yield case(f"{here}.{field}", base, value, probe, selected, elsewhere)
        if protocol == "tls":
            named = rules(there, match=match)
            named["spec"]["hosts"].append("other.test")
            yield case(f"{here}.sniHosts[0]", named, "other.test", probe, selected, "")
        else:
            yield case(f"{here}.sourceSubnet", base, "10.89.0.0/16", probe, selected, not_selected)
        at = f"{protocol}[0].route[0].destination"
        yield case(f"{at}.host", base, "details", probe, selected, "details-v1")
        subset = rules(to("v1", destination={"port": {"number": port}}), match=match)
        yield case(f"{at}.subset", subset, "v2", _exact(probe), "reviews-v1", "reviews-v2")
        other = 9100 if protocol == "tcp" else 443
        yield case(f"{at}.port.number", base, other, _port(probe), port, other, PORT_443)
        routes = (
            to(host="ratings", destination={"port": {"number": port}}, weight=1),
            to(host="details", destination={"port": {"number": port}}, weight=0),
        )
        weights = rules(*routes, match=match)
        yield case(f"{protocol}[0].route[1].weight", weights, 1_000_000, probe, selected, "details-v1")


PORT_443 = """
apiVersion: v1
kind: Service
metadata: {name: ratings, namespace: default}
spec:
  clusterIP: 10.96.0.2
  selector: {app: ratings}
  ports: [{name: http, port: 9080}, {name: tcp-lines, port: 9000}, {name: unknown, port: 9100},
          {name: tls-inside, port: 9443}, {name: https, port: 443}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {name: ratings-1, namespace: default, labels: {kubernetes.io/service-name: ratings}}
endpoints: [{addresses: [10.88.2.1], conditions: {ready: true}}]
ports: [{name: http, port: 9080}, {name: tcp-lines, port: 9000}, {name: unknown, port: 9100},
        {name: tls-inside, port: 9443}, {name: https, port: 443}]
---
"""


def _first(lab: Lab) -> str:
    return shares(lab, 5).most_common(1)[0][0]


def _lines(lab: Lab) -> str:
    server = line(lab).get("server", "")
    return "reviews" if server.startswith("reviews") else server


def _secured_lines(lab: Lab) -> str:
    server = _tls_line(lab).get("server", "")
    return "reviews" if server.startswith("reviews") else server


def _tls_line(lab: Lab) -> Json:
    return line(lab, port=9443, tls=lab.certificates.client_context(), sni="reviews")


def _exact(probe: Probe) -> Probe:
    return lambda lab: (line(lab) if probe is _lines else _tls_line(lab))["server"]


def _port(probe: Probe) -> Probe:
    return lambda lab: (line(lab) if probe is _lines else _tls_line(lab))["port"]
