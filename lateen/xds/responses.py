"""Responses as bytes, shared by all streams that get the same in one round of flushes.

A round ends with a revision. What the first stream gets is joined from encoded parts; whoever gets the same resources
gets the very same bytes, nonce included, and one record of what was sent. Nonces never repeat, so an answer to an older
response is always told from one to a newer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from lateen.envoy.resource import Resource, ResourceType
from lateen.xds.audience import Audience, Entry
from lateen.xds.pump import Pump
from lateen.xds.wire import delta_response, sotw_response


@dataclass(frozen=True, slots=True)
class Response:
    """One response: its bytes, its nonce, and the versions in it by name. `parts` keeps alive what it is known by."""

    data: bytes
    nonce: str
    sent: Mapping[str, str]
    parts: tuple[Resource, ...]


_Key = tuple[bool, int, tuple[int, ...], tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]]


class Responses:
    """Makes responses. For the loop's thread."""

    def __init__(self, types: tuple[ResourceType, ...], pump: Pump) -> None:
        self._types = types
        self._pump = pump
        self._made: dict[_Key, Response] = {}
        self._nonce = 0

    def end_round(self) -> None:
        """Nothing that was made is given out again."""
        self._made.clear()

    def delta(
        self,
        audience: Audience,
        index: int,
        resources: Mapping[str, Resource],
        removed: tuple[str, ...],
        aliases: Mapping[str, tuple[str, ...]],
    ) -> Response:
        """Resources and removed names for a delta stream; `aliases` are other names that it asked for them by."""
        parts = tuple(resources.values())
        key = (True, index, tuple(map(id, parts)), removed, tuple(aliases.items()))
        found = self._made.get(key)
        if found is None:
            kind, nonce = self._types[index], self._next()
            chunks = [self._chunk(audience, index, each, True, aliases.get(each.name, ())) for each in parts]
            data = delta_response(kind.type_url, chunks, removed, str(self._pump.drained), nonce)
            sent = {name: each.version for name, each in resources.items()}
            found = self._made[key] = Response(data, nonce, sent, parts)
        return found

    def sotw(
        self, audience: Audience, index: int, full: Mapping[str, Resource], new: Mapping[str, Resource]
    ) -> Response:
        """All resources of a type for a state-of-the-world stream, of which some are `new` to it."""
        parts = tuple(full.values())
        key = (False, index, tuple(map(id, parts)), tuple(new), ())
        found = self._made.get(key)
        if found is None:
            kind, nonce = self._types[index], self._next()
            chunks = [self._chunk(audience, index, each, False, ()) for each in parts]
            data = sotw_response(kind.type_url, chunks, _version_of(full), nonce)
            found = self._made[key] = Response(data, nonce, {name: each.version for name, each in new.items()}, parts)
        return found

    def nothing(self, type_url: str, removed: tuple[str, ...], *, delta: bool) -> bytes:
        """The answer about a type nobody has here."""
        nonce = self._next()
        if delta:
            return delta_response(type_url, (), removed, "", nonce)
        return sotw_response(type_url, (), "", nonce)

    def _next(self) -> str:
        self._nonce += 1
        return str(self._nonce)

    def _chunk(
        self, audience: Audience, index: int, resource: Resource, delta: bool, aliases: tuple[str, ...]
    ) -> bytes:
        shelf = audience.shelf(index, resource.name)
        entry = shelf.entries.get(resource.name) or Entry(index, shelf, resource.name)
        return entry.chunk(self._types[index].type_url, resource, delta, aliases)


def _version_of(resources: Mapping[str, Resource]) -> str:
    digest = blake2b(digest_size=8)
    for name in sorted(resources):
        digest.update(f"{name}\0{resources[name].version}\0".encode())
    return digest.hexdigest()
