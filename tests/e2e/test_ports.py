"""The security model's table of listeners is what a mesh really listens on; and doors that are for others stay shut."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lateen.daemon.settings import Settings
from tests.e2e.mesh import Json, Mesh
from tests.paths import REPOSITORY

PORTS = ("xds", "vm_login", "vm_gateway", "plaintext_xds", "api", "console", "debug", "gateway", "https")
OF_MACHINES = {"vm_login_port", "vm_gateway_port"}
OF_ENVOY = {15001, 15006, 15021, 15090}


def documented() -> dict[str, str]:
    """The listeners of the table, each with what its row says of where it listens."""
    text = (REPOSITORY / "docs/guide/security-model.md").read_text()
    table = text[text.index("## Ports") : text.index("## What happens when")]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    return {name: row[2] for row in rows for name in re.findall("`([^`]+)`", row[1])}


def listening(settings: Settings) -> Iterator[tuple[str, str]]:
    """Every listener of a mesh's own processes: its name in the table, and its address."""
    run = str(settings.layout().run)
    here = Path("/proc/self/ns/net").readlink()
    for at in _processes(run):
        own = set(_sockets(at))
        for line in (at / "net/unix").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[6] in own and fields[3] == "00010000" and len(fields) > 7:
                name = fields[7].replace(run, "run")
                yield re.sub(r"gw-\d+", "gw-*", re.sub("/[0-9a-f-]{36}/", "/*/", name)), ""
        for kind in ("tcp", "tcp6", "udp", "udp6"):
            for line in (at / "net" / kind).read_text().splitlines()[1:]:
                fields = line.split()
                waits = fields[3] == "0A" if kind.startswith("tcp") else fields[2].endswith(":0000")
                if fields[9] in own and waits:
                    address, port = _address(fields[1])
                    yield _name(settings, port, in_host=(at / "ns/net").readlink() == here, address=address), address


def _processes(run: str) -> Iterator[Path]:
    """The mesh's own: lateen's programs and Envoys, which are all told where its sockets are. No applications."""
    for at in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if at.name.isdigit() and run.encode() in (at / "environ").read_bytes() + (at / "cmdline").read_bytes():
                command = (at / "cmdline").read_bytes()
                if b"-m\0lateen." in command or command.partition(b"\0")[0].endswith(b"/envoy"):
                    yield at


def _sockets(process: Path) -> Iterator[str]:
    for handle in (process / "fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(handle.readlink())
            if target.startswith("socket:["):
                yield target[8:-1]


def _address(text: str) -> tuple[str, int]:
    address, _, port = text.partition(":")
    raw = bytes.fromhex(address)
    swapped = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return socket.inet_ntoa(swapped[-4:]), int(port, 16)


def _name(settings: Settings, port: int, *, in_host: bool, address: str) -> str:
    if in_host:
        known = {getattr(settings, f"{each}_port"): f"{each}_port" for each in PORTS}
        return known.get(port, f"{address}:{port} of the machine")
    if address == "0.0.0.0":
        return f"pod:{port}" if port in OF_ENVOY else "pod:8080"
    return f"net:{port}"


def test_the_table_is_what_the_mesh_listens_on(bookinfo: Mesh) -> None:
    table = documented()
    found = list(listening(bookinfo.settings))
    names = {name for name, _ in found}
    assert names - table.keys() == set(), "nobody has said what these take from whom"
    unseen = {"plaintext_xds_port", *(OF_MACHINES if not bookinfo.settings.vm_host else ())}
    unseen |= set() if bookinfo.settings.xds_port else {"xds_port"}
    assert table.keys() - names == unseen
    for name, address in found:
        if name.endswith("_port"):
            said = table[name]
            allowed = {"127.0.0.1"} if "loopback" in said else set[str]()
            allowed |= {bookinfo.settings.vm_host} if "vm_host" in said else set()
            allowed |= {bookinfo.settings.host} if "or `host`" in said else set()
            assert address in allowed, (name, address, said)


DIAL = """
import socket, sys
for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 5) as one:
            one.settimeout(5)
            one.sendall(b"GET /admin HTTP/1.1\\r\\nHost: details:9080\\r\\nConnection: close\\r\\n\\r\\n")
            answer = one.recv(4096)
            print(target, answer.split(b"\\r\\n")[0].decode("latin-1") or "closed")
    except OSError as error:
        print(target, type(error).__name__)
"""


def test_doors_that_are_for_others_stay_shut(bookinfo: Mesh) -> None:
    """An application dials what is not for it: other Pods' proxies, what leaves the mesh, the machine itself."""
    (caller,), (other,) = bookinfo.pods("ratings"), bookinfo.pods("details")
    address = other["status"]["podIP"]
    settings = bookinfo.settings
    network = str(settings.pod_range).rpartition(".")[0]
    inner = [f"{address}:{port}" for port in (15000, 15001, 15004, 15006, 15020)]
    paths = [f"{address}:{port}" for port in (15021, 15090)]
    egress = f"{network}.1:15999"
    machine = [f"127.0.0.1:{getattr(settings, f'{each}_port')}" for each in ("console", "debug", "api", "gateway")]
    machine += [f"{network}.1:{settings.api_port}", f"{network}.1:{settings.console_port}"]
    container = caller["spec"]["containers"][0]["name"]
    _, said = bookinfo.inside(caller, container, [sys.executable, "-c", DIAL, *inner, *paths, egress, *machine])
    answers = dict(line.split(" ", 1) for line in said.splitlines())
    assert answers.keys() >= {*inner, *paths, egress, *machine}, said
    for each in (*inner, *machine, egress):
        assert " 200" not in answers[each], (each, answers[each])
    for each in paths:
        assert answers[each].startswith("HTTP/1.1 404"), (each, answers[each])


def test_the_sockets_of_the_mesh_are_the_owners_alone(bookinfo: Mesh) -> None:
    """Nobody else gets to them: by their own mode or by that of a directory above."""
    run = bookinfo.settings.layout().run
    sockets = [each for each in run.rglob("*") if each.is_socket()]
    assert len(sockets) > 10
    for each in sockets:
        above = [directory for directory in each.parents if directory.is_relative_to(run)]
        private = each.stat().st_mode & 0o077 == 0 or any(one.stat().st_mode & 0o077 == 0 for one in above)
        assert private, each
    states = [bookinfo.settings.layout().state, run]
    assert [each.stat().st_mode & 0o077 for each in states] == [0, 0]
    keys = [*bookinfo.settings.layout().state.rglob("*key*.pem"), *bookinfo.settings.layout().state.rglob("*.key")]
    assert keys
    assert {each.stat().st_mode & 0o077 for each in keys} == {0}


def test_a_pod_sees_nothing_of_the_mesh(bookinfo: Mesh) -> None:
    """Neither state nor sockets, nor another Pod's processes."""
    (caller,) = bookinfo.pods("ratings")
    container = caller["spec"]["containers"][0]["name"]
    layout = bookinfo.settings.layout()
    script = (
        "import json, os, sys\n"
        "def look(path):\n"
        "    try: return sorted(os.listdir(path))\n"
        "    except OSError as error: return type(error).__name__\n"
        "commands = []\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    try: commands.append(open(f'/proc/{pid}/cmdline').read())\n"
        "    except OSError: pass\n"
        "print(json.dumps([[look(each) for each in sys.argv[1:]], commands]))"
    )
    _, said = bookinfo.inside(caller, container, [sys.executable, "-c", script, str(layout.state), str(layout.run)])
    seen, commands = msgspec.json.decode(
        said.splitlines()[-1].encode(), type=tuple[list[Json | list[str] | str], list[str]]
    )
    assert all(each in ([], "FileNotFoundError", "PermissionError", "NotADirectoryError") for each in seen), seen
    assert not [each for each in commands if "lateen.daemon" in each or "details" in each]
