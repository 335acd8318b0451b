"""Sidecars for a server of xDS in plaintext: real Envoys with lateen's bootstrap, each in a network of its own.

They reach the server under test through a Unix socket, and get their certificates from lateen's secret service.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from lateen.bench.envoys import Envoy
from lateen.bench.host import BenchError
from lateen.lib.keypair import new_request
from lateen.lib.spiffe import SpiffeId
from lateen.node.bootstrap import BootstrapSpec, XdsAddress, argv, bootstrap, write_bootstrap
from lateen.node.envoy import envoy_binary
from lateen.node.identity import from_answer
from lateen.node.sds import SecretServer
from lateen.security.ca_files import open_ca
from lateen.security.peer import PeerIdentity


class LocalSidecars:
    """What Envoys need beside them. `directory` must be short: it holds sockets. `target` is HOST:PORT of the xDS
    server; all have the certificate of the account `default` of one namespace."""

    def __init__(self, directory: Path, target: str, namespace: str, stack: ExitStack) -> None:
        self._directory, self._target, self._namespace, self._stack = directory, target, namespace, stack
        self._sds = SecretServer("bench")
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        thread.start()
        stack.callback(self._loop.close)
        stack.callback(thread.join, 10)
        stack.callback(self._loop.call_soon_threadsafe, self._stop.set)
        if not self._started.wait(30):
            raise BenchError("the secret service of the sidecars does not start", remedy="run it again")

    def start(
        self,
        name: str,
        namespace: str,
        address: str,
        host: Sequence[str],
        *,
        labels: Mapping[str, str] | None = None,
        on_demand: bool = True,
    ) -> Envoy:
        """The sidecar of a Pod, in a host; it is not live yet."""
        admin, config = self._directory / f"{name}.sock", self._directory / f"{name}.json"
        spec = BootstrapSpec(
            pod=name,
            namespace=namespace,
            ip=address,
            xds=XdsAddress(path=str(self._directory / "xds.sock"), tls=False),
            sds_path=str(self._directory / "sds.sock"),
            admin_path=str(admin),
            labels=labels or {"app": name},
        )
        document = bootstrap(spec)
        if not on_demand:
            document["node"]["metadata"]["LATEEN_ON_DEMAND"] = "false"
        config.unlink(missing_ok=True)
        write_bootstrap(document, config)
        envoy = Envoy(argv(spec, envoy_binary(), config), admin, self._directory / f"{name}.log", host)
        self._stack.callback(envoy.close)
        return envoy

    async def _serve(self) -> None:
        key, csr = new_request()
        authority = open_ca(self._directory / "ca")
        answer = authority.issue(csr, PeerIdentity(spiffe=SpiffeId("cluster.local", self._namespace, "default")))
        self._sds.update(from_answer(key, (*answer, authority.trust_pem)))
        await self._sds.start(self._directory / "sds.sock")
        relay = await asyncio.start_unix_server(self._relay, str(self._directory / "xds.sock"))
        self._started.set()
        await self._stop.wait()
        relay.close()
        await self._sds.stop()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target.rpartition(":")
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:  # the server is away: Envoy tries again
            writer.close()
            return
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(1 << 16):
            to.write(data)
            await to.drain()
    except ConnectionError:
        pass
    finally:
        to.close()
