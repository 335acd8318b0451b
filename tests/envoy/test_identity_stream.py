"""lateen's bootstrap on the real Envoy: it reaches the control plane with the Pod's certificate and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import httpx
import msgspec
import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from lateen.lib.layout import Layout
from lateen.node.bootstrap import BootstrapSpec, Locality, XdsAddress, argv, bootstrap, write_bootstrap
from lateen.node.envoy import envoy_binary
from lateen.security.peer import PeerIdentity, peer_of
from tests.envoy.harness import Envoy
from tests.envoy.identities import Signing, agent_process, static, until

Context = grpc.aio.ServicerContext[DeltaDiscoveryRequest, DeltaDiscoveryResponse]


class Ads:
    """An ADS server that has nothing of what it is asked for, and remembers who came and as what."""

    def __init__(self) -> None:
        self.callers: list[PeerIdentity | None] = []
        self.nodes: list[str] = []
        self.handler = grpc.method_handlers_generic_handler(
            "envoy.service.discovery.v3.AggregatedDiscoveryService",
            {
                "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(
                    self._stream, DeltaDiscoveryRequest.FromString, DeltaDiscoveryResponse.SerializeToString
                )
            },
        )

    async def _stream(
        self, requests: AsyncIterator[DeltaDiscoveryRequest], context: Context
    ) -> AsyncIterator[DeltaDiscoveryResponse]:
        self.callers.append(peer_of(context))
        nonce = 0
        async for request in requests:
            if request.node.id:
                self.nodes.append(request.node.id)
            if not request.response_nonce:
                nonce += 1
                asked = [name for name in request.resource_names_subscribe if name != "*"]
                yield DeltaDiscoveryResponse(type_url=request.type_url, nonce=str(nonce), removed_resources=asked)


def _spec(layout: Layout, pod: dict[str, str], **changed: object) -> BootstrapSpec:
    values: dict[str, object] = {
        "pod": pod["name"],
        "namespace": "default",
        "ip": "10.88.0.9",
        "xds": XdsAddress(path=str(layout.xds_socket)),
        "sds_path": pod["sds_socket"],
        "admin_path": str(layout.pod(pod["uid"]) / "admin.sock"),
        "status_port": None,
        "metrics_port": None,
        "mark": None,
    }
    return msgspec.convert(values | changed, BootstrapSpec)


async def test_the_stream_is_authenticated_both_ways(layout: Layout) -> None:
    signing, ads = Signing(layout), Ads()
    await signing.start(ads.handler)
    pod = signing.pod("web", revision="v2")
    try:
        async with agent_process(layout) as agent:
            await agent.add(pod)
            envoy = Envoy(bootstrap(_spec(layout, pod)), layout.pod(pod["uid"]))
            try:
                await asyncio.to_thread(envoy.wait_live)
                assert ads.callers == [signing.pods[pod["uid"]]]
                assert ads.nodes == ["sidecar~10.88.0.9~web-1.default~default.svc.cluster.local"]

                # The control plane goes and comes back: the proxy is there again within its short back-off.
                await signing.stop()
                await signing.start(ads.handler)

                async def back() -> bool:
                    return len(ads.callers) >= 2

                await until(back)
                assert ads.callers[-1] == signing.pods[pod["uid"]]
            finally:
                envoy.stop()
    finally:
        await signing.stop()


async def test_a_server_that_is_not_the_control_plane_is_refused(layout: Layout) -> None:
    """The right CA but a workload's certificate: another Pod that got hold of the socket."""
    signing, ads = Signing(layout), Ads()
    await signing.start()
    pod, other = signing.pod("web"), signing.pod("other")
    try:
        async with agent_process(layout) as agent:
            await agent.add(pod)
            await agent.add(other)
            kept = layout.pod(other["uid"]) / "identity.json"

            async def there() -> bool:
                return kept.exists()

            await until(there)
            identity = msgspec.json.decode(kept.read_bytes())
            server = grpc.aio.server()
            server.add_generic_rpc_handlers((ads.handler,))
            credentials = grpc.ssl_server_credentials([(identity["key"].encode(), identity["chain"].encode())])
            path = layout.run / "false.sock"
            server.add_secure_port(f"unix:{path}", credentials)
            await server.start()
            envoy = Envoy(bootstrap(_spec(layout, pod, xds=XdsAddress(path=str(path)))), layout.pod(pod["uid"]))
            try:

                async def refused() -> bool:
                    try:
                        return envoy.stat("cluster.xds-grpc.ssl.fail_verify_san") > 0
                    except OSError:
                        return False

                await until(refused)
                assert ads.callers == []
            finally:
                envoy.stop()
                await server.stop(None)
    finally:
        await signing.stop()


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"kind": "router", "host_sockets": {8080: "/run/a.sock", 8443: "/run/b.sock"}, "concurrency": 2},
        {"xds": XdsAddress(host="127.0.0.1", port=15010, tls=False), "sds_path": ""},
        {"xds": XdsAddress(host="control.example.com", port=15012), "locality": Locality("r", "z", "s")},
        {"mark": 0x539, "status_port": 15021, "metrics_port": 15090, "labels": {"app": "web"}, "network": "n1"},
    ],
)
async def test_envoy_accepts_every_form(layout: Layout, changed: dict[str, object]) -> None:
    spec = _spec(layout, {"name": "web-1", "uid": "u", "sds_socket": str(layout.run / "sds.sock")}, **changed)
    config = layout.run / "envoy.json"
    write_bootstrap(bootstrap(spec), config)
    assert config.stat().st_mode & 0o777 == 0o600
    command = [*argv(spec, envoy_binary(), config), "--mode", "validate"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "warning" not in output.decode()


async def test_status_and_metrics_are_the_only_paths_of_their_ports(layout: Layout) -> None:
    spec = _spec(layout, {"name": "web-1", "uid": "u", "sds_socket": ""}, status_port=28021, metrics_port=28090)
    spec = msgspec.structs.replace(spec, xds=XdsAddress(host="127.0.0.1", port=1, tls=False))
    directory = layout.pod("u")
    directory.mkdir(parents=True)
    document = static(bootstrap(spec), [], [])
    for listener in document["static_resources"]["listeners"]:
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    envoy = Envoy(document, directory)
    try:
        await asyncio.to_thread(envoy.wait_live)
        statuses = msgspec.json.decode(envoy.admin("/listeners", format="json"))["listener_statuses"]
        ports = {each["name"]: each["local_address"]["socket_address"]["port_value"] for each in statuses}
        async with httpx.AsyncClient() as client:
            for name, path, good in (
                ("status", "/healthz/ready", 200),
                ("status", "/quitquitquit", 404),
                ("status", "/healthz/ready/../../config_dump", 404),
                ("metrics", "/stats/prometheus", 200),
                ("metrics", "/config_dump", 404),
            ):
                url = f"http://127.0.0.1:{ports[name]}{path}"
                assert (await client.get(url)).status_code == good, url
    finally:
        envoy.stop()
