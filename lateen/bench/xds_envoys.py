"""A few real sidecars beside the simulated ones: they confirm that a change gets into Envoy.

Each is an Envoy with lateen's bootstrap in a network of its own, its traffic redirected; it reaches the server under
test through a Unix socket, and gets a certificate from lateen's secret service.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from lateen.bench.envoys import Envoy
from lateen.bench.host import BenchError
from lateen.bench.network import Cable
from lateen.bench.xds_mesh import HTTP, address_of, client_of, namespace_of
from lateen.lib.keypair import new_request
from lateen.lib.spiffe import SpiffeId
from lateen.node.bootstrap import BootstrapSpec, XdsAddress, argv, bootstrap, write_bootstrap
from lateen.node.envoy import envoy_binary
from lateen.node.identity import from_answer
from lateen.node.sds import SecretServer
from lateen.security.ca_files import open_ca
from lateen.security.peer import PeerIdentity

SEEN_S: Final = 60.0
_LOOK_S: Final = 0.005


class RealSidecars:
    """Envoys as the sidecars of some workloads; `directory` must be short: it holds sockets."""

    def __init__(
        self, directory: Path, target: str, numbers: Sequence[int], *, on_demand: bool, stack: ExitStack
    ) -> None:
        self._target = target
        self._directory = directory
        self._sds = SecretServer("bench")
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        thread.start()
        stack.callback(thread.join, 10)
        stack.callback(self._loop.call_soon_threadsafe, self._stop.set)
        if not self._started.wait(30):
            raise BenchError("the secret service of the real sidecars does not start", remedy="run it again")
        self._envoys: list[tuple[Envoy, Cable]] = []
        for number in numbers:
            cable = stack.enter_context(Cable(redirected=True))
            envoy = self._envoy(number, cable, on_demand=on_demand)
            stack.callback(envoy.close)
            self._envoys.append((envoy, cable))
        for envoy, _ in self._envoys:
            envoy.wait_live()

    def __len__(self) -> int:
        return len(self._envoys)

    def call(self, host: str, address: str) -> None:
        """Lets each workload call a service, so that its proxy asks for it. Nobody answers there."""
        for _, cable in self._envoys:
            command = ["curl", "-s", "-o", "/dev/null", "-m", "2", "-H", f"host: {host}", f"http://{address}:{HTTP}/"]
            subprocess.run([*cable.client, *command], check=False)

    def endpoints(self, host: str) -> list[set[str]]:
        """The addresses that each has for a service's HTTP port."""
        found: list[set[str]] = []
        for envoy, _ in self._envoys:
            lines = envoy.ask(f"/clusters?filter=%5Eoutbound%5C%7C{HTTP}%5C%7C%5C%7C{host}$").splitlines()
            found.append({each.split("::")[1].rpartition(":")[0] for each in lines if each.count("::") == 3})
        return found

    def knows(self, text: str) -> list[bool]:
        """Whether a text is in the route tables of each."""
        dumps = (each.ask("/config_dump?resource=dynamic_route_configs") for each, _ in self._envoys)
        return [text in dump for dump in dumps]

    def until(self, seen: Callable[[], bool]) -> float:
        """When that held, in seconds since the epoch. BenchError when it does not come about."""
        end = time.monotonic() + SEEN_S
        while not seen():
            if time.monotonic() > end:
                raise BenchError(
                    f"real Envoys do not have the change after {SEEN_S:.0f} s", remedy="see the rows above"
                )
            time.sleep(_LOOK_S)
        return time.time()

    def _envoy(self, number: int, cable: Cable, *, on_demand: bool) -> Envoy:
        name, namespace = client_of(number), namespace_of(number)
        admin, config = self._directory / f"{name}.sock", self._directory / f"{name}.json"
        spec = BootstrapSpec(
            pod=name,
            namespace=namespace,
            ip=address_of(number),
            xds=XdsAddress(path=str(self._directory / "xds.sock"), tls=False),
            sds_path=str(self._directory / "sds.sock"),
            admin_path=str(admin),
            labels={"app": name},
        )
        document = bootstrap(spec)
        if not on_demand:
            document["node"]["metadata"]["LATEEN_ON_DEMAND"] = "false"
        write_bootstrap(document, config)
        return Envoy(argv(spec, envoy_binary(), config), admin, self._directory / f"{name}.log", cable.client)

    async def _serve(self) -> None:
        key, csr = new_request()
        authority = open_ca(self._directory / "ca")
        answer = authority.issue(csr, PeerIdentity(spiffe=SpiffeId("cluster.local", "default", "default")))
        self._sds.update(from_answer(key, (*answer, authority.trust_pem)))
        await self._sds.start(self._directory / "sds.sock")
        relay = await asyncio.start_unix_server(self._relay, str(self._directory / "xds.sock"))
        self._started.set()
        await self._stop.wait()
        relay.close()
        await self._sds.stop()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))

        async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(1 << 16):
                    to.write(data)
                    await to.drain()
            except ConnectionError:
                pass
            finally:
                to.close()

        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
