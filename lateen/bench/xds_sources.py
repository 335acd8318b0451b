"""Where the mesh of a benchmark is: a folder of YAML, or a Kubernetes API.

Both are written with `put`, before the server under test starts or while it runs. In the folder each call is one file,
replaced by a rename; in the API each object that is another than before is one request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from lateen.apiserver.client import Client
from lateen.bench.plane import Plane

Json = dict[str, Any]


class Source(Protocol):
    """A place for objects. `name` tells groups of objects apart that are replaced together."""

    def put(self, name: str, documents: Sequence[Json]) -> None:
        """Makes or replaces objects."""
        ...

    def delete(self, name: str, documents: Sequence[Json]) -> None:
        """Takes them away."""
        ...


class FolderSource:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, documents: Sequence[Json]) -> None:
        fresh = self._folder / f".{name}.new"
        fresh.write_text("\n---\n".join(json.dumps(each) for each in documents))
        fresh.rename(self._folder / f"{name}.yaml")

    def delete(self, name: str, documents: Sequence[Json]) -> None:
        (self._folder / f"{name}.yaml").unlink()


class ApiSource:
    """Objects of a Kubernetes API, that of a control plane of lateen's own."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._runner = asyncio.Runner()
        self._client = Client(plane.layout.api_socket)
        self._known: dict[tuple[str, ...], Json] = {}

    def load(self, documents: Sequence[Json]) -> None:
        """Makes many objects at once."""
        for start in range(0, len(documents), 200):
            self._plane.apply(documents[start : start + 200])
        self._known |= {_key(each): each for each in documents}

    def put(self, name: str, documents: Sequence[Json]) -> None:
        changed = [each for each in documents if self._known.get(_key(each)) != each]
        self._runner.run(self._put(changed))
        self._known |= {_key(each): each for each in changed}

    def delete(self, name: str, documents: Sequence[Json]) -> None:
        self._runner.run(self._delete(documents))

    async def _delete(self, documents: Sequence[Json]) -> None:
        for each in documents:
            metadata = each["metadata"]
            await self._client.delete(each["kind"], metadata["name"], metadata.get("namespace", ""), grace_s=0)
            del self._known[_key(each)]

    async def _put(self, documents: Sequence[Json]) -> None:
        for each in documents:
            await (self._client.replace(each) if _key(each) in self._known else self._client.create(each))

    def close(self) -> None:
        """Ends the connections."""
        self._runner.run(self._client.close())
        self._runner.close()


def _key(document: Json) -> tuple[str, ...]:
    metadata = document["metadata"]
    return document["apiVersion"], document["kind"], metadata.get("namespace", ""), metadata["name"]
