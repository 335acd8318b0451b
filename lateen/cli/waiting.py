"""Waiting for objects to be accepted or live, as their conditions say it, with the progress as it comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import click
import msgspec

from lateen.api.kinds import Kind
from lateen.apiserver.client import Client, Listing

Json = dict[str, Any]
For = Literal["live", "accepted"]

REFUSED: Final = 1
LATE: Final = 3
_CONDITION: Final = {"live": "Programmed", "accepted": "Accepted"}


class Wanted(msgspec.Struct, frozen=True):
    """One object to wait for."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.kind.kind} {self.name}{where}"


def has_conditions(kind: Kind) -> bool:
    """True for kinds that configure the mesh; only these become live."""
    return kind.group.endswith(".istio.io")


async def wait(socket: Path, wanted: Sequence[Wanted], what: For, timeout_s: float) -> int:
    """Waits for all of them: 0, REFUSED as soon as one never will be, or LATE. Says what happens as it happens."""
    async with Client(socket) as client:
        waits = [asyncio.create_task(_one(client, each, what)) for each in wanted]
        try:
            async with asyncio.timeout(timeout_s):
                codes = await asyncio.gather(*waits)
        except TimeoutError:
            late = [each for each, task in zip(wanted, waits, strict=True) if not task.done() or task.cancelled()]
            for each in late:
                click.echo(f"{each}: not {what} after {timeout_s:g} s", err=True)
            return LATE
        finally:
            for task in waits:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
    return max(codes, default=0)


async def _one(client: Client, wanted: Wanted, what: For) -> int:
    full = f"{wanted.kind.plural}.{wanted.kind.group}"
    said = ""
    changes = client.follow(full, wanted.namespace, fields=f"metadata.name={wanted.name}")
    async with contextlib.aclosing(changes):
        async for each in changes:
            if isinstance(each, Listing):
                document = each.items[0] if each.items else None
            else:
                document = each.object if each.type in ("ADDED", "MODIFIED") else None
                if each.type == "BOOKMARK":
                    continue
            if document is None:
                click.echo(f"{wanted} is not there", err=True)
                return REFUSED
            code, line = verdict(document, what)
            if line and line != said:
                said = line
                click.echo(f"{wanted}: {line}", err=code == REFUSED)
            if code is not None:
                return code
    raise AssertionError("a followed kind never ends")


def verdict(document: Json, what: For) -> tuple[int | None, str]:
    """The exit code once there is one, and what the conditions of the object's present generation say."""
    generation = document["metadata"].get("generation")
    status: Json = document.get("status") or {}
    listed: list[Json] = status.get("conditions") or []
    now = {each["type"]: each for each in listed if each.get("observedGeneration") == generation}
    accepted, asked = now.get("Accepted"), now.get(_CONDITION[what])
    if accepted is not None and accepted["status"] == "False":
        return REFUSED, f"not accepted: {accepted['message']}"
    if asked is None:
        return None, ""
    line = str(asked["message"] or asked["reason"].lower())
    return (0 if asked["status"] == "True" else None), line
