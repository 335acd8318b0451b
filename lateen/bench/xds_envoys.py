"""A few real sidecars beside the simulated ones: they confirm that a change gets into Envoy."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from lateen.bench.host import BenchError
from lateen.bench.local_sidecars import LocalSidecars
from lateen.bench.network import Cable
from lateen.bench.xds_mesh import HTTP, address_of, client_of, namespace_of

SEEN_S: Final = 60.0
_LOOK_S: Final = 0.005


class RealSidecars:
    """Envoys as the sidecars of some workloads, live; `directory` must be short: it holds sockets."""

    def __init__(
        self, directory: Path, target: str, numbers: Sequence[int], *, on_demand: bool, stack: ExitStack
    ) -> None:
        sidecars = LocalSidecars(directory, target, namespace_of(numbers[0]), stack)
        self._cables = [stack.enter_context(Cable(redirected=True)) for _ in numbers]
        self._envoys = [
            sidecars.start(client_of(each), namespace_of(each), address_of(each), cable.client, on_demand=on_demand)
            for each, cable in zip(numbers, self._cables, strict=True)
        ]
        for envoy in self._envoys:
            envoy.wait_live()

    def call(self, host: str, address: str) -> None:
        """Lets each workload call a service, so that its proxy asks for it. Nobody answers there."""
        for cable in self._cables:
            command = ["curl", "-s", "-o", "/dev/null", "-m", "2", "-H", f"host: {host}", f"http://{address}:{HTTP}/"]
            subprocess.run([*cable.client, *command], check=False)

    def endpoints(self, host: str) -> list[set[str]]:
        """The addresses that each has for a service's HTTP port."""
        found: list[set[str]] = []
        for envoy in self._envoys:
            lines = envoy.ask(f"/clusters?filter=%5Eoutbound%5C%7C{HTTP}%5C%7C%5C%7C{host}$").splitlines()
            found.append({each.split("::")[1].rpartition(":")[0] for each in lines if each.count("::") == 3})
        return found

    def knows(self, text: str) -> list[bool]:
        """Whether a text is in the route tables of each."""
        return [text in envoy.ask("/config_dump?resource=dynamic_route_configs") for envoy in self._envoys]

    def until(self, seen: Callable[[], bool]) -> float:
        """When that held, in seconds since the epoch. BenchError when it does not come about."""
        end = time.monotonic() + SEEN_S
        while not seen():
            if time.monotonic() > end:
                raise BenchError(f"real Envoys are without the change after {SEEN_S:.0f} s")
            time.sleep(_LOOK_S)
        return time.time()
