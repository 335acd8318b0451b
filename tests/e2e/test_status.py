"""Conditions against what the real proxies hold, and rollback to byte-identical configuration."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

from lateen.apiserver.client import Client, Listing
from lateen.cli.waiting import verdict
from tests.e2e.mesh import Mesh, eventually, say
from tests.e2e.proxies import Stopped, dump, with_proxies

Json = dict[str, Any]
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
        assert (await client.apply([("x.json", json.dumps(document))])).applied
        async for each in client.follow(kind.lower(), "default", fields=f"metadata.name={name}"):
            got = each.items[0] if isinstance(each, Listing) else each.object
            code, line = verdict(got, "live")
            if code is not None:
                assert code == 0, line
                return line, time.monotonic() - started
    raise AssertionError


def test_programmed_is_true_exactly_when_every_proxy_that_needs_it_holds_it(bookinfo: Mesh, capsys: Any) -> None:
    chance = random.Random(9)
    took: list[float] = []
    for number in range(1, 9):
        document = chance.choice((route, rule))(chance.choice(("reviews", "ratings", "details")), number)
        line, seconds = asyncio.run(live(bookinfo, document))
        have = holding(bookinfo, marker(document, number))
        assert line == f"live on {len(have)} of {len(have)} proxies", (document, sorted(have))
        assert have
        took.append(seconds)
    assert max(took) < 1
    say(
        capsys, f"conditions said live after {sorted(took)[len(took) // 2]:.2f} s (median), {max(took):.2f} s (longest)"
    )


def test_a_stopped_proxy_holds_it_back_and_is_named(bookinfo: Mesh) -> None:
    chance = random.Random(10)
    for number in (101, 102):
        victim = chance.choice([pod for pod in with_proxies(bookinfo) if "gateway" not in pod.name])
        document = chance.choice((route, rule))("reviews", number)
        with Stopped(victim):
            done = bookinfo.lateen("apply", "--wait", "--timeout", "1", "-f", "-", stdin=json.dumps(document), expect=3)
            assert "not live after 1 s" in done.stderr
            condition = programmed(bookinfo, document)
            assert (condition["status"], condition["reason"]) == ("False", "Pending")
            assert f"{victim.name}.default" in condition["message"]
            others = holding(bookinfo, marker(document, number), but=victim.name)
            assert condition["message"].startswith(f"live on {len(others)} of {len(others) + 1} proxies")
            assert f"{victim.name}.default behind for" in bookinfo.lateen("status", expect=None).stdout
        bookinfo.lateen("wait", f"{document['kind']}/reviews")
        assert holding(bookinfo, marker(document, number)) == others | {victim.name}


def test_what_proxies_refuse_is_said_everywhere(bookinfo: Mesh, tmp_path: Path) -> None:
    good, bad = route("ratings", 201), route("reviews", 202)
    asyncio.run(live(bookinfo, route("reviews", 203)))
    bad["spec"]["http"][0]["headers"] = {"response": {"set": {"x": "%PROTOCOL(x)%"}}}
    file = tmp_path / "both.yaml"
    file.write_text("\n---\n".join(json.dumps(each) for each in (good, bad)))
    done = bookinfo.lateen("apply", "--wait", "-f", str(file), expect=1)
    assert "LTN0020" in done.stderr, done
    done = bookinfo.lateen("wait", "vs/reviews", expect=1)
    assert "PROTOCOL" in done.stderr
    bookinfo.lateen("wait", "vs/ratings")
    condition = programmed(bookinfo, bad)
    assert (condition["status"], condition["reason"]) == ("False", "RefusedByProxies")
    assert len(holding(bookinfo, marker(good, 201))) == len(holding(bookinfo, marker(bad, 203))) == 6
    assert not holding(bookinfo, marker(bad, 202))
    status = bookinfo.lateen("status", expect=1).stdout
    assert "refused objects" in status
    assert "VirtualService default/reviews" in status
    history = bookinfo.lateen("history", "vs/reviews").stdout.splitlines()
    assert "REFUSED" in history[1]
    assert "REFUSED" not in history[2]
    bookinfo.lateen("rollback", "vs/reviews")
    bookinfo.lateen("wait", "vs/reviews")
    assert len(holding(bookinfo, marker(bad, 203))) == 6


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
"""


def test_a_rollback_returns_the_proxies_to_the_very_same_bytes(bookinfo: Mesh, tmp_path: Path) -> None:
    def everything() -> dict[str, Json]:
        return {pod.name: dump(pod) for pod in with_proxies(bookinfo)}

    bookinfo.apply(rule("reviews", 301), route("reviews", 301), route("ratings", 301))
    bookinfo.lateen("wait", "vs/reviews", "vs/ratings", "dr/reviews")
    good = json.loads(bookinfo.lateen("history", "-o", "json").stdout)[0]["revision"]
    before = everything()
    file = tmp_path / "everything.yaml"
    file.write_text(_EVERYTHING)
    bookinfo.apply(rule("reviews", 302), route("reviews", 302), rule("details", 302), file)
    bookinfo.lateen("delete", "vs", "ratings")
    eventually(everything, lambda now: all(now[name] != before[name] for name in before), 10)
    bookinfo.lateen("rollback", str(good))
    eventually(everything, lambda now: now == before, 10)
    assert "nothing to do" in bookinfo.lateen("rollback", str(good)).stdout
