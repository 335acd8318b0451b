"""The agent as its clients see it: over the control socket, across restarts."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lateen.lib.signing import SigningError, Trust, TrustAnswer
from lateen.node.agent import Agent
from lateen.node.control import LINE_BYTES, ControlError, call
from tests.envoy.harness import short_directory


class Away:
    """A signer whose control plane is not there."""

    async def follow(
        self, answers: AsyncIterator[TrustAnswer], *, key: str = "", chain: str = ""
    ) -> AsyncIterator[Trust]:
        raise SigningError("UNAVAILABLE: nobody there")
        yield

    async def sign(self, csr: str, *, token: str) -> tuple[str, ...]:
        raise SigningError("UNAVAILABLE: nobody there")

    async def renew(self, csr: str, *, key: str, chain: str) -> tuple[str, ...]:
        raise AssertionError("nothing to renew")


@pytest.fixture
def directory() -> Iterator[Path]:
    made = short_directory()
    yield made
    shutil.rmtree(made)


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Path]:
    """An agent; its control socket."""
    control = directory / "agent.sock"
    agent = Agent(Away(), control=control, state=directory / "agent.json", trust=directory / "trust.json")
    task = asyncio.create_task(agent.run())
    try:
        async with asyncio.timeout(30):
            while not control.exists():
                await asyncio.sleep(0.005)
        yield control
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        control.unlink(missing_ok=True)


def pod(directory: Path, name: str, **changed: str) -> dict[str, str]:
    """What the agent is told of a Pod in a folder of its own."""
    home = directory / name
    home.mkdir(exist_ok=True)
    token = home / "token"
    token.write_text("t")
    told = {"uid": f"uid-{name}", "namespace": "default", "name": name, "service_account": "sa"}
    return told | {"token_path": str(token), "sds_socket": str(home / "sds.sock")} | changed


async def names(control: Path) -> list[str]:
    listed: list[dict[str, Any]] = await call(control, "list")
    return [each["name"] for each in listed]


async def test_pods_come_and_go(directory: Path) -> None:
    async with running(directory) as control:
        assert stat.S_IMODE(control.stat().st_mode) == 0o600
        first, second = pod(directory, "a"), pod(directory, "b")
        await call(control, "add_pod", pod=first)
        await call(control, "add_pod", pod=second)
        await call(control, "add_pod", pod=second)
        assert await names(control) == ["a", "b"]
        assert Path(first["sds_socket"]).is_socket()
        await call(control, "remove_pod", uid="uid-a")
        await call(control, "remove_pod", uid="uid-a")
        assert await names(control) == ["b"]
        assert not Path(first["sds_socket"]).exists()


async def test_a_changed_pod_is_served_as_it_is_now(directory: Path) -> None:
    async with running(directory) as control:
        before = pod(directory, "a")
        await call(control, "add_pod", pod=before)
        after = pod(directory, "a", sds_socket=str(directory / "a" / "other.sock"))
        await call(control, "add_pod", pod=after)
        assert await names(control) == ["a"]
        assert Path(after["sds_socket"]).is_socket()
        assert not Path(before["sds_socket"]).exists()


async def test_a_pod_whose_directory_was_made_anew_is_served_there(directory: Path) -> None:
    async with running(directory) as control:
        one = pod(directory, "a")
        await call(control, "add_pod", pod=one)
        Path(one["sds_socket"]).unlink()
        await call(control, "add_pod", pod=one)
        assert Path(one["sds_socket"]).is_socket()


async def test_a_new_agent_takes_up_the_pods_of_the_last(directory: Path) -> None:
    specs = {name: pod(directory, name) for name in ("a", "b", "c")}
    async with running(directory) as control:
        for spec in specs.values():
            await call(control, "add_pod", pod=spec)
        await call(control, "remove_pod", uid="uid-b")
    shutil.rmtree(directory / "c")  # gone while no agent ran: its trouble is its own
    async with running(directory) as control:
        assert await names(control) == ["a"]
        assert Path(specs["a"]["sds_socket"]).is_socket()


async def test_a_broken_state_file_stops_nobody(directory: Path) -> None:
    (directory / "agent.json").write_text("[{")
    async with running(directory) as control:
        await call(control, "add_pod", pod=pod(directory, "a"))
        assert [each["uid"] for each in msgspec.json.decode((directory / "agent.json").read_bytes())] == ["uid-a"]


async def test_what_is_wrong_with_a_certificate_is_listed(directory: Path) -> None:
    async with running(directory) as control:
        await call(control, "add_pod", pod=pod(directory, "a"))
        async with asyncio.timeout(30):
            while not (state := (await call(control, "list"))[0])["error"]:
                await asyncio.sleep(0.005)
        assert state["error"] == "UNAVAILABLE: nobody there"
        assert (state["ends"], state["renew_at"]) == (0, 0)


async def test_requests_that_are_refused(directory: Path) -> None:
    async with running(directory) as control:
        for do, fields, message in (
            ("fly", {}, "unknown request 'fly'"),
            ("add_pod", {"pod": {"uid": "u"}}, "add_pod: Object missing required field `namespace`"),
            ("add_pod", {}, "add_pod: Expected `object`"),
            ("add_pod", {"pod": pod(directory, "a", sds_socket="/nonexistent/sds.sock")}, "cannot serve default/a"),
            ("add_pod", {"pod": pod(directory, "a", sds_socket="/tmp/" + "x" * 120)}, "cannot serve default/a"),
            ("refresh", {"uid": "nobody"}, "no Pod with uid nobody"),
        ):
            with pytest.raises(ControlError, match=message):
                await call(control, do, **fields)
        assert await names(control) == []


async def test_a_client_that_talks_nonsense_disturbs_nobody(directory: Path) -> None:
    async with running(directory) as control:
        reader, writer = await asyncio.open_unix_connection(str(control))
        writer.write(b"nonsense\n[1]\n")
        assert b"not a JSON object" in await reader.readline()
        assert b"not a JSON object" in await reader.readline()
        writer.write(b"x" * (LINE_BYTES * 2))
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert await names(control) == []


async def test_no_agent_is_an_error_at_once(directory: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await call(directory / "agent.sock", "list")
