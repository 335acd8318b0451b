"""EnvoyFilter, field by field: what is asked for by a patch is patched, and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import yaml

from tests.coverage.case import Case, Json, Probe, Refusal, new
from tests.coverage.cases.extensions import EDGE, GATEWAY, at_gateway
from tests.envoy.proxy_program import settled
from tests.lab.client import ask, exchange, outside
from tests.lab.lab import Lab

KIND = "EnvoyFilter"
PATCH = "spec.configPatches[0]"
MANAGER, ROUTER = "envoy.filters.network.http_connection_manager", "envoy.filters.http.router"
LUA_TYPE = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
PROXY_PROTOCOL = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
RATINGS = "ratings.default.svc.cluster.local"
SHORT: Json = {
    "name": "envoy.filters.network.direct_response",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config",
        "response": {"inline_string": "short and stout"},
    },
}
"""A network filter that answers by itself."""
HEADER: Json = {"request_headers_to_add": [{"header": {"key": "x-lua", "value": "yes"}}]}
TEA: Json = {"direct_response": {"status": 418}}


def lua(value: str = "yes", name: str = "mine", header: str = "x-lua") -> Json:
    """A filter that adds to the end of a header of requests."""
    said = f'(handle:headers():get("{header}") or "") .. "{value}"'
    code = f'function envoy_on_request(handle) handle:headers():replace("{header}", {said}) end'
    return {"name": name, "typed_config": {"@type": LUA_TYPE, "default_source_code": {"inline_string": code}}}


def patch(
    apply_to: str,
    operation: str,
    value: Json | None = None,
    match: Json | None = None,
    *,
    name: str = "one",
    namespace: str = "default",
    kind: str = "",
    **spec: Any,
) -> Json:
    """An EnvoyFilter of one patch; `kind` is the class of its filter."""
    done = {"operation": operation, **({"value": value} if value else {}), **({"filterClass": kind} if kind else {})}
    one = {"applyTo": apply_to, "match": match or {"context": "SIDECAR_OUTBOUND"}, "patch": done}
    return new(KIND, name, {"configPatches": [one], **spec}, namespace)


def case(place: str, document: Json, value: Any, probe: Probe, before: Any, after: Any, beside: str = "") -> Case:
    return Case(KIND, place, document, value, probe, before, after, beside)


def header(name: str = "x-lua", port: int = 9080) -> Probe:
    return lambda lab: ask(lab, "ratings", port=port).seen["headers"].get(name)


def status(lab: Lab) -> int:
    return ask(lab, "ratings").status


def inbound(lab: Lab) -> str | int | None:
    answer = outside(lab, authority="app")
    return answer.seen["headers"].get("x-lua") if answer.status == 200 else answer.status


def first_bytes(lab: Lab) -> bytes:
    """What comes back on a connection that asks for a page."""
    with lab.connect("ratings", 9080) as one:
        one.sendall(b"GET / HTTP/1.1\r\nhost: ratings\r\n\r\n")
        return one.recv(15)


def lines(lab: Lab) -> bool:
    """Whether lines of text are answered."""
    with contextlib.suppress(OSError), lab.connect("ratings", 9000) as one:
        return bool(exchange(one))
    return False


def handshake(lab: Lab) -> bool:
    context = lab.certificates.client_context()
    context.check_hostname = False
    try:
        with lab.connect("ratings", 9443, tls=context, sni=RATINGS):
            return True
    except OSError:
        return False


def answers(lab: Lab) -> tuple[str, ...]:
    """The paths whose answers have the header of a patch."""
    return tuple(each for each in ("/old", "/tea", "/") if "x-seen" in ask(lab, "ratings", each).headers)


def text(document: Json) -> str:
    return yaml.safe_dump(document) + "---\n"


def rules(**kind: Any) -> str:
    return text(new("VirtualService", "ratings", {"hosts": ["ratings"], **kind}))


def cases() -> Iterator[Case]:
    yield from _kinds()
    yield from _contexts()
    yield from _clusters()
    yield from _listeners()
    yield from _tables()
    yield from _operations()
    yield from _whom()


def _kinds() -> Iterator[Case]:
    def kind(document: Json, probe: Probe, before: Any, after: Any, other: str = "CLUSTER", beside: str = "") -> Case:
        return case(f"{PATCH}.applyTo", document, other, probe, before, after, beside)

    ok, teapot = b"HTTP/1.1 200 OK", b"short and stout"
    gone = patch("LISTENER", "REMOVE", match={"listener": {"name": "10.96.0.2_9000"}})
    yield kind(gone, lines, False, True, "HTTP_FILTER")
    chain = {"filter_chain_match": {"prefix_ranges": [{"address_prefix": "10.96.0.2", "prefix_len": 32}]}}
    only = {"listener": {"name": "0.0.0.0_9080"}}
    yield kind(patch("FILTER_CHAIN", "ADD", {**chain, "filters": [SHORT]}, only), first_bytes, teapot, ok, "LISTENER")
    manager: Json = {"context": "SIDECAR_OUTBOUND", "listener": {"filterChain": {"filter": {"name": MANAGER}}}}
    yield kind(patch("NETWORK_FILTER", "REPLACE", SHORT, manager), first_bytes, teapot, ok, "HTTP_FILTER")
    yield kind(patch("HTTP_FILTER", "INSERT_FIRST", lua()), header(), "yes", None)
    yield kind(patch("ROUTE_CONFIGURATION", "MERGE", HEADER), header(), "yes", None)
    yield kind(patch("VIRTUAL_HOST", "MERGE", HEADER), header(), "yes", None)
    yield kind(patch("HTTP_ROUTE", "MERGE", TEA), status, 418, 200, "VIRTUAL_HOST")
    yield kind(patch("CLUSTER", "REMOVE"), status, 503, 200, "HTTP_FILTER")
    proxied = {"name": "envoy.filters.listener.proxy_protocol", "typed_config": {"@type": PROXY_PROTOCOL}}
    where = {"context": "SIDECAR_INBOUND"}
    yield kind(patch("LISTENER_FILTER", "INSERT_FIRST", proxied, where), lambda lab: inbound(lab) is None, False, True)
    discovery: Json = {
        "config_source": {"ads": {}, "resource_api_version": "V3"},
        "type_urls": [LUA_TYPE],
        "apply_default_config_without_warming": True,
        "default_config": {"@type": LUA_TYPE},
    }
    beside = patch("HTTP_FILTER", "INSERT_FIRST", {"name": "mine", "config_discovery": discovery}, name="beside")
    adding = patch("CLUSTER", "ADD", lua())
    yield kind(adding, _settled_header, None, "yes", "EXTENSION_CONFIG", beside=text(beside))
    named = patch("BOOTSTRAP", "MERGE", {"node": {"cluster": "named-by-a-patch"}})
    yield kind(named, _own_cluster, "named-by-a-patch", "app.default")


def _settled_header(lab: Lab) -> str | None:
    """A filter by discovery is in use a moment after its listener."""
    with contextlib.suppress(AssertionError):
        lab.wait(lambda: header()(lab) is not None, 0.5)
    return header()(lab)


def _own_cluster(lab: Lab) -> str:
    return settled(lab.sidecar.graph)["node"]["cluster"]


def _contexts() -> Iterator[Case]:
    place = f"{PATCH}.match.context"

    def where(context: str, namespace: str = "default") -> Json:
        return patch("HTTP_FILTER", "INSERT_FIRST", lua(), {"context": context}, namespace=namespace)

    yield case(place, where("ANY"), "SIDECAR_INBOUND", header(), "yes", None)
    yield case(place, where("SIDECAR_OUTBOUND"), "GATEWAY", header(), "yes", None)
    yield case(place, where("SIDECAR_INBOUND"), "SIDECAR_OUTBOUND", inbound, "yes", None)
    edge = where("GATEWAY", "istio-system")
    yield case(place, edge, "SIDECAR_OUTBOUND", at_gateway("x-lua"), "yes", None, GATEWAY)


def _clusters() -> Iterator[Case]:
    subset = rules(http=[{"route": [{"destination": {"host": "reviews", "subset": "v1"}}]}])
    for field, good, other, beside in (
        ("name", f"outbound|9080||{RATINGS}", f"outbound|9081||{RATINGS}", ""),
        ("portNumber", 9080, 9081, ""),
        ("service", RATINGS, "details.default.svc.cluster.local", ""),
        ("subset", "v1", "v2", subset),
    ):
        document = patch("CLUSTER", "REMOVE", match={"cluster": {field: good}})
        yield case(f"{PATCH}.match.cluster.{field}", document, other, status, 503, 200, beside)
    of_lines = patch("CLUSTER", "REMOVE", match={"cluster": {"service": RATINGS, "portNumber": 9000}})
    yield case(f"{PATCH}.match.cluster.portNumber", of_lines, 9080, lines, False, True)


def _listeners() -> Iterator[Case]:
    def within(field: str, good: Any, other: Any, probe: Probe, place: Json | None = None, beside: str = "") -> Case:
        match: Json = {"context": "SIDECAR_OUTBOUND", "listener": {}, **(place or {})}
        at = match["listener"]
        *outer, last = field.split(".")
        for step in outer:
            at = at.setdefault(step, {})
        at[last] = good
        document = patch("HTTP_FILTER", "INSERT_BEFORE", lua(), match)
        return case(f"{PATCH}.match.listener.{field}", document, other, probe, "yes", None, beside)

    server: Json = {"context": "SIDECAR_INBOUND"}
    yield within("name", "0.0.0.0_9080", "0.0.0.0_9081", header())
    yield within("portNumber", 9080, 9081, header())
    yield within("filterChain.applicationProtocols", "http/1.1", "istio", header(port=9100))
    yield within("filterChain.destinationPort", 9080, 9081, inbound, server)
    yield within("filterChain.name", "0.0.0.0_9080", "0.0.0.0_9081", inbound, server)
    yield within("filterChain.filter.name", MANAGER, "envoy.filters.network.tcp_proxy", header())
    yield within("filterChain.filter.subFilter.name", ROUTER, "envoy.filters.http.buffer", header())
    tls = [{"match": [{"port": 9443, "sniHosts": [RATINGS]}], "route": [{"destination": {"host": "ratings"}}]}]
    named: Json = {"sni": RATINGS, "filter": {"name": "envoy.filters.network.tcp_proxy"}}
    short = patch("NETWORK_FILTER", "REPLACE", SHORT, {"listener": {"filterChain": named}})
    yield case(f"{PATCH}.match.listener.filterChain.sni", short, "o.test", handshake, False, True, rules(tls=tls))
    yield within("filterChain.transportProtocol", "raw_buffer", "tls", inbound, server)
    looked: Json = {"listener": {"portNumber": 9100, "listenerFilter": "envoy.filters.listener.http_inspector"}}
    inspector = patch("LISTENER_FILTER", "REMOVE", match=looked)
    place = f"{PATCH}.match.listener.listenerFilter"
    understood: Probe = lambda lab: header("x-request-id", 9100)(lab) is not None  # noqa: E731 (a probe by its case)
    yield case(place, inspector, "envoy.filters.listener.tls_inspector", understood, False, True)


def _tables() -> Iterator[Case]:
    place = f"{PATCH}.match.routeConfiguration"
    for field, good, other in (
        ("gateway", "istio-system/edge", "istio-system/other"),
        ("name", "http.8080", "http.8081"),
        ("portName", "http", "other"),
        ("portNumber", 8080, 8081),
    ):
        match: Json = {"routeConfiguration": {field: good}}
        document = patch("VIRTUAL_HOST", "MERGE", HEADER, match, namespace="istio-system")
        yield case(f"{place}.{field}", document, other, at_gateway("x-lua"), "yes", None, GATEWAY)
    for field, good, other in (("domainName", "ratings", "details"), ("name", f"{RATINGS}:9080", f"{RATINGS}:9081")):
        document = patch("VIRTUAL_HOST", "MERGE", HEADER, {"routeConfiguration": {"vhost": {field: good}}})
        yield case(f"{place}.vhost.{field}", document, other, header(), "yes", None)
    everything = rules(
        http=[
            {"match": [{"uri": {"exact": "/old"}}], "redirect": {"uri": "/new"}},
            {"match": [{"uri": {"exact": "/tea"}}], "directResponse": {"status": 418}},
            {"name": "rest", "route": [{"destination": {"host": "ratings"}}]},
        ]
    )
    seen: Json = {"response_headers_to_add": [{"header": {"key": "x-seen", "value": "yes"}}]}

    def route(**wanted: str) -> Json:
        match: Json = {"routeConfiguration": {"portNumber": 9080, "vhost": {"route": wanted}}}
        return patch("HTTP_ROUTE", "MERGE", seen, match)

    at = f"{place}.vhost.route"
    yield case(f"{at}.action", route(action="ANY"), "ROUTE", answers, ("/old", "/tea", "/"), ("/",), everything)
    yield case(f"{at}.action", route(action="REDIRECT"), "DIRECT_RESPONSE", answers, ("/old",), ("/tea",), everything)
    yield case(f"{at}.name", route(name="rest"), "other", answers, ("/",), (), everything)


def _operations() -> Iterator[Case]:
    place = f"{PATCH}.patch.operation"
    host: Json = {"routeConfiguration": {"vhost": {"domainName": "ratings"}}}
    yield case(place, patch("VIRTUAL_HOST", "REMOVE", HEADER, host), "MERGE", status, 503, 200)
    adding = rules(
        http=[{"headers": {"request": {"add": {"x-a": "1"}}}, "route": [{"destination": {"host": "ratings"}}]}]
    )
    more = {"request_headers_to_add": [{"header": {"key": "x-b", "value": "2"}}]}
    both: Probe = lambda lab: (header("x-a")(lab), header("x-b")(lab))  # noqa: E731 (a probe by its case)
    merged = patch("HTTP_ROUTE", "MERGE", more, host)
    yield case(place, merged, "MERGE_AND_REPLACE_LIST", both, ("1", "2"), (None, "2"), adding)
    first = text(patch("HTTP_FILTER", "INSERT_FIRST", lua("a", "mine.a", "x-order"), name="first", priority=-1))
    by: Json = {
        "context": "SIDECAR_OUTBOUND",
        "listener": {"filterChain": {"filter": {"subFilter": {"name": "mine.a"}}}},
    }

    def order(operation: str) -> Json:
        return patch("HTTP_FILTER", operation, lua("b", "mine.b", "x-order"), by)

    yield case(place, order("INSERT_BEFORE"), "INSERT_AFTER", header("x-order"), "ba", "ab", first)
    yield case(place, order("INSERT_FIRST"), "ADD", header("x-order"), "ba", "ab", first)
    yield case(place, order("REPLACE"), "INSERT_AFTER", header("x-order"), "b", "ab", first)
    code = f"{PATCH}.patch.value"
    yield Case(KIND, code, patch("HTTP_FILTER", "ADD", lua()), lua("two"), header(), "yes", "two")
    needs = {"rules": [{"when": [{"key": "request.headers[x-lua]", "values": ["yes"]}]}]}
    policy = text(new("AuthorizationPolicy", "needs", needs))
    for kind in ("UNSPECIFIED", "AUTHZ", "STATS"):
        late = patch("HTTP_FILTER", "ADD", lua(), {"context": "SIDECAR_INBOUND"}, kind=kind)
        yield case(f"{PATCH}.patch.filterClass", late, "AUTHN", inbound, 403, "yes", policy)


def _whom() -> Iterator[Case]:
    def filtered(match: Json | None = None, namespace: str = "default", **spec: Any) -> Json:
        return patch("HTTP_FILTER", "INSERT_FIRST", lua(), match, namespace=namespace, **spec)

    version: Json = {"context": "SIDECAR_OUTBOUND", "proxy": {"proxyVersion": r"^1\.31.*"}}
    yield case(f"{PATCH}.match.proxy.proxyVersion", filtered(version), r"^1\.2.*", header(), "yes", None)
    team: Json = {"context": "SIDECAR_OUTBOUND", "proxy": {"metadata": {"TEAM": "shop"}}}
    yield case(f"{PATCH}.match.proxy.metadata{{TEAM}}", filtered(team), "other", header(), "yes", None)
    chosen = filtered(workloadSelector={"labels": {"app": "app"}})
    yield case("spec.workloadSelector.labels{app}", chosen, "other", header(), "yes", None)
    other = text(patch("HTTP_FILTER", "INSERT_FIRST", lua("b", "mine.b", "x-order"), name="two", priority=5))
    first = patch("HTTP_FILTER", "INSERT_FIRST", lua("a", "mine.a", "x-order"), priority=1)
    yield case("spec.priority", first, 9, header("x-order"), "ba", "ab", other)
    aimed = filtered({"context": "GATEWAY"}, "istio-system", targetRefs=[EDGE])
    yield case("spec.targetRefs[0].name", aimed, "other", at_gateway("x-lua"), "yes", None, GATEWAY)
    yield case("spec.targetRefs[0].group", aimed, "networking.istio.io", at_gateway("x-lua"), "yes", None, GATEWAY)


def refusals() -> Iterator[Refusal]:
    base = patch("HTTP_FILTER", "ADD", lua(), {})
    yield Refusal(KIND, f"{PATCH}.applyTo", base, "INVALID", "IST0106")
    yield Refusal(KIND, f"{PATCH}.patch.operation", base, "INVALID", "IST0106")
    yield Refusal(KIND, f"{PATCH}.match.context", base, "WAYPOINT", "LTN0001")
    yield Refusal(KIND, f"{PATCH}.match.listener.portName", base, "http", "LTN0006")
    for field, value in (
        ("filter.name", MANAGER),
        ("filter.subFilter.name", ROUTER),
        ("portNumber", 80),
        ("route.name", "default"),
    ):
        yield Refusal(KIND, f"{PATCH}.match.waypoint.{field}", base, value, "LTN0006")
    aimed = patch("HTTP_FILTER", "ADD", lua(), {}, targetRefs=[EDGE])
    yield Refusal(KIND, "spec.targetRefs[0].kind", aimed, "Service", "LTN0001")
    yield Refusal(KIND, "spec.targetRefs[0].namespace", aimed, "other", "IST0106")
