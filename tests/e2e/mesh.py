"""A whole mesh for tests: started and driven by the command line, on ports and directories of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, TypeVar

import pytest

from lateen.bench.load import Load, Report, run
from lateen.daemon.settings import Settings, load
from lateen.platform.link import Link
from lateen.platform.paths import PodPaths
from tests.e2e.machines import Lan

SAMPLES = "samples/istio/bookinfo/networking"
T = TypeVar("T")
Json = dict[str, Any]


class Mesh:
    """One mesh. `up` and `down` as a user types them; both may be called again."""

    def __init__(self, name: str, vm_host: str = "") -> None:
        self.home = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/tmp"))
        self.home.chmod(0o755)
        self.flags: dict[str, Any] = {
            "name": name,
            "state_dir": str(self.home / "state"),
            "run_dir": str(self.home / "run"),
            "gateway_port": free_port(),
            "https_port": free_port(),
            "console_port": free_port(),
            "debug_port": free_port(),
            "api_port": free_port(),
            "xds_port": 0,
        }
        if vm_host:
            ports = ("xds_port", "vm_login_port", "vm_gateway_port")
            self.flags |= {"vm_host": vm_host, **{each: free_port() for each in ports}}
        self.settings: Settings = load(None, {}, self.flags)
        self.lan: Lan | None = None
        """Where machines outside of the mesh are; None for an ordinary user, who cannot make networks."""
        self.url = f"http://127.0.0.1:{self.settings.gateway_port}"

    def lateen(
        self, *arguments: str, stdin: str | None = None, expect: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """Runs the command line against this mesh. An exit code other than `expect` is an AssertionError."""
        environment = {f"LATEEN_{key.upper()}": str(value) for key, value in self.flags.items()}
        done = subprocess.run(
            [sys.executable, "-m", "lateen.cli.main", *arguments],
            env={**os.environ, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if expect is not None and done.returncode != expect:
            raise AssertionError(
                f"lateen {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def up(self) -> str:
        """Starts what is missing and waits; what the command printed."""
        return self.lateen("up").stdout

    def down(self) -> None:
        """Stops everything."""
        self.lateen("down")

    def remove(self) -> None:
        """Stops everything and forgets it."""
        try:
            self.down()
        finally:
            shutil.rmtree(self.home, ignore_errors=True)

    def apply(self, *documents: Path | Json) -> None:
        """Applies files or documents, as one change each."""
        for each in documents:
            if isinstance(each, Path):
                self.lateen("apply", "-f", str(each))
            else:
                self.lateen("apply", "-f", "-", stdin=json.dumps(each))

    def get(self, kind: str, *arguments: str) -> list[Json]:
        """The objects of a kind in the default namespace."""
        return json.loads(self.lateen("get", kind, "-o", "json", *arguments).stdout)["items"]

    def pods(self, app: str, version: str = "") -> list[Json]:
        """The live Pods of a service, by label."""
        found: list[Json] = []
        for pod in self.get("pods", "-A"):
            labels = pod["metadata"].get("labels", {})
            live = not pod["metadata"].get("deletionTimestamp")
            if live and labels.get("app") == app and (not version or labels.get("version") == version):
                found.append(pod)
        return found

    def ask(self, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: str = "") -> Answer:
        """One request through the gateway, on a connection of its own."""
        started = time.monotonic()
        connection = HTTPConnection("127.0.0.1", self.settings.gateway_port, timeout=30)
        try:
            connection.request(method, path, body or None, headers or {})
            response = connection.getresponse()
            return Answer(response, response.read(), time.monotonic() - started)
        finally:
            connection.close()

    def login(self, user: str) -> dict[str, str]:
        """The headers of somebody who has logged in on the page."""
        form = {"content-type": "application/x-www-form-urlencoded"}
        answer = self.ask("/login", form, "POST", f"username={user}&passwd=x")
        assert answer.status == 302, answer.text
        return {"cookie": answer.headers["set-cookie"].partition(";")[0]}

    def load(self, path: str, **more: Any) -> Report:
        """A load through the gateway."""
        return asyncio.run(run(Load(url=f"{self.url}{path}", **more)))

    def inside(self, pod: Json, container: str, argv: Sequence[str], timeout_s: float = 30) -> tuple[bool, str]:
        """Runs a command inside a container; whether it succeeded, and what it printed."""

        async def execute() -> Json:
            link = await Link.open(PodPaths(self.settings.run_dir, pod["metadata"]["uid"]).control)
            try:
                request = {"do": "exec", "container": container, "argv": list(argv), "timeout_s": timeout_s}
                return await link.ask(request)
            finally:
                await link.close()

        done = asyncio.run(execute())
        return done["exit_code"] == 0, str(done["output"])


class Answer:
    """An answer as read: status, headers by lower-case name, text, seconds from the connect to the last byte."""

    def __init__(self, response: HTTPResponse, body: bytes, took_s: float) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.text = body.decode("utf-8", "replace")
        self.took_s = took_s

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def eventually(look: Callable[[], T], holds: Callable[[T], bool] = bool, within_s: float = 10) -> T:
    """Looks again until it holds, and returns what was seen; AssertionError with the last sight after that time."""
    deadline = time.monotonic() + within_s
    while True:
        seen = look()
        if holds(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"after {within_s} s still: {seen!r}")
        time.sleep(0.02)


def say(capsys: pytest.CaptureFixture[str], *lines: str) -> None:
    """Shows a measured figure in the test's output, whether or not the test passes."""
    with capsys.disabled():
        sys.stdout.write("".join(f"\n  {line}" for line in lines))


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
