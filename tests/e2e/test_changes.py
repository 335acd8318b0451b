"""Changes under load: rules that change every second, how fast one reaches traffic, Pods that are replaced."""

from __future__ import annotations

import asyncio
import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import lateen.demo
from lateen.apiserver.applying import apply_files
from lateen.apiserver.client import Client
from lateen.bench.load import Load, Report, run
from tests.e2e.conftest import sample
from tests.e2e.mesh import Mesh, say

REVIEWS = "/api/v1/products/0/reviews"
BY_VERSION = r"text:reviews-(v\d)"
Json = dict[str, Any]


def all_to(version: str) -> str:
    """Every request for reviews to one version."""
    route = [{"destination": {"host": "reviews", "subset": version}}]
    return json.dumps(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "reviews", "namespace": "default"},
            "spec": {"hosts": ["reviews"], "http": [{"route": route}]},
        }
    )


async def flip(client: Client, version: str) -> None:
    result = await apply_files(client, [("flip.json", all_to(version))])
    assert result.applied, result.findings


async def flips_each_second(mesh: Mesh, seconds: int) -> Report:
    """Load for that long while reviews alternate between v1 and v3 at each second of the load."""
    async with Client(mesh.settings.layout().api_socket) as client:
        await flip(client, "v1")
        await asyncio.sleep(1)
        load = Load(
            url=mesh.url + REVIEWS, connections=4, duration_s=seconds, rate=150, group_by=BY_VERSION, timeout_s=10
        )
        running = asyncio.create_task(run(load))
        started = time.monotonic()
        for second in range(1, seconds):
            await asyncio.sleep(max(0, started + second - time.monotonic()))
            await flip(client, ("v1", "v3")[second % 2])
        return await running


@pytest.mark.timeout(150)
@pytest.mark.parametrize("seconds", [20, pytest.param(60, marks=pytest.mark.long)])
def test_a_change_each_second_is_seen_and_no_request_fails(
    bookinfo: Mesh, capsys: pytest.CaptureFixture[str], seconds: int
) -> None:
    bookinfo.apply(sample("destination-rule-all"))
    report = asyncio.run(flips_each_second(bookinfo, seconds))
    say(capsys, *report.lines())
    assert report.failed == 0, report.lines()
    # the second before had the other version, so one answer of the new one shows that second's change
    unseen = [each.second for each in report.seconds[:seconds] if ("v1", "v3")[each.second % 2] not in each.groups]
    assert not unseen


async def delays(mesh: Mesh, count: int) -> tuple[list[float], int]:
    """Seconds from the start of each apply to the first request that went the new way, and requests that failed."""
    found: list[float] = []
    failed = 0
    one = Load(url=mesh.url + REVIEWS, connections=1, requests=1, group_by=BY_VERSION)
    async with Client(mesh.settings.layout().api_socket) as client:
        await flip(client, "v3")
        await asyncio.sleep(1)
        for number in range(count):
            version = ("v1", "v3")[number % 2]
            started = time.monotonic()
            applying = asyncio.create_task(flip(client, version))
            while True:
                asked = time.monotonic()
                report = await run(one)
                failed += report.failed
                if version in report.groups:
                    found.append(asked - started)
                    break
                assert time.monotonic() - started < 10, f"{version} never came"
            await applying
    return found, failed


@pytest.mark.timeout(150)
def test_a_change_reaches_traffic_in_a_fifth_of_a_second(bookinfo: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    bookinfo.apply(sample("destination-rule-all"))
    found, failed = asyncio.run(delays(bookinfo, 100))
    ordered = sorted(found)
    say(capsys, f"apply to traffic: p50 {statistics.median(found) * 1000:.0f} ms, p99 {ordered[98] * 1000:.0f} ms")
    assert failed == 0
    assert statistics.median(found) < 2  # ten times the stated figure: machines are busy at times


def again(name: str, number: int) -> Json:
    """The demo's Deployment of that name with a changed Pod template."""
    documents = yaml.safe_load_all((Path(lateen.demo.__file__).parent / "bookinfo.yaml").read_text())
    (found,) = (each for each in documents if each["kind"] == "Deployment" and each["metadata"]["name"] == name)
    changed = copy.deepcopy(found)
    annotations = changed["spec"]["template"]["metadata"].setdefault("annotations", {})
    annotations["example.com/rollout"] = str(number)
    return changed


async def rollouts(mesh: Mesh, names: list[str], path: str) -> Report:
    """Load on a path until each Deployment has been replaced."""
    load, stop = Load(url=mesh.url + path, connections=4, rate=100, timeout_s=10), asyncio.Event()
    async with Client(mesh.settings.layout().api_socket) as client:
        running = asyncio.create_task(run(load, stop))
        for number, name in enumerate(names):
            document = again(name, number)
            namespace = document["metadata"].get("namespace", "default")
            before = {each["metadata"]["name"] for each in await client.list("Pod", namespace)}
            assert (await apply_files(client, [("rollout.json", json.dumps(document))])).applied
            async with asyncio.timeout(30):
                while True:
                    await asyncio.sleep(0.05)
                    pods = [
                        each
                        for each in await client.list("Pod", namespace)
                        if each["metadata"]["name"].startswith(f"{name}-")
                    ]
                    if len(pods) == 1 and pods[0]["metadata"]["name"] not in before:
                        break
        await asyncio.sleep(1)
        stop.set()
        return await running


@pytest.mark.parametrize(
    ("names", "path"),
    [
        (["reviews-v1", "reviews-v2", "reviews-v3", "ratings-v1"], REVIEWS),
        (["details-v1", "productpage-v1"], "/api/v1/products/0"),
        (["istio-ingressgateway"], "/api/v1/products"),
    ],
)
def test_a_rolling_update_costs_no_request(bookinfo: Mesh, names: list[str], path: str) -> None:
    report = asyncio.run(rollouts(bookinfo, names, path))
    assert report.requests > 100
    assert report.failed == 0, report.lines()
