"""Conditions of objects: who needs them, who is behind, who refuses, who loses, and what a status costs."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator

import pytest
import yaml
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from google.protobuf.message import DecodeError

from lateen.apiserver.operations import Put
from lateen.daemon.status_writer import StatusWriter
from tests.envoy.harness import CLUSTER
from tests.unit.status.plane import Plane, route, running

GOOD = {
    "Accepted": "True Accepted",
    "Programmed": "True Live",
    "Conflicted": "False NoConflict",
    "Enforced": "True Enforced",
}


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with running() as each:
        yield each


async def test_an_object_is_programmed_when_the_slowest_proxy_has_answered(plane: Plane) -> None:
    await plane.proxy("reviews-1")
    second = await plane.proxy("ratings-1")
    await plane.apply(route("a", "reviews"))
    assert await plane.reaches("vs", "a", GOOD) < 10
    assert plane.condition("vs", "a", "Programmed")["message"] == "live on 2 of 2 proxies"
    second.answering.clear()
    await plane.apply(route("a", "reviews", "2s"))
    await plane.reaches("vs", "a", {"Programmed": "False Pending", "Enforced": "False NotLiveEverywhere"})
    message = "live on 1 of 2 proxies; ratings-1.default has not answered for routes 9080"
    await plane.until(lambda: plane.condition("vs", "a", "Programmed").get("message") == message)
    (behind,) = [each for each in plane.xds.proxies() if each.behind]
    assert (behind.proxy.name, behind.behind[0].name, behind.behind[0].waiting) == ("ratings-1", "9080", True)
    since = plane.condition("vs", "a", "Programmed")["lastTransitionTime"]
    assert since.endswith("Z")
    second.answering.set()
    await plane.reaches("vs", "a", GOOD)


async def test_what_is_new_after_a_start_does_not_wait_for_those_who_come_back() -> None:
    """A mesh that has just been started: the first word on an object was not the last for five seconds."""
    async with running(return_s=600) as plane:
        await plane.proxy("reviews-1")
        second = await plane.proxy("ratings-1")
        second.answering.clear()
        await plane.apply(route("a", "reviews"))
        await plane.reaches("vs", "a", {"Programmed": "False Pending"})
        second.answering.set()
        await plane.reaches("vs", "a", GOOD)


async def test_a_proxy_that_is_gone_holds_nothing_back(plane: Plane) -> None:
    await plane.proxy("reviews-1")
    second = await plane.proxy("ratings-1")
    second.answering.clear()
    await plane.apply(route("a", "reviews"))
    await plane.reaches("vs", "a", {"Programmed": "False Pending"})
    await second.leave()
    assert await plane.reaches("vs", "a", GOOD) < 10
    assert plane.condition("vs", "a", "Programmed")["message"] == "live on 1 of 1 proxies"


async def test_an_object_is_not_held_back_by_what_others_change(plane: Plane) -> None:
    """One proxy hangs on an older revision of a route table that another object changed later."""
    first = await plane.proxy("reviews-1")
    await plane.apply(route("a", "reviews"))
    await plane.reaches("vs", "a", GOOD)
    first.answering.clear()
    await plane.apply(route("b", "ratings"))
    await plane.reaches("vs", "b", {"Programmed": "False Pending"})
    assert plane.says("vs", "a") == GOOD
    first.answering.set()
    await plane.reaches("vs", "b", GOOD)


async def test_leaving_a_resource_counts_until_the_proxy_has_dropped_it(plane: Plane) -> None:
    first = await plane.proxy("reviews-1")
    await plane.apply(route("a", "reviews"))
    await plane.reaches("vs", "a", GOOD)
    first.answering.clear()
    await plane.apply(route("a", "elsewhere.example"))
    await plane.reaches("vs", "a", {"Programmed": "False Pending"})
    await asyncio.sleep(0.2)
    assert plane.says("vs", "a")["Programmed"] == "False Pending"
    first.answering.set()
    await plane.until(lambda: plane.says("vs", "a")["Programmed"].startswith("True"))


async def test_nobody_needs_it(plane: Plane) -> None:
    await plane.proxy("reviews-1")
    policy = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p}
spec: {selector: {matchLabels: {app: nobody}}, mtls: {mode: STRICT}}
"""
    await plane.apply(policy)
    await plane.reaches("pa", "p", {"Programmed": "True NoProxyNeedsIt", "Enforced": "False NoProxySelected"})
    await plane.until(lambda: "no workload has" in plane.condition("pa", "p", "Enforced").get("message", ""))
    await plane.reaches("pa", "p", {"Accepted": "True AcceptedWithWarnings"})
    assert plane.condition("pa", "p", "Accepted")["message"].startswith("spec.selector")


async def test_one_bad_among_49_good(plane: Plane) -> None:
    def refuses(body: bytes) -> str:
        return "Invalid regex: nine" if b"h9.example" in body else ""

    for name in ("reviews-1", "ratings-1"):
        (await plane.proxy(name)).refuses = refuses
    await plane.apply("---".join(_host(number) for number in range(50)))
    bad = {"Accepted": "False RefusedByProxies", "Programmed": "False RefusedByProxies"}
    await plane.reaches("vs", "h9", {**bad, "Enforced": "False RefusedByProxies"}, 20)
    for number in range(50):
        if number != 9:
            await plane.reaches("vs", f"h{number}", GOOD)
    expected = "Envoy refuses it, so it has no effect: a regular expression is not valid (Invalid regex: nine)"
    assert plane.condition("vs", "h9", "Accepted")["message"] == expected
    await plane.apply(_host(9).replace("h9.example", "other.example"))
    assert await plane.reaches("vs", "h9", GOOD) < 10


def _host(number: int, timeout: str = "1s") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: h{number}}}
spec:
  hosts: [h{number}.example]
  http: [{{timeout: {timeout}, route: [{{destination: {{host: ratings, port: {{number: 9080}}}}}}]}}]
"""


async def test_refused_deleted_and_tried_again(plane: Plane) -> None:
    def refuses(body: bytes) -> str:
        return "Invalid regex: nine" if b"h9.example" in body else ""

    for name in ("reviews-1", "ratings-1"):
        (await plane.proxy(name)).refuses = refuses
    await plane.apply(route("a", "reviews"))
    await plane.reaches("vs", "a", GOOD)
    for _ in range(2):  # the same words for the same bytes: a refusal is not remembered when it no longer matters
        await plane.apply(_host(9))
        await plane.reaches("vs", "h9", {"Accepted": "False RefusedByProxies"}, 20)
        await plane.delete("vs", "h9")
        await plane.until(lambda: not any(kind.errors for each in plane.xds.proxies() for kind in each.types))
    assert await plane.reaches("vs", "a", GOOD) < 10


def _patches(timeout: str, prefix: str) -> str:
    def patch(kind: str, match: str, value: str) -> str:
        return f"""
  - applyTo: {kind}
    match: {{{match}}}
    patch: {{operation: MERGE, value: {{{value}}}}}"""

    reviews, ratings = (f"cluster: {{service: {each}.default.svc.cluster.local}}" for each in ("reviews", "ratings"))
    return f"""
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: patches}}
spec:
  configPatches:
{patch("CLUSTER", reviews, "alt_stat_name: good")}
{patch("CLUSTER", reviews, f"connect_timeout: {timeout}")}
{patch("CLUSTER", ratings, "alt_stat_name: fine")}
{patch("LISTENER", "listener: {name: 0.0.0.0_9080}", f"stat_prefix: {prefix}")}
"""


async def test_a_patch_that_is_refused_is_left_out_and_named_and_the_others_count(plane: Plane) -> None:
    """Patches of two resources, each of which one is refused; the message that Envoy quotes is left out."""

    def refuses(body: bytes) -> str:
        if b"0.0.0.0_9080" in body and b"bad" in body:
            return "no such prefix"
        made = Cluster()
        with contextlib.suppress(DecodeError):
            made.ParseFromString(body)
        zero = made.HasField("connect_timeout") and not made.connect_timeout.seconds and "reviews" in made.name
        return "goo.gle/debugproto\nname: x\n: Proto constraint validation failed (too short)" if zero else ""

    for name in ("reviews-1", "ratings-1"):
        (await plane.proxy(name)).refuses = refuses
    await plane.apply(_patches("0s", "bad"))
    partly = "False PartlyRefusedByProxies"
    await plane.reaches("envoyfilter", "patches", {"Accepted": partly, "Enforced": partly}, 20)

    def found() -> list[tuple[str, str]]:
        row = plane.store.get(plane.ref("envoyfilter", "patches"))
        assert row is not None
        listed = row.decode()["status"].get("findings", [])
        return [(each["path"], each["message"].rpartition(": ")[2]) for each in listed if each["code"] == "LTN0020"]

    wanted = {
        ("spec.configPatches[1]", "Proto constraint validation failed (too short)"),
        ("spec.configPatches[3]", "no such prefix"),
    }
    await plane.until(lambda: set(found()) == wanted)
    for proxy in plane.proxies:
        held = {name: Cluster.FromString(body) for name, body in proxy.held[CLUSTER].items()}
        for host, name in (("reviews", "good"), ("ratings", "fine")):
            assert held[f"outbound|9080||{host}.default.svc.cluster.local"].alt_stat_name == name
    await plane.reaches("envoyfilter", "patches", {"Programmed": "True Live"})
    await plane.apply(_patches("2s", "other"))
    await plane.reaches("envoyfilter", "patches", {"Accepted": "True Accepted", "Programmed": "True Live"})
    assert found() == []


async def test_a_proxy_that_alone_refuses_is_named(plane: Plane) -> None:
    await plane.proxy("reviews-1")
    odd = await plane.proxy("ratings-1")
    odd.refuses = lambda body: "out of memory" if b"reviews" in body else ""
    await plane.apply(route("a", "reviews", "7s"))
    await plane.reaches("vs", "a", {"Programmed": "False RefusedByProxies"}, 10)
    message = "live on 1 of 2 proxies; ratings-1.default refuses routes 9080: out of memory"
    assert plane.condition("vs", "a", "Programmed")["message"] == message
    assert plane.says("vs", "a")["Accepted"] == "True Accepted"


async def test_a_status_runs_no_query_and_is_written_once(plane: Plane) -> None:
    await plane.proxy("reviews-1")
    await plane.apply(route("a", "reviews"))
    await plane.reaches("vs", "a", GOOD)
    await asyncio.sleep(0.3)
    written, commits = plane.writer.written, plane.graph.revision
    with plane.graph.tracing() as ran:
        plane.writer._dirty.add(plane.ref("vs", "a"))
        plane.writer._woken.set()
        await asyncio.sleep(0.3)
        writer = StatusWriter(plane.store, plane.xds, return_s=0)
        await writer._round(returning=False)
    assert ran == []
    assert (plane.writer.written, writer.written, plane.graph.revision) == (written, 0, commits)


async def test_translation_runs_as_often_with_conditions_as_without(plane: Plane) -> None:
    await plane.proxy("reviews-1")
    await plane.apply(route("a", "reviews"))
    await plane.reaches("vs", "a", GOOD)
    with plane.graph.tracing() as ran:
        await plane.apply(route("a", "reviews", "9s"))
        await plane.reaches("vs", "a", GOOD)
        await asyncio.sleep(0.2)
    assert sum(each.startswith("port_configuration(") for each in ran) == 1
    assert sum(each.startswith("losses(") for each in ran) == 1


@pytest.mark.parametrize("objects", [200, pytest.param(1000, marks=pytest.mark.long)])
async def test_objects_that_change_all_the_time(plane: Plane, capsys: pytest.CaptureFixture[str], objects: int) -> None:
    """A hundred changes a second: conditions are right soon after the last, and cost no revision and no translation."""
    for name in ("reviews-1", "ratings-1"):
        await plane.proxy(name)
    await plane.apply("---".join(_host(number) for number in range(objects)))
    wrong = {f"h{number}" for number in range(objects)}

    def right() -> bool:
        wrong.difference_update([name for name in wrong if plane.says("vs", name) == GOOD])
        return not wrong

    await plane.until(right, 30)
    await plane.until(lambda: not plane.xds.touched())
    started, cpu = time.monotonic(), time.process_time()
    written, rounds, revision = plane.writer.written, plane.writer.rounds, plane.graph.revision
    applies = 0
    with plane.graph.tracing() as ran:
        for start in range(0, objects, 10):
            changed = [yaml.safe_load(_host(number, "2s")) for number in range(start, start + 10)]
            for each in changed:
                each["metadata"]["namespace"] = "default"
            await plane.store.write([Put(each) for each in changed])
            applies += 1
            await asyncio.sleep(max(0.0, started + (start + 10) / 100 - time.monotonic()))
        spent, took = time.process_time() - cpu, time.monotonic() - started
        wrong.update(f"h{number}" for number in range(objects))
        late = await plane.until(right, 10)
    revisions = plane.graph.revision - revision
    statuses = plane.writer.written - written
    with capsys.disabled():
        sys.stdout.write(
            f"\n  right {late:.2f} s after the last of {objects} changes in {took:.1f} s: "
            f"{statuses} statuses in {plane.writer.rounds - rounds} rounds, {spent:.1f} CPU-s in all"
        )
    assert revisions <= applies  # writing statuses made none
    assert objects <= statuses <= 3 * objects
    tables = [each for each in ran if each.startswith("port_configuration(")]
    assert 0 < len(tables) <= 2 * revisions  # two proxies with a table each, made at most once for each revision
    assert len([each for each in ran if each.startswith("rule_routes(")]) <= objects


async def test_a_thousand_objects_at_once(plane: Plane) -> None:
    await plane.proxy("reviews-1")
    for start in range(0, 1000, 250):
        await plane.apply("---".join(_host(number) for number in range(start, start + 250)))
    assert await plane.until(lambda: all(plane.says("vs", f"h{n}") == GOOD for n in range(1000)), 60) < 50
    assert plane.writer.written < 5000
