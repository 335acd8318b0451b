"""Events: what happens to objects, told to people. The same again within its hour counts up instead of a new one.

Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

import collections
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from lateen.api.struct import Json
from lateen.lib.errors import LateenError
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Say

_REMEMBERED: Final = 4_096
_SAME_S: Final = 600.0
_MESSAGE: Final = 1_024


Tell = Callable[[Say], Awaitable[None]]
"""Writes an event."""


class Events(Protocol):
    """What events are written through."""

    async def create(self, document: Json) -> Json: ...
    async def patch(self, kind: str, key: d.Key, patch: Json) -> Json: ...


class _Told(msgspec.Struct, frozen=True):
    name: str
    count: int
    at: float


class Recorder:
    """Writes events; one that cannot be written is lost, and holds nobody up but its writer."""

    def __init__(self, api: Events, host: str, clock: Callable[[], float] = time.time) -> None:
        self._api = api
        self._host = host
        self._clock = clock
        self._told: collections.OrderedDict[tuple[str, ...], _Told] = collections.OrderedDict()

    async def say(self, said: Say) -> None:
        """One event."""
        now, about = self._clock(), said.about
        message = said.message[:_MESSAGE]
        same = (d.uid(about), said.component, said.reason, message)
        before = self._told.pop(same, None)
        try:
            if before is not None and before.at + _SAME_S > now:
                self._told[same] = _Told(before.name, before.count + 1, now)
                change = {"count": before.count + 1, "lastTimestamp": d.timestamp(now)}
                await self._api.patch("Event", (d.namespace(about) or "default", before.name), change)
                return
            name = f"{d.name(about)}.{d.digest([*same, now], 16)}"
            self._told[same] = _Told(name, 1, now)
            await self._api.create(self._document(said, name, message, now))
        except LateenError:  # its namespace is going, the store is full
            self._told.pop(same, None)
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)

    def _document(self, said: Say, name: str, message: str, now: float) -> Json:
        about, at = said.about, d.timestamp(now)
        involved = {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "namespace": d.namespace(about),
            "name": d.name(about),
            "uid": d.uid(about),
            "resourceVersion": about["metadata"].get("resourceVersion", ""),
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": d.namespace(about) or "default"},
            "involvedObject": {key: value for key, value in involved.items() if value},
            "reason": said.reason,
            "message": message,
            "type": "Warning" if said.warning else "Normal",
            "count": 1,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "source": {"component": said.component, "host": self._host},
            "reportingComponent": said.component,
            "reportingInstance": self._host,
        }
