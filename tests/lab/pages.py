"""A lab as pages of the documentation see it: the interface of `tests.envoy.playground` that expectations use."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tests.envoy.playground import Answer, Seen
from tests.lab import expectations
from tests.lab.client import Caller, ask, line
from tests.lab.lab import Lab, Refused


class LabPage:
    """Servers are `reviews/v1` here. The table `http.8080` is the gateway's port 8080."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @property
    def lab(self) -> Lab:
        """The lab itself."""
        return self._lab

    def apply(self, text: str) -> list[str]:
        """Replaces the configuration; what Envoy does not take. Files of /etc/certs are the lab's, sockets of /run are
        in its directory."""
        try:
            self._lab.configure(text.replace("/etc/certs/", "@files/").replace("unix:///run/", "unix://@files/"))
        except Refused as refused:
            return [str(refused)]
        return []

    def checked(self, expectation: dict[str, Any]) -> bool:
        """Checks an expectation that only a lab can; False when it is another."""
        return expectations.check(self._lab, expectation)

    @property
    def log(self) -> list[Seen]:
        """What servers got."""
        return [
            Seen(_name(each["server"]), each["method"], each["path"], each["headers"]) for each in self._lab.servers.log
        ]

    def forget(self) -> None:
        """Forgets what servers got."""
        self._lab.servers.log.clear()

    def script(self, target: str, steps: Iterable[int | str]) -> None:
        """What a server answers next."""
        self._lab.servers.script(target.replace("/", "-"), *(str(each) for each in steps))

    def request(
        self, host: str, path: str = "/", method: str = "GET", headers: Mapping[str, str] | None = None, table: str = ""
    ) -> Answer:
        """One request on a connection of its own."""
        name, _, port = host.partition(":")
        if table == "http.8080":
            found = ask(self._lab, "gateway", path, 8080, method, name, headers)
        else:
            found = ask(self._lab, name, path, int(port), method, name, headers)
        shown = {**found.headers, "x-server": _name(found.server)} if found.server else dict(found.headers)
        return Answer(found.status, shown, found.body, found.seconds)

    def requests(
        self, host: str, times: int, path: str = "/", headers: Mapping[str, str] | None = None, table: str = ""
    ) -> Counter[str]:
        """How many of many requests on one connection each server answered; others by their status."""
        name, _, port = host.partition(":")
        found: Counter[str] = Counter()
        with Caller(self._lab, name, int(port)) as caller:
            for _ in range(times):
                answer = caller.ask(path, name, headers=headers)
                found[_name(answer.server) if answer.status == 200 else str(answer.status)] += 1
        return found

    def line(self, host: str, port: int, sni: str = "") -> str:
        """Which server answers a line on a connection of its own, with a handshake when a server name is given; empty
        for nobody."""
        tls = self._lab.certificates.client_context() if sni else None
        return _name(str(line(self._lab, host, port, tls=tls, sni=sni).get("server", "")))

    def counter(self, name: str) -> int:
        """A counter of the sidecar; `name` is a regular expression, several are added up."""
        return self._lab.stat(name)

    def wait_seen(self, count: int, deadline_s: float = 5) -> list[Seen]:
        """All requests the servers got, once there are so many."""
        end = time.monotonic() + deadline_s
        while len(self.log) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self.log)} of {count} requests came")
            time.sleep(0.005)
        return self.log


def _name(server: str) -> str:
    return server.replace("-", "/", 1)
