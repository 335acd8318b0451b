"""Every Service of the samples leads to its workloads: each port, spoken to as its name and protocol say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.client import Caller2, ask, line
from tests.lab.lab import Lab
from tests.lab.world import World
from tests.paths import shared
from tests.samples.programs import Json, Programs, documents, target

LINES = ("tcp", "mongo", "redis", "mysql")


def files() -> list[Path]:
    """The files with Services."""
    root = shared("samples")
    return [path for path in sorted(root.rglob("*.y*ml")) if any(each["kind"] == "Service" for each in documents(path))]


def groups() -> list[Programs]:
    """The Services of all files, so many together as have different names: every document is in one of the groups."""
    found: list[Programs] = []
    for path in files():
        raws = documents(path)
        keys = {
            (raw["metadata"].get("namespace") or "default", raw["metadata"]["name"])
            for raw in raws
            if raw["kind"] == "Service"
        }
        free = next((each for each in found if not keys & each.services.keys()), None)
        if free is None:
            found.append(free := Programs(len(found)))
        free.take(raw for raw in raws if raw["kind"] == "Service")
    for each in found:
        each.missing()
    return found


def test_every_port_answers(capsys: pytest.CaptureFixture[str]) -> None:
    made = groups()
    world = World(
        objects="",
        names={address: name for each in made for address, name in each.names.items()},
        addresses={},
        listening=tuple(place for each in made for place in each.listening),
        hosts={},
    )
    asked = 0
    with Lab(world=world) as lab:
        for programs in made:
            lab.configure(programs.text())
            for (key, raw), address in zip(programs.services.items(), programs.addresses.values(), strict=True):
                behind = {each.name for each in programs.behind(key[0], raw)}
                for port in raw["spec"]["ports"]:
                    seen = _answer(lab, address, port)
                    assert (seen.get("server"), seen.get("port")) in {(each, target(port)) for each in behind}, key
                    asked += 1
    assert asked >= 60
    with capsys.disabled():
        print(f"\n  {asked} ports of {len(files())} files")  # noqa: T201


def _answer(lab: Lab, address: str, port: Json) -> Json:
    """What a server saw; {} when none answers."""
    number, name = port["port"], port.get("name", "")
    protocol = name.partition("-")[0]
    if protocol == "grpc":
        with Caller2(lab, address, number) as caller:
            return caller.ask(f"{address}:{number}")[0].seen
    if protocol == "https":
        return line(lab, address, number, tls=lab.certificates.client_context(), sni="outside.test")
    return line(lab, address, number) if protocol in LINES else ask(lab, address, port=number).seen
