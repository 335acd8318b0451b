"""One set of objects through every source gives the graph the same inputs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from lateen.api.check import check
from lateen.api.struct import Object
from lateen.apiserver.applying import apply_files, delete_files
from lateen.apiserver.store import Store
from lateen.daemon.inputs import Inputs, initial
from lateen.engine import Graph, Transaction
from lateen.lib.ids import Ref
from lateen.sources.directory import DirectorySource
from lateen.sources.memory import load
from tests.unit.apiserver.api import serving

OBJECTS = """\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  selector: {app: cart}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart]
  http:
    - timeout: 1.5s
      route:
        - {destination: {host: cart, subset: v1}, weight: 90}
        - {destination: {host: cart, subset: v2}, weight: 10}
---
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec:
  host: cart
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: no-namespace}
data: {x: "1"}
---
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: shop}
type: kubernetes.io/tls
data: {tls.crt: Zm9v, tls.key: YmFy}
"""

Sourced = Callable[[Path, str, str], Awaitable[Graph]]
"""A graph after a first text was there and a second one replaced it."""


async def through_memory(_: Path, first: str, second: str) -> Graph:
    graph = Graph()
    before, after = load(first), load(second)
    graph.commit(before)
    kept = {key for key, _ in after.put}
    graph.commit(Transaction(put=after.put, delete=[key for key, _ in before.put if key not in kept]))
    return graph


async def through_a_folder(directory: Path, first: str, second: str) -> Graph:
    folder = directory / "folder"
    folder.mkdir()
    graph = Graph()
    source = DirectorySource(folder, check, graph.commit)
    (folder / "a.yaml").write_text(first)
    await source.load()
    (folder / "a.yaml").write_text(second)
    await source._look()
    due = source.folder.due_at
    if due is not None and (change := source.folder.update(due)) is not None:
        graph.commit(change)
    return graph


async def through_the_store(directory: Path, first: str, second: str) -> Graph:
    store = await Store.open(directory / "store.db")
    graph = Graph()
    graph.commit(initial(store.rows()))
    store.subscribe(Inputs(graph.commit))

    async with serving(store) as client:
        assert (await apply_files(client, [("a.yaml", first)])).applied
        assert (await apply_files(client, [("a.yaml", second)])).applied
        gone = [part for part in first.split("---\n") if part not in second.split("---\n")]
        assert (await delete_files(client, [("a.yaml", "---\n".join(gone))])).applied or not gone
    await store.close()
    return graph


async def through_the_store_and_a_restart(directory: Path, first: str, second: str) -> Graph:
    await through_the_store(directory, first, second)
    store = await Store.open(directory / "store.db")
    graph = Graph()
    graph.commit(initial(store.rows()))
    await store.close()
    return graph


def bare(value: Object | None) -> Object | None:
    """The object without what the store gives every object."""
    if value is None:
        return None
    metadata = msgspec.structs.replace(value.metadata, uid="", creation_timestamp="")
    return msgspec.structs.replace(value, metadata=metadata)


def refs(text: str) -> list[Ref]:
    return [key for key, _ in load(text).put if isinstance(key, Ref)]


@pytest.mark.parametrize(
    "through", [through_memory, through_a_folder, through_the_store, through_the_store_and_a_restart]
)
async def test_the_same_objects_come_through(tmp_path: Path, through: Sourced) -> None:
    shorter = "---\n".join(OBJECTS.split("---\n")[:4])
    for number, (first, second) in enumerate(((OBJECTS, OBJECTS), (shorter, OBJECTS), (OBJECTS, shorter))):
        directory = tmp_path / str(number)
        directory.mkdir()
        expected = dict(load(second).put)
        graph = await through(directory, first, second)
        assert {ref: bare(graph.input(ref)) for ref in refs(OBJECTS)} == {
            ref: expected.get(ref) for ref in refs(OBJECTS)
        }
