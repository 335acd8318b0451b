"""A machine outside of the mesh's platform, for tests: a network namespace with one cable to this host.

The host's end has the address where the mesh lets machines in. In the namespace runs what a user would start there:
`lateen agent --bundle`, and the machine's applications.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

Json = dict[str, Any]
AGENT_ALONE = """
import sys
MISSING = ("httpx", "joserfc", "starlette", "uvicorn", *(f"lateen.{each}" for each in (
    "api", "apiserver", "engine", "envoy", "intent", "model", "platform", "xds", "security.ca", "security.tokens")))
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if any(name == each or name.startswith(each + ".") for each in MISSING):
            raise ModuleNotFoundError(f"not installed on a machine: {name}")
sys.meta_path.insert(0, NotInstalled())
from lateen.cli.main import main
main()
"""
"""The command line where the packages of the control plane, and what they need, cannot be imported."""


CUT = """
table inet cut {
  chain input { type filter hook input priority 0; iifname eth0 drop; }
  chain output { type filter hook output priority 0; oifname eth0 drop; }
}
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Lan:
    """One /24 with this host at .1 and machines from .2 on. Needs root; `remove` leaves nothing behind."""

    def __init__(self, number: int) -> None:
        self._prefix = f"10.77.{number}"
        self._bridge = f"lanm{number}"
        self.host = f"{self._prefix}.1"
        self._hosts: list[Host] = []
        ip("link", "add", self._bridge, "type", "bridge")
        ip("addr", "add", f"{self.host}/24", "dev", self._bridge)
        ip("link", "set", self._bridge, "up")

    def machine(self, address: str = "") -> Host:
        """A new machine, by default at the next address."""
        number = len(self._hosts) + 2
        made = Host(f"{self._bridge}h{number}", address or f"{self._prefix}.{number}", self.host, self._bridge)
        self._hosts.append(made)
        return made

    def remove(self) -> None:
        for each in self._hosts:
            each.remove()
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "del", self._bridge)


class Host:
    """One machine."""

    def __init__(self, name: str, address: str, gateway: str, bridge: str) -> None:
        self.name, self.address = name, address
        self.home = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/tmp"))
        self.home.chmod(0o755)
        self.log = self.home / "agent.log"
        self._programs: list[subprocess.Popen[bytes]] = []
        ip("netns", "add", name)
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", name, "master", bridge, "up")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", name, "link", "set", device, "up")
        ip("-n", name, "route", "add", "default", "via", gateway)

    def start(self, *command: str, log: str = "program.log", **environment: str) -> subprocess.Popen[bytes]:
        """Starts a program on the machine."""
        with (self.home / log).open("ab") as file:
            program = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **environment},
                cwd=self.home,
                start_new_session=True,
            )
        self._programs.append(program)
        return program

    def cut_off(self) -> None:
        """Drops every packet to and from other machines: connections neither end nor answer."""
        self._nft(CUT)

    def mend(self) -> None:
        """Ends `cut_off`."""
        self._nft("delete table inet cut")

    def _nft(self, rules: str) -> None:
        command = ["ip", "netns", "exec", self.name, "nft", "-f", "-"]
        subprocess.run(command, input=rules.encode(), check=True)

    def agent(self, bundle: Path, *more: str) -> subprocess.Popen[bytes]:
        """Starts the agent as a user would, with the control plane not installed."""
        own = ("--state-dir", str(self.home / "state"), "--run-dir", str(self.home / "run"))
        words = (sys.executable, "-c", AGENT_ALONE, "agent", "--bundle", str(bundle), *own, *more)
        return self.start(*words, log="agent.log")

    def python(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a program on the machine to its end."""
        command = ["ip", "netns", "exec", self.name, sys.executable, "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def events(self, event: str = "") -> list[Json]:
        """What the agent has logged, all or the events of that name."""
        if not self.log.exists():
            return []
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        found: list[Json] = [json.loads(line) for line in lines]
        return [each for each in found if not event or each["event"] == event]

    def remove(self) -> None:
        for each in self._programs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("netns", "del", self.name)
        shutil.rmtree(self.home, ignore_errors=True)
