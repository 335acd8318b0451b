"""A real control plane with Pods in two namespaces, and callers with their certificates, or with others."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from lateen.lib.keypair import new_request
from lateen.lib.signing import SERVER_NAMES
from lateen.security.client import CertificateClient, unix_target
from lateen.security.client import ControlPlane as Targets
from tests.unit.daemon.test_controlplane import ControlPlane, free_port

Json = dict[str, Any]

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
KEY = "-----BEGIN PRIVATE KEY-----\nsecret of the shop\n-----END PRIVATE KEY-----\n"


class Attacked(ControlPlane):
    """The control plane and what its Pods hold: `shop/gateway-1` and `bank/vault-1`."""

    def __init__(self, directory: Path, **more: Any) -> None:
        vm = {"vm_host": own_address(), "vm_login_port": free_port(), "vm_gateway_port": 0}
        super().__init__(directory, **vm, **more)
        self.uids: dict[str, str] = {}
        self._identities: dict[str, tuple[str, str]] = {}

    @property
    def xds(self) -> str:
        """Its mutual TLS port."""
        return f"127.0.0.1:{self.settings.xds_port}"

    async def populate(self) -> None:
        """Makes the Pods with their accounts, and a gateway's secret in `shop`."""
        for namespace, name in (("shop", "gateway"), ("bank", "vault")):
            await self.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
            metadata = {"name": name, "namespace": namespace}
            await self.client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
            pod: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "name": f"{name}-1"}}
            pod["spec"] = {"serviceAccountName": name, "containers": [{"name": "c", "command": ["true"]}]}
            self.uids[namespace] = (await self.client.create(pod))["metadata"]["uid"]
        secret = {"tls.crt": "certificate of the shop", "tls.key": KEY}
        metadata = {"name": "edge", "namespace": "shop"}
        await self.client.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": secret})

    async def token(self, namespace: str, **changed: Any) -> str:
        """A token of the namespace's Pod."""
        name = {"shop": "gateway", "bank": "vault"}[namespace]
        bound = {"kind": "Pod", "name": f"{name}-1", "uid": self.uids[namespace]}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        return (await self.client.post(path, {"spec": {"boundObjectRef": bound, **changed}}))["status"]["token"]

    @property
    def signer(self) -> CertificateClient:
        """The client of its CA."""
        target = unix_target(self.layout.run / "ca.sock")
        return CertificateClient(Targets(target, self.xds, self.layout.ca / "root-cert.pem"))

    @property
    def login(self) -> CertificateClient:
        """The client of its CA at the port where machines log in."""
        target = f"{self.settings.vm_host}:{self.settings.vm_login_port}"
        return CertificateClient(Targets(target, self.xds, self.layout.ca / "root-cert.pem"))

    async def identity(self, namespace: str) -> tuple[str, str]:
        """Key and chain of the namespace's Pod, got once."""
        if namespace not in self._identities:
            key, csr = new_request()
            chain = await self.signer.sign(csr, token=await self.token(namespace))
            self._identities[namespace] = (key, "".join(chain[:-1]))
        return self._identities[namespace]

    @asynccontextmanager
    async def channel(self, key: str = "", chain: str = "", roots: str = "") -> AsyncIterator[grpc.aio.Channel]:
        """A connection to the mutual TLS port."""
        trusted = roots or (self.layout.ca / "root-cert.pem").read_text()
        pair = (key.encode() or None, chain.encode() or None)
        credentials = grpc.ssl_channel_credentials(trusted.encode(), *pair)
        options = (("grpc.ssl_target_name_override", SERVER_NAMES[0]),)
        async with grpc.aio.secure_channel(self.xds, credentials, options=options) as channel:
            yield channel

    @asynccontextmanager
    async def open_stream(self, channel: grpc.aio.Channel, node: str) -> AsyncIterator[None]:
        """A stream that has got its clusters and stays."""
        request = DeltaDiscoveryRequest(type_url=CLUSTER)
        request.node.id = node
        call = channel.stream_stream(ADS, DeltaDiscoveryRequest.SerializeToString, DeltaDiscoveryResponse.FromString)()
        await call.write(request)
        assert isinstance(await asyncio.wait_for(call.read(), 30), DeltaDiscoveryResponse)
        try:
            yield
        finally:
            call.cancel()

    async def ask(
        self, channel: grpc.aio.Channel, node: str, type_url: str, *names: str, **metadata: str
    ) -> DeltaDiscoveryResponse:
        """The first answer on a new stream; AioRpcError when it is refused."""
        request = DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=names)
        request.node.id = node
        for name, value in metadata.items():
            request.node.metadata[name] = value
        call = channel.stream_stream(ADS, DeltaDiscoveryRequest.SerializeToString, DeltaDiscoveryResponse.FromString)()
        try:
            async with asyncio.timeout(30):
                await call.write(request)
                answer = await call.read()
                if not isinstance(answer, DeltaDiscoveryResponse):
                    raise grpc.aio.AioRpcError(await call.code(), grpc.aio.Metadata(), grpc.aio.Metadata())
                return answer
        finally:
            call.cancel()

    async def lateen(self, *arguments: str, code: int = 0) -> str:
        """What a command prints about this mesh, both streams. AssertionError for another exit code."""
        settings = self.settings
        names = ("name", "state_dir", "run_dir")
        where = {f"LATEEN_{each.upper()}": str(getattr(settings, each)) for each in names}
        command = [sys.executable, "-m", "lateen.cli.main", *arguments]
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            env={**os.environ, **where},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    async def bind(self, role: str, subject: Json, namespace: str = "") -> None:
        """Gives somebody a role, everywhere or in a namespace."""
        group = "rbac.authorization.k8s.io"
        binding: Json = {"apiVersion": f"{group}/v1", "kind": "RoleBinding" if namespace else "ClusterRoleBinding"}
        name = re.sub("[^a-z0-9-]", "-", f"{role}-{subject.get('namespace', '')}-{subject['name']}".lower())
        binding["metadata"] = {"name": name, **({"namespace": namespace} if namespace else {})}
        binding["roleRef"] = {"apiGroup": group, "kind": "ClusterRole", "name": role}
        binding["subjects"] = [subject if subject["kind"] == "ServiceAccount" else {"apiGroup": group, **subject}]
        await self.client.create(binding)

    async def account_token(self, namespace: str, name: str, *roles: str) -> str:
        """A token for the API of a service account that is made with some roles everywhere."""
        account = {"kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        await self.client.create({"apiVersion": "v1", **account})
        for role in roles:
            await self.bind(role, {"kind": "ServiceAccount", "name": name, "namespace": namespace})
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        return (await self.client.post(path, {"spec": {}}))["status"]["token"]

    @property
    def open_files(self) -> int:
        """How many files and connections the process has open now."""
        assert self.process is not None
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def memory_kb(self) -> int:
        """What the process holds now."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def own_address() -> str:
    """An address of this machine that is not loopback, empty when there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # nothing is sent
        except OSError:
            return ""
        return probe.getsockname()[0]


@asynccontextmanager
async def attacked(**settings: Any) -> AsyncIterator[Attacked]:
    """A running one, with its Pods and more settings."""
    with tempfile.TemporaryDirectory(prefix="ltn-", dir="/tmp") as directory:
        plane = Attacked(Path(directory), **settings)
        await plane.up()
        try:
            await plane.populate()
            yield plane
        finally:
            await plane.client.close()
            plane.kill()
