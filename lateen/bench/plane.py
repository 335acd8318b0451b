"""A whole control plane and the agent of a node in processes of their own, as `lateen up` starts them, without Pods.

    with Plane(directory) as plane:
        plane.apply(documents)
        sidecar = plane.sidecar("bench", "client", "10.77.0.1", host=cable.client)

Pods are objects with an address and no program. Their sidecars are real: certificate from the agent, configuration
over mutual TLS from the control plane.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from lateen.apiserver.applying import apply_files
from lateen.apiserver.client import Client
from lateen.bench.envoys import Envoy
from lateen.bench.host import BenchError
from lateen.lib.errors import LateenError
from lateen.lib.layout import Layout
from lateen.node.bootstrap import BootstrapSpec, XdsAddress, argv, bootstrap, write_bootstrap
from lateen.node.control import ControlError, call
from lateen.node.envoy import envoy_binary

Json = dict[str, Any]
T = TypeVar("T")

_READY_S: Final = 60.0


class Plane:
    """Control plane and agent. `directory` must be short: it holds sockets. Ports are free ones of loopback, or 0."""

    def __init__(self, directory: Path, *, ports: Json | None = None, with_agent: bool = True) -> None:
        self.layout = Layout("bench", directory / "s", directory / "r")
        for each in (self.layout.state, self.layout.run):
            each.mkdir(mode=0o700)
        settings = {
            "name": "bench",
            "state_dir": str(self.layout.state),
            "run_dir": str(self.layout.run),
            **dict.fromkeys(("console_port", "debug_port", "api_port", "xds_port"), 0),
            **(ports or {}),
        }
        self._file = self.layout.state / "settings.json"
        self._file.write_text(json.dumps(settings))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._sidecars: list[Envoy] = []
        try:
            self.start("controlplane")
            if with_agent:
                self.start("agent")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Plane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, part: str) -> None:
        """Starts `controlplane` or `agent` and waits until it answers."""
        program = [sys.executable, "-m", f"lateen.daemon.{part}", str(self._file), str(os.getpid())]
        with self._log(part).open("ab") as log:
            process = self._processes[part] = subprocess.Popen(program, stdout=log, stderr=log)
        end = time.monotonic() + _READY_S
        while not run(self._answers(part)):
            if process.poll() is not None or time.monotonic() > end:
                raise BenchError(f"the {part} does not answer: {self.log(part)[-1500:]}", remedy="see above")
            time.sleep(0.02)

    def stop(self, part: str) -> None:
        """Kills one."""
        process = self._processes.pop(part)
        process.kill()
        process.wait()

    def pid(self, part: str) -> int:
        """Its process id."""
        return self._processes[part].pid

    def log(self, part: str) -> str:
        """What it has written."""
        return self._log(part).read_text(errors="replace")

    def _log(self, part: str) -> Path:
        return self.layout.state / f"{part}.log"

    def close(self) -> None:
        """Ends everything."""
        for each in self._sidecars:
            each.close()
        for part in list(self._processes):
            self.stop(part)

    async def _answers(self, part: str) -> bool:
        if part == "controlplane":
            async with Client(self.layout.api_socket) as client:
                return await client.ready()
        try:
            await call(self.layout.agent_socket, "list")
        except (OSError, ControlError):
            return False
        return True

    def apply(self, documents: Iterable[Json]) -> None:
        """Puts objects into the store, a Pod's status too. BenchError when the API refuses one."""
        run(self._apply(list(documents)))

    async def _apply(self, documents: list[Json]) -> None:
        async with Client(self.layout.api_socket) as client:
            files = [("mesh.yaml", "\n---\n".join(json.dumps(each) for each in documents))]
            result = await apply_files(client, files)
            if not result.applied:
                raise BenchError("; ".join(map(str, result.findings)), remedy="mend the objects")
            for each in documents:
                if each["kind"] == "Pod":
                    meta = each["metadata"]
                    await client.patch("Pod", meta["name"], meta["namespace"], {"status": each["status"]}, status=True)

    def sidecar(
        self, namespace: str, name: str, address: str, host: Sequence[str] = (), *, counts: bool = True
    ) -> Envoy:
        """The sidecar of a Pod that is there, in a host; it is live. `counts`: it counts requests by service."""
        pod, token = run(self._introduced(namespace, name))
        uid = pod["metadata"]["uid"]
        directory = self.layout.pod(uid)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "token").write_text(token)
        wanted = {
            "uid": uid,
            "namespace": namespace,
            "name": name,
            "service_account": "default",
            "token_path": str(directory / "token"),
            "sds_socket": str(directory / "sds.sock"),
        }
        run(call(self.layout.agent_socket, "add_pod", pod=wanted))
        spec = BootstrapSpec(
            pod=name,
            namespace=namespace,
            ip=address,
            xds=XdsAddress(path=str(self.layout.xds_socket)),
            sds_path=str(directory / "sds.sock"),
            admin_path=str(directory / "admin.sock"),
            labels=pod["metadata"].get("labels", {}),
        )
        config = directory / "envoy.json"
        config.unlink(missing_ok=True)
        document = bootstrap(spec)
        if not counts:
            del document["node"]["metadata"]["LATEEN_COUNTS"]
        write_bootstrap(document, config)
        command = argv(spec, envoy_binary(), config)
        envoy = Envoy(command, directory / "admin.sock", directory / "envoy.log", host)
        self._sidecars.append(envoy)
        envoy.wait_live()
        return envoy

    async def _introduced(self, namespace: str, name: str) -> tuple[Json, str]:
        async with Client(self.layout.api_socket) as client:
            pod = await client.get("Pod", name, namespace)
            bound = {"kind": "Pod", "name": name, "uid": pod["metadata"]["uid"]}
            path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
            answer = await client.post(path, {"spec": {"boundObjectRef": bound}})
            return pod, answer["status"]["token"]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs one piece of asynchronous work. BenchError for what the API refuses."""
    try:
        return asyncio.run(work)
    except BenchError:
        raise
    except LateenError as error:
        raise BenchError(str(error), remedy=error.remedy) from None
