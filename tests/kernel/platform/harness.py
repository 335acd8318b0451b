"""A mesh of its own for each test, and the few programs that its Pods run."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from lateen.lib.layout import Layout
from lateen.node.envoy import envoy_binary
from lateen.platform import census, cgroups
from lateen.platform.down import down
from lateen.platform.logs import log_files
from lateen.platform.pod import Container, HttpGet, PodSandbox, PodState, Probe, Proxy, Redirect
from lateen.platform.sandbox import Platform
from lateen.platform.settings import PlatformSettings

PYTHON = sys.executable
ROOT = os.getuid() == 0
SETTINGS = PlatformSettings(backoff_first_s=0.2)

WEB = """
import http.server, os, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.uname().nodename} {self.client_address[0]}".encode()
        self.send_response(200 if self.path != "/no" else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
signal.signal(signal.SIGTERM, lambda *a: (print("stopped", flush=True), os._exit(0)))
http.server.ThreadingHTTPServer.address_family = 2
print("serving", flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
"""

FETCH = """
import sys, urllib.request
for url in sys.argv[1:]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            print(answer.status, answer.read().decode())
    except Exception as error:
        print(type(error).__name__, getattr(error, "reason", error))
"""


def program(text: str, *arguments: str) -> tuple[str, ...]:
    """The command of a Python program."""
    return (PYTHON, "-u", "-c", textwrap.dedent(text), *arguments)


def web(port: int = 8080, **changes: Any) -> Container:
    """A container that answers "<hostname> <client>" on a port."""
    ready = Probe(handler=HttpGet(port=port), period_s=0.05)
    container = Container(name="app", argv=program(WEB, str(port)), readiness=ready)
    return msgspec.structs.replace(container, **changes)


def idle() -> Container:
    """A container that only waits, to run commands in."""
    return Container(name="app", argv=("/bin/sleep", "1000"))


class Mesh:
    """A platform with shortcuts."""

    def __init__(self, layout: Layout, platform: Platform) -> None:
        self.layout = layout
        self.platform = platform

    def sandbox(self, name: str, *containers: Container, **changes: Any) -> PodSandbox:
        log_dir = str(self.layout.logs / name)
        spec = PodSandbox(uid=f"u-{name}", namespace="default", name=name, containers=containers, log_dir=log_dir)
        return msgspec.structs.replace(spec, **changes)

    async def pod(self, name: str, *containers: Container, **changes: Any) -> PodState:
        """A Pod, made and ready."""
        state = await self.platform.create(self.sandbox(name, *containers, **changes))
        return await self.until(state.uid, lambda state: state.ready)

    async def until(self, uid: str, wanted: Callable[[PodState], bool], timeout_s: float = 15) -> PodState:
        """The Pod's state once it is as wanted."""
        try:
            async with asyncio.timeout(timeout_s):
                while not wanted(state := self.platform.pods()[uid]):
                    await asyncio.sleep(0.005)
                return state
        except TimeoutError:
            raise AssertionError(f"still {self.platform.pods()[uid]}; logs: {self.logs(uid)}") from None

    async def run(self, uid: str, *argv: str) -> str:
        """The output of a command inside the application's container."""
        result = await self.platform.execute(uid, "app", argv, 20)
        return result.output.strip()

    async def fetch(self, uid: str, *urls: str) -> list[str]:
        """What a Pod gets from URLs, a line each."""
        return (await self.run(uid, *program(FETCH, *urls))).splitlines()

    def log(self, name: str, container: str = "app") -> str:
        return "".join(path.read_text() for path in log_files(self.layout.logs / name, container))

    def spawner(self) -> int:
        """The pid of the spawner."""
        return next(p.pid for p in census.processes(str(self.layout.state)) if p.command == "lateen-spawner")

    def logs(self, uid: str) -> str:
        name = uid.removeprefix("u-")
        return f"app: {self.log(name)[-2000:]} proxy: {self.log(name, 'istio-proxy')[-2000:]}"


def layout() -> Layout:
    base = Path(tempfile.mkdtemp(prefix="lt-", dir="/tmp"))
    return Layout(f"a-{base.name}", base / "the state", base / "run")


@asynccontextmanager
async def running(where: Layout, settings: PlatformSettings = SETTINGS) -> AsyncIterator[Mesh]:
    """A mesh that is taken down at the end, with a check that nothing is left of it."""
    platform = Platform(where, settings)
    try:
        await platform.start()
        yield Mesh(where, platform)
    finally:
        await platform.close()
        await down(where, grace_s=0)
        assert census.processes(str(where.state)) == []
        assert list(Path(cgroups.ROOT).glob(f"**/{cgroups.mesh_group(str(where.run))}")) == []
        shutil.rmtree(where.state.parent)


def tcp_listener(name: str, port: int, cluster: str, **changes: Any) -> dict[str, Any]:
    """An Envoy listener that relays captured connections to `cluster`."""
    kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    access = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
    line = f"{name} %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS%\n"
    log = {
        "name": "stdout",
        "typed_config": {"@type": access, "log_format": {"text_format_source": {"inline_string": line}}},
    }
    proxy = {"@type": kind, "stat_prefix": name, "cluster": cluster, "access_log": [log]}
    original = "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
    listener: dict[str, Any] = {
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "listener_filters": [{"name": "original_dst", "typed_config": {"@type": original}}],
        "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}],
    }
    return {**listener, **changes}


def mark() -> list[dict[str, Any]]:
    return [{"level": 1, "name": 36, "int_value": 0x539, "state": "STATE_PREBIND"}]


def sidecar(mesh: Mesh, name: str) -> dict[str, Any]:
    """The proxy and the redirect of a Pod whose Envoy relays both ways without looking."""
    inbound = {
        "name": "inbound",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "upstream_bind_config": {
            "source_address": {"address": "127.0.0.6", "port_value": 0},
            "socket_options": mark(),
        },
    }
    outbound = {
        "name": "outbound",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "upstream_bind_config": {
            "source_address": {"address": "0.0.0.0", "port_value": 0},
            "socket_options": mark(),
        },
    }
    listeners = [tcp_listener("in", 15006, "inbound"), tcp_listener("out", 15001, "outbound")]
    return envoy(mesh, name, listeners, [inbound, outbound], redirect=Redirect())


def envoy(
    mesh: Mesh, name: str, listeners: list[dict[str, Any]], clusters: list[dict[str, Any]], **changes: Any
) -> dict[str, Any]:
    """What `Mesh.pod` needs for a Pod with that Envoy."""
    directory = mesh.layout.pod(f"u-{name}")
    directory.mkdir(parents=True, exist_ok=True)
    admin = str(directory / "admin.sock")
    bootstrap = {
        "node": {"id": name, "cluster": name},
        "admin": {"address": {"pipe": {"path": admin}}},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }
    (directory / "envoy.json").write_bytes(msgspec.json.encode(bootstrap))
    argv = (str(envoy_binary()), "-c", str(directory / "envoy.json"), "--concurrency", "1", "--disable-hot-restart")
    proxy = Proxy(argv=argv, paths=(str(directory),), admin_socket=admin, drain_s=2)
    return {"proxy": proxy, **changes}
