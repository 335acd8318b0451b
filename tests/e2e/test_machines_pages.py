"""The guide to virtual machines, step by step as it is written, and the page on what they are.

Fences of the guide: `sh mesh` and `sh machine` say where commands run, `yaml apply FILE` is a file that is applied.
`prints TEXT`: a command is repeated until it prints that. `background`: it goes on running. `copies`: `scp` is a copy
here. `once`: the installation, which tests have behind them. The guide's addresses stand for those of the test.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.machines import AGENT_ALONE, Host
from tests.e2e.mesh import Mesh, eventually
from tests.e2e.test_machines import APPLICATION, bundle, entries, from_pod, host, joined

__all__ = ["host"]  # a fixture

Json = dict[str, Any]
DOCS = Path(__file__).resolve().parents[2] / "docs"
_FENCE = re.compile(r"^```(sh|yaml) (mesh|machine|apply|expect) ?(.*)\n((?:.*\n)*?)^```$", re.MULTILINE)


class Reader:
    """Somebody who does what the guide says."""

    def __init__(self, mesh: Mesh, machine: Host) -> None:
        assert mesh.lan is not None
        self._mesh, self._machine = mesh, machine
        self._addresses = {"192.168.1.10": mesh.lan.host, "192.168.1.20": machine.address}
        self._desk = machine.home / "desk"
        self._desk.mkdir()
        settings = {f"LATEEN_{key.upper()}": str(value) for key, value in mesh.flags.items()}
        self._there = {**os.environ, **settings, "PATH": self._path("mesh", "-m lateen.cli.main")}
        (machine.home / "agent.py").write_text(AGENT_ALONE)
        self._here = {"PATH": self._path("machine", str(machine.home / "agent.py"))}
        self.background: list[subprocess.Popen[bytes]] = []

    def follow(self, where: str, how: str, text: str) -> None:
        """One fence."""
        for given, real in self._addresses.items():
            text, how = text.replace(given, real), how.replace(given, real)
        if where == "apply":
            (self._desk / how).write_text(text)
            self._mesh.apply(self._desk / how)
        elif how == "copies":
            assert text.strip() == f"scp -r bundle root@{self._machine.address}:"
            shutil.copytree(self._desk / "bundle", self._machine.home / "bundle")
        elif how == "background":
            self.background.append(self._machine.start("sh", "-c", f"exec {text}", log="agent.log", **self._here))
        elif how.startswith("prints "):
            eventually(lambda: self._run(where, text), lambda said: how.removeprefix("prints ") in said, within_s=60)
        elif how != "once":
            self._run(where, text)

    def _run(self, where: str, text: str) -> str:
        inside = ["ip", "netns", "exec", self._machine.name] if where == "machine" else []
        done = subprocess.run(
            [*inside, "bash", "-ec", text],
            cwd=self._machine.home if where == "machine" else self._desk,
            env={**os.environ, **self._here} if where == "machine" else self._there,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0 or where == "machine", f"{text}{done.stdout}{done.stderr}"
        return done.stdout

    def _path(self, name: str, program: str) -> str:
        """A PATH that begins with the command `lateen` of that side."""
        directory = self._machine.home / f"bin-{name}"
        directory.mkdir()
        own = f"--state-dir {self._machine.home}/state --run-dir {self._machine.home}/run" if name == "machine" else ""
        (directory / "lateen").write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$@" {own}\n')
        (directory / "lateen").chmod(0o755)
        return f"{directory}:{os.environ['PATH']}:/usr/sbin:/sbin"


def _fences(page: Path) -> Iterator[tuple[str, str, str]]:
    for found in _FENCE.finditer(page.read_text()):
        yield found[2], found[3], found[4]


def test_the_guide_word_by_word(bookinfo: Mesh, host: Host) -> None:
    reader = Reader(bookinfo, host)
    for where, how, text in _fences(DOCS / "guide" / "virtual-machines.md"):
        reader.follow(where, how, text)
    eventually(lambda: from_pod(bookinfo, "http://hello/")[0][0], lambda code: code == 200)
    agent = reader.background[-1]
    os.killpg(agent.pid, signal.SIGINT)
    assert agent.wait(timeout=30) == 0
    eventually(lambda: entries(bookinfo), lambda found: found == [], within_s=5)


@pytest.mark.long
def test_the_page_on_virtual_machines(bookinfo: Mesh, host: Host) -> None:
    ready = Path("/tmp/lateen-docs-ready")
    ready.unlink(missing_ok=True)
    host.start("python3", "-c", APPLICATION)
    checked = 0
    for where, _, text in _fences(DOCS / "features" / "virtual-machines.md"):
        if where == "apply":
            (host.home / "page.yaml").write_text(text)
            bookinfo.apply(host.home / "page.yaml")
            if not checked:
                host.agent(bundle(bookinfo, host))
                joined(host)
            continue
        _check(bookinfo, yaml.safe_load(text.replace("$MACHINE", host.address)))
        checked += 1
    assert checked == 3
    ready.touch()
    eventually(lambda: from_pod(bookinfo, "http://hello/")[0][0], lambda code: code == 200)
    ready.unlink()


def _check(mesh: Mesh, expected: Json) -> None:
    def holds(found: list[Json]) -> bool:
        if len(found) != 1:
            return False
        (entry,) = found
        metadata, spec, status = entry["metadata"], entry["spec"], entry.get("status", {})
        conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
        return (
            metadata["name"] == expected.get("name", metadata["name"])
            and expected.get("labels", {}).items() <= spec["labels"].items()
            and expected.get("labels", {}).items() <= metadata["labels"].items()
            and expected.get("annotations", {}).items() <= metadata["annotations"].items()
            and all(spec[key] == value for key, value in expected.get("spec", {}).items())
            and conditions.get("Healthy") == expected.get("healthy", conditions.get("Healthy"))
        )

    eventually(lambda: entries(mesh), holds)
    code = 200 if expected["answers"] else 503
    eventually(lambda: from_pod(mesh, "http://hello/")[0][0], lambda status: status == code)
