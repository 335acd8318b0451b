"""Conditions against what the real proxies hold, and rollback to byte-identical configuration.

In most tests the proxies get everything at once, so that every object concerns several of them.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from operator import ge
from pathlib import Path
from typing import Any

import pytest
import yaml

from lateen.api import kinds
from lateen.apiserver.applying import apply_files
from lateen.apiserver.client import Client, Listing
from lateen.cli.waiting import verdict
from tests.e2e.mesh import Mesh, eventually, say
from tests.e2e.proxies import Stopped, dump, with_proxies

Json = dict[str, Any]
_EAGER = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "discovery: EAGER"}
"""
_ISTIO = "networking.istio.io/v1"


def route(name: str, number: int) -> Json:
    """A VirtualService that no other number makes: its timeout is `number` milliseconds over a minute."""
    to = {"host": name, "port": {"number": 9080}}
    http = [{"timeout": f"{60 + number / 1000:.3f}s", "route": [{"destination": to}]}]
    return {
        "apiVersion": _ISTIO,
        "kind": "VirtualService",
        "metadata": {"name": name},
        "spec": {"hosts": [name], "http": http},
    }


def rule(name: str, number: int) -> Json:
    """A DestinationRule that no other number makes."""
    policy = {"connectionPool": {"tcp": {"maxConnections": 700_000 + number}}}
    spec = {"host": name, "trafficPolicy": policy}
    return {"apiVersion": _ISTIO, "kind": "DestinationRule", "metadata": {"name": name}, "spec": spec}


def marker(document: Json, number: int) -> str:
    """What stands in a config dump when the proxy holds that very content."""
    return f"'{60 + number / 1000:.3f}s'" if document["kind"] == "VirtualService" else str(700_000 + number)


def holding(mesh: Mesh, text: str, but: str = "") -> set[str]:
    """The Pods whose proxies hold something with that text."""
    return {pod.name for pod in with_proxies(mesh) if pod.name != but and text in str(dump(pod))}


def programmed(mesh: Mesh, document: Json) -> Json:
    """The condition at the present generation, or nothing."""
    shown = mesh.lateen("get", document["kind"].lower(), document["metadata"]["name"], "-o", "json").stdout
    got: Json = json.loads(shown)
    listed: list[Json] = got.get("status", {}).get("conditions", [])
    for each in listed:
        if each["type"] == "Programmed" and each["observedGeneration"] == got["metadata"]["generation"]:
            return each
    return {}


async def live(mesh: Mesh, document: Json) -> tuple[str, float]:
    """Applies a change and waits until it is said to be live: the message, and seconds."""
    kind, name = document["kind"], document["metadata"]["name"]
    async with Client(mesh.settings.layout().api_socket) as client:
        started = time.monotonic()
        assert (await apply_files(client, [("x.json", json.dumps(document))])).applied
        async for each in client.follow(kind.lower(), "default", fields=f"metadata.name={name}"):
            got = each.items[0] if isinstance(each, Listing) else each.object
            code, line = verdict(got, "live")
            if code is not None:
                assert code == 0, line
                return line, time.monotonic() - started
    raise AssertionError


@pytest.fixture
def eager(bookinfo: Mesh, tmp_path: Path) -> Iterator[Mesh]:
    """The mesh with proxies that hold everything."""
    file = tmp_path / "mesh.yaml"
    file.write_text(_EAGER)
    bookinfo.apply(file)
    eventually(lambda: len(holding(bookinfo, "outbound|9080||details")), lambda count: count == 7, 10)
    eventually(lambda: holding(bookinfo, "draining_state"), lambda pods: not pods, 20)
    yield bookinfo
    bookinfo.lateen("delete", "-f", str(file))


@pytest.fixture
def on_demand(bookinfo: Mesh) -> Mesh:
    """The mesh with proxies that hold what their workloads have called: everybody has called whom it ever calls."""

    def callers() -> list[int]:
        assert bookinfo.ask("/productpage").status == 200
        return [len(holding(bookinfo, f"outbound|9080||{name}.default")) for name in NAMES]

    eventually(callers, lambda found: all(map(ge, found, (1, 2, 1))), 30)
    return bookinfo


NAMES = ("reviews", "ratings", "details")
STEPS = ("changed", "changed", "paused", "refused", "changed", "paused")


@pytest.mark.parametrize("discovery", ["eager", "on_demand"])
def test_programmed_is_true_exactly_when_every_proxy_that_needs_it_holds_it(
    discovery: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random changes; one proxy does not answer, or Envoy refuses the content, in some of them."""
    mesh: Mesh = request.getfixturevalue(discovery)
    chance, took, number = random.Random(9), list[float](), 0
    needs: dict[tuple[str, str], set[str]] = {}
    for name in NAMES:
        for make in (route, rule):
            number += 1
            document = make(name, number)
            line, _ = asyncio.run(live(mesh, document))
            have = needs[document["kind"], name] = holding(mesh, marker(document, number))
            assert have
            assert line == f"live on {len(have)} of {len(have)} proxies"
    assert needs["VirtualService", "details"] < {pod.name for pod in with_proxies(mesh)}
    for step in chance.sample(STEPS, len(STEPS)):
        number += 1
        document = chance.choice((route, rule))(chance.choice(NAMES), number)
        if step == "changed":
            took.append(changed(mesh, document, number, needs))
        elif step == "paused":
            paused(mesh, document, number, needs, chance)
        else:
            refused(mesh, route(document["metadata"]["name"], number), number)
    assert max(took) < 1
    say(capsys, f"{discovery}: conditions said live after {max(took):.2f} s at most")


def changed(mesh: Mesh, document: Json, number: int, needs: dict[tuple[str, str], set[str]]) -> float:
    """A change that all take; seconds until it is said to be live."""
    line, seconds = asyncio.run(live(mesh, document))
    have = holding(mesh, marker(document, number))
    assert have == needs[document["kind"], document["metadata"]["name"]]
    assert line == f"live on {len(have)} of {len(have)} proxies"
    return seconds


def paused(
    mesh: Mesh, document: Json, number: int, needs: dict[tuple[str, str], set[str]], chance: random.Random
) -> None:
    """A change while one of those that need it does not run."""
    everybody = needs[document["kind"], document["metadata"]["name"]]
    name = chance.choice(sorted(everybody))
    victim = next(pod for pod in with_proxies(mesh) if pod.name == name)
    with Stopped(victim):
        done = mesh.lateen("apply", "--wait", "--timeout", "1", "-f", "-", stdin=json.dumps(document), expect=3)
        assert "not live after 1 s" in done.stderr
        condition = programmed(mesh, document)
        assert (condition["status"], condition["reason"]) == ("False", "Pending")
        assert f"{victim.name}.{victim.namespace}" in condition["message"]
        assert condition["message"].startswith(f"live on {len(everybody) - 1} of {len(everybody)} proxies")
        assert holding(mesh, marker(document, number), but=victim.name) == everybody - {victim.name}
        assert f"{victim.name}.{victim.namespace} behind for" in mesh.lateen("status", expect=None).stdout
    mesh.lateen("wait", f"{document['kind']}/{document['metadata']['name']}")
    assert holding(mesh, marker(document, number)) == everybody


def refused(mesh: Mesh, document: Json, number: int) -> None:
    """A change that no Envoy takes; then its last good version."""
    document["spec"]["http"][0]["headers"] = {"response": {"set": {"x": "%PROTOCOL(x)%"}}}
    name = document["metadata"]["name"]
    mesh.lateen("apply", "-f", "-", stdin=json.dumps(document), expect=None)
    assert "PROTOCOL" in mesh.lateen("wait", f"vs/{name}", expect=1).stderr
    condition = programmed(mesh, document)
    assert (condition["status"], condition["reason"]) == ("False", "RefusedByProxies")
    assert not holding(mesh, marker(document, number))
    mesh.lateen("rollback", f"vs/{name}")
    mesh.lateen("wait", f"vs/{name}")


def test_what_proxies_refuse_is_said_everywhere(eager: Mesh, tmp_path: Path) -> None:
    good, bad = route("ratings", 201), route("reviews", 202)
    asyncio.run(live(eager, route("reviews", 203)))
    bad["spec"]["http"][0]["headers"] = {"response": {"set": {"x": "%PROTOCOL(x)%"}}}
    file = tmp_path / "both.yaml"
    file.write_text("\n---\n".join(json.dumps(each) for each in (good, bad)))
    done = eager.lateen("apply", "--wait", "-f", str(file), expect=1)
    assert "LTN0020" in done.stderr, done
    done = eager.lateen("wait", "vs/reviews", expect=1)
    assert "PROTOCOL" in done.stderr
    eager.lateen("wait", "vs/ratings")
    condition = programmed(eager, bad)
    assert (condition["status"], condition["reason"]) == ("False", "RefusedByProxies")
    assert len(holding(eager, marker(good, 201))) == len(holding(eager, marker(bad, 203))) == 6
    assert not holding(eager, marker(bad, 202))
    status = eager.lateen("status", expect=1).stdout
    assert "refused objects" in status
    assert "VirtualService default/reviews" in status
    history = eager.lateen("history", "vs/reviews").stdout.splitlines()
    assert "REFUSED" in history[1]
    assert "REFUSED" not in history[2]
    eager.lateen("rollback", "vs/reviews")
    eager.lateen("wait", "vs/reviews")
    assert len(holding(eager, marker(bad, 203))) == 6


_EVERYTHING = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: rb}
spec: {hosts: [rb.example], resolution: STATIC, ports: [{number: 9080, name: http, protocol: HTTP}],
  endpoints: [{address: 10.88.200.9}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: rb}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [rb.example]}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: rb}
spec: {egress: [{hosts: ["./*"]}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: rb}
spec: {address: 10.88.200.10, labels: {app: ratings}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: rb}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: rb}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/rb]}}]}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: rb}
spec: {selector: {matchLabels: {app: details}}, jwtRules: [{issuer: rb.example, jwks: '{"keys": []}'}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: rb}
spec: {template: {serviceAccount: default}}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: rb}
spec:
  configPatches:
  - applyTo: VIRTUAL_HOST
    match: {context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {domainName: details}}}
    patch: {operation: MERGE, value: {request_headers_to_add: [{header: {key: x-rb, value: "yes"}}]}}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: rb}
spec: {environmentVariables: {RB: "yes"}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: rb}
spec: {accessLogging: [{disabled: true}]}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: rb}
spec: {url: "http://127.0.0.1:9/rb.wasm", failStrategy: FAIL_OPEN}
---
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: rb}
spec: {lua: {inlineCode: "function envoy_on_request(handle) handle:headers():add('x-rb', 'here') end"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "{discovery: EAGER, accessLogFile: /dev/stdout}"}
"""
"""One of every kind that configures the mesh but those that the test changes by itself."""


def _differing(first: dict[str, Json], second: dict[str, Json]) -> dict[str, list[str]]:
    """The resources in which proxies differ, by Pod."""
    found = {
        pod: [name for name in one.keys() | second[pod].keys() if one.get(name) != second[pod].get(name)]
        for pod, one in first.items()
    }
    return {pod: sorted(names) for pod, names in found.items() if names}


def test_a_rollback_returns_the_proxies_to_the_very_same_bytes(eager: Mesh, tmp_path: Path) -> None:
    made = {each["kind"] for each in yaml.safe_load_all(_EVERYTHING)} | {"VirtualService", "DestinationRule"}
    assert made == {each.kind for each in kinds.KINDS if each.group.endswith(".istio.io")} | {"ConfigMap"}

    def everything() -> dict[str, Json]:
        return {pod.name: dump(pod) for pod in with_proxies(eager)}

    eager.apply(rule("reviews", 301), route("reviews", 301), route("ratings", 301))
    eager.lateen("wait", "vs/reviews", "vs/ratings", "dr/reviews")
    good = json.loads(eager.lateen("history", "-o", "json").stdout)[0]["revision"]
    before = everything()
    file = tmp_path / "everything.yaml"
    file.write_text(_EVERYTHING)
    eager.apply(rule("reviews", 302), route("reviews", 302), rule("details", 302), file)
    eager.lateen("delete", "vs", "ratings")
    eventually(lambda: _differing(everything(), before), lambda names: names.keys() == before.keys(), 20)
    eager.lateen("rollback", str(good))
    eventually(lambda: _differing(everything(), before), lambda names: not names, 20)
    assert "nothing to do" in eager.lateen("rollback", str(good)).stdout
