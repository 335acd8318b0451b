"""WasmPlugin and TrafficExtension, field by field. Modules come from the lab's own server (tests/lab/modules.py)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import yaml

from lateen.model.extensions import Module, wanted_modules
from lateen.security.modules import ModuleFetcher
from tests.coverage.case import Case, Json, Probe, Refusal, new
from tests.lab.client import ask, exchange, outside
from tests.lab.lab import Lab
from tests.lab.modules import LOGIN, REGISTRY, digest, module

PLUGIN, EXTENSION = "WasmPlugin", "TrafficExtension"
SAID = '{"say":"hello"}'
URL = f"http://{REGISTRY}/wasm.wasm"
EDGE = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: istio-system}
spec:
  hosts: [shop.test]
  gateways: [edge]
  http: [{route: [{destination: {host: ratings.default.svc.cluster.local, port: {number: 9080}}}]}]
---
"""
LUA = 'function envoy_on_request(handle)\n  handle:headers():add("x-lua", "one")\nend\n'


def header(name: str = "wasm", port: int = 9080) -> Probe:
    def probe(lab: Lab) -> str | int | None:
        answer = ask(lab, "ratings", port=port)
        return answer.seen["headers"].get(name) if answer.status == 200 else answer.status

    return probe


def at_gateway(name: str) -> Probe:
    return lambda lab: ask(lab, "gateway", port=8080, authority="shop.test").seen["headers"].get(name)


def inbound(lab: Lab) -> int:
    return outside(lab, authority="app").status


def first_of_two(lab: Lab) -> str:
    return next(name for name in ask(lab, "ratings").seen["headers"] if name in ("wasm", "othr", "x-lua"))


def after_a_failure(lab: Lab) -> str | int | None:
    assert ask(lab, "ratings", headers={"x-trap": "now"}).status == 503
    return header()(lab)


def connection(lab: Lab) -> bool:
    with lab.connect("ratings", 9000) as one:
        one.settimeout(0.5)
        return bool(exchange(one))


class EnoughError(Exception):
    """Two versions have come."""


def looked_at_again(lab: Lab) -> str:
    """Which of two versions proxies run in the end, when the second comes after the first has been fetched."""
    lab.registry.put("/moving.wasm", module("befo"))
    found: list[Module] = []

    async def wait(_: float) -> None:
        if len(found) > 1:
            raise EnoughError
        lab.registry.put("/moving.wasm", module("afte"))

    async def fetch() -> None:
        fetcher = ModuleFetcher(lambda _, made: found.append(made), lambda _: None, None, wait)
        (source,) = lab.sidecar.graph.pull(wanted_modules)
        with contextlib.suppress(EnoughError):
            await fetcher._follow(source)

    asyncio.run(fetch())
    real = lab.sidecar.fetched
    lab.sidecar.fetched = lambda _: found[-1]  # pyright: ignore[reportAttributeAccessIssue]
    try:
        lab.add()
        seen = ask(lab, "ratings").seen["headers"]
    finally:
        lab.sidecar.fetched = real
        lab.registry.put("/moving.wasm", module("befo"))
    return next(name for name in ("befo", "afte") if name in seen)


def secret() -> str:
    auths = {"auths": {REGISTRY: {"auth": base64.b64encode(LOGIN.encode()).decode()}}}
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "puller", "namespace": "default"},
        "stringData": {".dockerconfigjson": json.dumps(auths)},
    }
    return yaml.safe_dump(document) + "---\n"


def plugin(kind: str, where: Json | None = None, name: str = "one", **wasm: Any) -> Json:
    """An extension of either kind; `where` are the fields about placement."""
    code = {"url": URL, "pluginConfig": {"say": "hello"}, **wasm}
    spec = {**(where or {}), **(code if kind == PLUGIN else {"wasm": code})}
    return new(kind, name, spec)


def text(document: Json) -> str:
    return yaml.safe_dump(document) + "---\n"


def cases() -> Iterator[Case]:
    for kind, at in ((PLUGIN, "spec"), (EXTENSION, "spec.wasm")):
        yield from _module(kind, at)
        yield from _placement(kind)
    lua = new(EXTENSION, "one", {"lua": {"inlineCode": LUA}})
    yield Case(EXTENSION, "spec.lua.inlineCode", lua, LUA.replace("one", "two"), header("x-lua"), "one", "two")


def _module(kind: str, at: str) -> Iterator[Case]:
    yield Case(kind, f"{at}.url", plugin(kind), URL.replace("wasm.", "othr."), header("othr"), None, SAID)
    yield Case(kind, f"{at}.sha256", plugin(kind, sha256=digest(module())), "0" * 64, header(), SAID, 403)
    configured = f"{at}.pluginConfig"
    yield Case(kind, f"{configured}{{say}}", plugin(kind), "x", header(), SAID, '{"say":"x"}', field=configured)
    yield Case(kind, f"{at}.pluginName", plugin(kind, pluginName="a"), "b", header("x-root"), "a", "b")
    missing = plugin(kind, url=URL.replace("wasm.", "none."), failStrategy="FAIL_OPEN")
    yield Case(kind, f"{at}.failStrategy", missing, "FAIL_CLOSE", header(), None, 403)
    failing = plugin(kind, failStrategy="FAIL_CLOSE")
    yield Case(kind, f"{at}.failStrategy", failing, "FAIL_RELOAD", after_a_failure, 503, SAID)
    moving = f"http://{REGISTRY}/moving.wasm"
    for policy in ("IfNotPresent", "UNSPECIFIED_POLICY"):
        once = plugin(kind, url=moving, imagePullPolicy=policy)
        yield Case(kind, f"{at}.imagePullPolicy", once, "Always", looked_at_again, "befo", "afte")
    private = plugin(kind, url=f"oci://{REGISTRY}/team/private:v1")
    named = {**private, "spec": private["spec"]}
    yield Case(kind, f"{at}.imagePullSecret", named, "puller", header(), 403, SAID, secret())
    only = {"match": [{"mode": "CLIENT", "ports": [{"number": 9000}]}]}
    for said in ("HTTP", "UNSPECIFIED_PLUGIN_TYPE"):
        stopping = plugin(kind, only, url=URL.replace("wasm.", "stop."), type=said)
        yield Case(kind, f"{at}.type", stopping, "NETWORK", connection, True, False)
    inline = plugin(kind, vmConfig={"env": [{"name": "A", "value": "1"}]})
    variable = f"{at}.vmConfig.env[0]"
    yield Case(kind, f"{variable}.name", inline, "B", header("x-env"), "A=1", "B=1")
    yield Case(kind, f"{variable}.value", inline, "2", header("x-env"), "A=1", "A=2")
    host = plugin(kind, vmConfig={"env": [{"name": "PATH", "valueFrom": "INLINE"}]})
    empty: Probe = lambda lab: header("x-env")(lab) == "PATH="  # noqa: E731 (a probe beside its case)
    yield Case(kind, f"{variable}.valueFrom", host, "HOST", empty, True, False)


def _placement(kind: str) -> Iterator[Case]:
    for mode in ("CLIENT", "CLIENT_AND_SERVER", "UNDEFINED"):
        found = plugin(kind, {"match": [{"mode": mode}]})
        yield Case(kind, "spec.match[0].mode", found, "SERVER", header(), SAID, None)
    ports = plugin(kind, {"match": [{"ports": [{"number": 9080}]}]})
    yield Case(kind, "spec.match[0].ports[0].number", ports, 9081, header(), SAID, None)
    needs = {"rules": [{"when": [{"key": "request.headers[wasm]", "values": [SAID]}]}]}
    policy = text(new("AuthorizationPolicy", "needs", needs))
    first = plugin(kind, {"phase": "AUTHN"})
    unspecified = "UNSPECIFIED_PHASE" if kind == PLUGIN else "UNSPECIFIED"
    yield Case(kind, "spec.phase", first, unspecified, inbound, 200, 403, policy)
    yield Case(kind, "spec.phase", plugin(kind, {"phase": "AUTHZ"}), "STATS", inbound, 200, 403, policy)
    other = text(plugin(kind, {"priority": 5}, "two", url=URL.replace("wasm.", "othr.")))
    yield Case(kind, "spec.priority", plugin(kind, {"priority": 1}), 9, first_of_two, "othr", "wasm", other)
    selecting = plugin(kind, {"selector": {"matchLabels": {"app": "other"}}})
    yield Case(kind, "spec.selector.matchLabels{app}", selecting, "app", header(), None, SAID)
    for field in ("targetRefs[0]", *(("targetRef",) if kind == PLUGIN else ())):
        aimed = new(kind, "one", {}, "istio-system")
        aimed["spec"] = plugin(kind, {field.partition("[")[0]: [EDGE] if "[" in field else EDGE})["spec"]
        yield Case(kind, f"spec.{field}.name", aimed, "other", at_gateway("wasm"), SAID, None, GATEWAY)
        yield Case(kind, f"spec.{field}.group", aimed, "networking.istio.io", at_gateway("wasm"), SAID, None, GATEWAY)


def refusals() -> Iterator[Refusal]:
    for kind, at in ((PLUGIN, "spec"), (EXTENSION, "spec.wasm")):
        yield Refusal(kind, f"{at}.verificationKey", plugin(kind), "key", "LTN0001")
        for field in ("targetRefs[0]", *(("targetRef",) if kind == PLUGIN else ())):
            aimed = plugin(kind, {field.partition("[")[0]: [EDGE] if "[" in field else EDGE})
            yield Refusal(kind, f"spec.{field}.kind", aimed, "Service", "LTN0001")
            yield Refusal(kind, f"spec.{field}.namespace", aimed, "other", "IST0106")
