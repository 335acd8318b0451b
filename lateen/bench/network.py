"""Two hosts joined by a cable: network namespaces of their own, with the redirection of a Pod or without.

    with Cable(redirected=True) as cable:
        subprocess.run([*cable.client, "ip", "address"])

The client is 10.77.0.1 and has a route for everything, the server 10.77.0.2. With redirection what programs send goes
to port 15001 and what arrives to 15006, except from sockets with the proxies' mark. They end with the block.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final

from lateen.bench.host import BenchError
from lateen.node.bootstrap import PROXY_MARK

CLIENT: Final = "10.77.0.1"
SERVER: Final = "10.77.0.2"
RULES: Final = f"""
table ip bench {{
  chain output {{
    type nat hook output priority -100;
    meta mark {PROXY_MARK} return
    ip saddr 127.0.0.6 return
    ip daddr 127.0.0.0/8 return
    meta l4proto tcp redirect to :15001
  }}
  chain prerouting {{
    type nat hook prerouting priority -100;
    tcp dport {{ 15006, 15021, 15090 }} return
    meta l4proto tcp redirect to :15006
  }}
}}
"""
_READY_S: Final = 10.0


class Cable:
    """The two hosts; `client` and `server` are the words before a command that runs there."""

    def __init__(self, *, redirected: bool) -> None:
        for program, package in (("ip", "iproute2"), ("nsenter", "util-linux"), ("nft", "nftables")):
            if shutil.which(program) is None:
                raise BenchError(f"the program {program} is missing", remedy=f"apt-get install -y {package}")
        self._holders: list[subprocess.Popen[bytes]] = []
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        self.client = self._host([], user)
        self.server = self._host(self.client, [])
        try:
            self._join(redirected=redirected)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Cable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unplugs. What still runs there keeps its end until it ends itself."""
        for each in self._holders:
            each.kill()
            each.wait()

    def _host(self, prefix: list[str], user: list[str]) -> list[str]:
        outside = Path(f"/proc/{self._holders[-1].pid}/ns/net" if self._holders else "/proc/self/ns/net")
        before = {outside.stat().st_ino, Path("/proc/self/ns/net").stat().st_ino}
        holder = subprocess.Popen([*prefix, "unshare", *user, "--net", "sleep", "infinity"])
        self._holders.append(holder)
        deadline = time.monotonic() + _READY_S
        while Path(f"/proc/{holder.pid}/ns/net").stat().st_ino in before:
            if holder.poll() is not None or time.monotonic() > deadline:
                raise BenchError(
                    "no network namespace could be made", remedy="run as root, or allow users their own namespaces"
                )
            time.sleep(0.005)
        into = ["--user", "--preserve-credentials"] if os.geteuid() else []
        return ["nsenter", "--target", str(holder.pid), *into, "--net"]

    def _join(self, *, redirected: bool) -> None:
        other = str(self._holders[1].pid)
        _run(self.client, "ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", other)
        for host, address in ((self.client, CLIENT), (self.server, SERVER)):
            _run(host, "ip", "link", "set", "lo", "up")
            _run(host, "ip", "address", "add", f"{address}/24", "dev", "cable")
            _run(host, "ip", "link", "set", "cable", "up")
            if redirected:
                _run(host, "nft", "-f", "-", text=RULES)
        _run(self.client, "ip", "route", "add", "default", "via", SERVER)


def _run(host: list[str], *command: str, text: str = "") -> None:
    done = subprocess.run([*host, *command], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {done.stderr.strip()}", remedy="run as root")
