"""WorkloadGroup, field by field: what proxies do with the entry of a machine of the group, and what its probe does.

The machine stands at the address of `outside-1`; for probes it is this host, with servers of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from typing import Any

import grpc.aio
import msgspec
import yaml

from lateen.api.codec import decode
from lateen.api.istio.workload_group import WorkloadGroup
from lateen.model.registration import entry_document, entry_name
from lateen.node.probes import Probe, attempt, watch
from tests.coverage.case import Case, Json, Refusal, new
from tests.coverage.cases.service_entry import HTTP, entry, everybody, part, rule, who

KIND = "WorkloadGroup"
MACHINE = "10.88.3.1"
SECURED = "10.88.3.2"
"""Who answers there has the certificate of the account `default`."""
HERE = f"127.77.{os.getpid() % 250 + 1}.1"
"""Where the test's servers listen: others run the same test."""
ELSEWHERE = "127.78.0.1"
"""Nobody listens there."""
HTTP_PORT, GRPC_PORT = 18080, 18090
PLAIN: Json = {"app": "machine", "security.istio.io/tlsMode": "disabled"}
SELECTING = yaml.safe_dump(entry(workloadSelector={"labels": {"app": "machine"}}, endpoints=None)) + "---\n"


def seen(document: Json) -> Json:
    """What proxies see of a document: of a group, the entry of its machine."""
    if document["kind"] != KIND:
        return document
    return entry_document(_group(document), SECURED if document["metadata"]["name"] == "secured" else MACHINE)


def refusals() -> Iterator[Refusal]:
    yield Refusal(KIND, "spec.template.address", group(), MACHINE, "LTN0006")


def cases() -> Iterator[Case]:
    yield from _traffic()
    yield _looking("template.network", group(), "west", _name, f"machine-{MACHINE}", f"machine-{MACHINE}-west")
    yield from _handlers()
    yield from _times()


def group(probe: Json | None = None, **template: Any) -> Json:
    spec: Json = {"template": {"labels": PLAIN, **template}, **({"probe": probe} if probe else {})}
    return new(KIND, "machine", spec)


def _group(document: Json) -> WorkloadGroup:
    made = decode(document)
    assert isinstance(made, WorkloadGroup)
    return made


def _name(document: Json) -> str:
    return entry_name(_group(document), MACHINE)


def _traffic() -> Iterator[Case]:
    def case(place: str, document: Json, value: Any, probe: Any, before: Any, after: Any, beside: str = "") -> Case:
        return Case(KIND, f"spec.{place}", document, value, probe, before, after, SELECTING + beside)

    one, two, nobody = "outside-1", "outside-2", 503
    yield case("template.labels{app}", group(), "other", who(), one, nobody)
    common = new(KIND, "machine", {"metadata": {"labels": PLAIN, "annotations": {}}, "template": {}})
    yield case("metadata.labels{app}", common, "other", who(), one, nobody)
    annotation = "metadata.annotations{proxy.istio.io/health-checks-enabled}"
    yield case(annotation, common, "true", who(), one, nobody)
    yield case("template.ports{http}", group(), 9082, part("port"), 9080, 9082)
    other: Json = {"address": "10.88.3.2", "labels": {"app": "machine"}, "locality": "east/b"}
    beside = yaml.safe_dump(new("WorkloadEntry", "other", other)) + "---\n"
    all_of_them = everybody()
    near = rule(trafficPolicy={"outlierDetection": {"consecutive5xxErrors": 100}})
    yield case("template.locality", group(locality="east/a"), "north/n", all_of_them, (one,), (two,), beside + near)
    yield case("template.weight", group(weight=1, locality="east/b"), 100_000, all_of_them, (one, two), (one,), beside)
    mutual = rule(trafficPolicy={"tls": {"mode": "ISTIO_MUTUAL"}})
    named = entry(
        workloadSelector={"labels": {"app": "machine"}},
        endpoints=None,
        ports=[{**HTTP, "targetPort": 443}],
        location="MESH_INTERNAL",
    )
    yield Case(
        KIND,
        "spec.template.serviceAccount",
        new(KIND, "secured", {"template": {"labels": {"app": "machine"}, "serviceAccount": "default"}}),
        "other",
        part("tls"),
        True,
        None,
        yaml.safe_dump(named) + "---\n" + mutual,
    )


# -- probes -----------------------------------------------------------------------------------------------------


def _looking(place: str, document: Json, value: Any, look: Any, before: Any, after: Any) -> Case:
    return Case(KIND, f"spec.{place}", document, value, lambda _: None, before, after, look=look)


def _handlers() -> Iterator[Case]:
    def case(place: str, probe: Json, value: Any, before: str, after: str) -> Case:
        return _looking(f"probe.{place}", group({"timeoutSeconds": 3, **probe}), value, _attempted, before, after)

    def get(**more: Any) -> Json:
        return {"httpGet": {"port": HTTP_PORT, "path": "/good", **more}}

    refused, good = "Connection refused", ""
    yield case("exec.command[0]", {"exec": {"command": ["true"]}}, "false", good, "exit code 1")
    yield case("httpGet.port", get(), HTTP_PORT + 1, good, refused)
    yield case("httpGet.host", get(), ELSEWHERE, good, refused)
    yield case("httpGet.path", get(), "/bad", good, "HTTP status 500")
    yield case("httpGet.scheme", get(), "HTTPS", good, "TLS failed")
    header = {"path": "/header", "httpHeaders": [{"name": "x-key", "value": "right"}]}
    yield case("httpGet.httpHeaders[0].name", get(**header), "x-other", good, "HTTP status 403")
    yield case("httpGet.httpHeaders[0].value", get(**header), "wrong", good, "HTTP status 403")
    yield case("tcpSocket.port", {"tcpSocket": {"port": HTTP_PORT}}, HTTP_PORT + 1, good, refused)
    yield case("tcpSocket.host", {"tcpSocket": {"port": HTTP_PORT}}, ELSEWHERE, good, refused)
    yield case("grpc.port", {"grpc": {"port": GRPC_PORT}}, GRPC_PORT + 1, good, "gRPC UNAVAILABLE")
    yield case("grpc.service", {"grpc": {"port": GRPC_PORT}}, "ill", good, "not SERVING")
    yield case("timeoutSeconds", get(path="/slow"), 1, good, "no answer in 1 s")


def _times() -> Iterator[Case]:
    def case(place: str, value: int, before: Any, after: Any, command: str = "true", **more: int) -> Case:
        document = group({"exec": {"command": [command]}, "periodSeconds": 100, place: 1, **more})
        return _looking(f"probe.{place}", document, value, _watched, before, after)

    once, twice = ((0,), True), ((0, 100), True)
    yield case("initialDelaySeconds", 300, once, ((300,), True))
    yield case("periodSeconds", 300, twice, ((0, 300), True), periodSeconds=100, successThreshold=2)
    yield case("successThreshold", 2, once, twice)
    yield case("failureThreshold", 2, ((0,), False), ((0, 100), False), command="false")


def _probe(document: Json) -> Probe:
    return msgspec.convert(document["spec"]["probe"], Probe)


def _attempted(document: Json) -> str:
    """What one attempt says, with this host as the machine."""

    async def run() -> str:
        http = await asyncio.start_server(_answer, HERE, HTTP_PORT)
        health = grpc.aio.server()
        handlers: dict[str, Any] = {"Check": grpc.unary_unary_rpc_method_handler(_check)}
        health.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
        health.add_insecure_port(f"{HERE}:{GRPC_PORT}")
        await health.start()
        try:
            why = await attempt(_probe(document), HERE)
            return why.partition(":")[0] if why.startswith("TLS") else why
        finally:
            http.close()
            await health.stop(None)

    return asyncio.run(run())


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.read(4096)).decode("latin-1")
    path = head.split(" ")[1] if head.startswith("GET ") else ""
    if path == "/slow":
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                await reader.read()
    good = path in ("/good", "/slow") or (path == "/header" and "x-key: right" in head)
    status = "200 OK" if good else "403 No" if path == "/header" else "500 Bad"
    writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())
    writer.close()


async def _check(request: bytes, _context: object) -> bytes:
    return b"\x08\x02" if b"ill" in request else b"\x08\x01"


def _watched(document: Json) -> tuple[tuple[int, ...], bool]:
    """The waits before the attempts that led to the first verdict, to the hundred seconds, and the verdict. Nobody
    waits for real."""
    waits: list[int] = []
    verdicts: list[tuple[tuple[int, ...], bool]] = []

    async def run() -> None:
        done = asyncio.Event()

        async def sleep(seconds: float) -> None:
            waits.append(round(seconds / 100) * 100)
            await asyncio.sleep(0)

        def changed(healthy: bool, _why: str) -> None:
            verdicts.append((tuple(waits), healthy))
            done.set()

        task = asyncio.create_task(watch(_probe(document), HERE, changed, sleep))
        await done.wait()
        task.cancel()

    asyncio.run(run())
    return verdicts[0]
