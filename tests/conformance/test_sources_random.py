"""Random objects that change at random: from memory, from a directory and from the API the control plane sees the same.

Each example is a few worlds, one after the other. The directory gets them as files (an object may move from one file to
another), the API by the ways that clients have: create, replace, merge patches, server-side apply, delete. After each
world the graphs behind the three must have the same inputs, and again after the API's store was opened anew.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any, cast

import msgspec
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lateen.api.check import check
from lateen.api.struct import Object
from lateen.apiserver.applying import apply_files
from lateen.apiserver.client import Client
from lateen.apiserver.store import Store
from lateen.daemon.inputs import Inputs, initial
from lateen.engine import Graph
from lateen.lib.ids import Ref
from lateen.sources.directory import DirectorySource
from lateen.sources.memory import load
from tests.unit.apiserver.api import serving

Json = dict[str, Any]
Key = tuple[str, str, str]
"""Kind, namespace and name."""
World = dict[Key, int]
"""Which objects there are, each in one of its variants."""

NAMESPACES = ("default", "istio-system")


def service(variant: int) -> Json:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "grpc", "port": 81}][: 1 + variant % 2]
    return {"apiVersion": "v1", "spec": {"selector": {"app": f"a{variant}"}, "ports": ports}}


def route(variant: int) -> Json:
    destinations = [{"destination": {"host": f"h{each}"}, "weight": 50} for each in range(2)]
    rules: list[Json] = [{"route": destinations}, {"timeout": "1.5s", "route": [{"destination": {"host": "late"}}]}]
    matched: Json = {"match": [{"uri": {"prefix": f"/{variant}"}}], "rewrite": {"uri": "/"}, "route": destinations[:1]}
    matched["route"] = [{"destination": {"host": "h0"}}]
    return {
        "apiVersion": "networking.istio.io/v1beta1" if variant == 3 else "networking.istio.io/v1",
        "spec": {"hosts": ["h0", "h1"][: 1 + variant % 2], "http": [matched, *rules[variant % 2 :]]},
    }


def rule(variant: int) -> Json:
    subsets = [{"name": f"v{each}", "labels": {"version": f"v{each}"}} for each in range(variant)]
    policy: Json = {"connectionPool": {"tcp": {"maxConnections": 1 + variant}}}
    spec: Json = {
        "host": "h0",
        **({"subsets": subsets} if subsets else {}),
        **({"trafficPolicy": policy} if variant else {}),
    }
    return {"apiVersion": "networking.istio.io/v1", "spec": spec}


def entry(variant: int) -> Json:
    ports = [{"number": 443, "name": "https", "protocol": "TLS"}]
    spec: Json = {
        "hosts": [f"x{variant}.example.com"],
        "ports": ports,
        "resolution": "DNS",
        "location": "MESH_EXTERNAL",
    }
    return {"apiVersion": "networking.istio.io/v1", "spec": spec}


def peers(variant: int) -> Json:
    mode = ("STRICT", "PERMISSIVE", "DISABLE", "STRICT")[variant]
    selector: Json = {"selector": {"matchLabels": {"app": "a1"}}} if variant > 1 else {}
    return {"apiVersion": "security.istio.io/v1", "spec": {"mtls": {"mode": mode}, **selector}}


def config_map(variant: int) -> Json:
    return {"apiVersion": "v1", "data": {f"k{each}": "x" * each for each in range(variant + 1)}}


def secret(variant: int) -> Json:
    return {"apiVersion": "v1", "type": "Opaque", "data": {"key": "Zm9v" if variant % 2 else "YmFy"}}


MAKERS = {
    "Service": service,
    "VirtualService": route,
    "DestinationRule": rule,
    "ServiceEntry": entry,
    "PeerAuthentication": peers,
    "ConfigMap": config_map,
    "Secret": secret,
}
KEYS = st.tuples(st.sampled_from(sorted(MAKERS)), st.sampled_from(NAMESPACES), st.sampled_from(["a", "b"]))
WORLDS = st.lists(st.dictionaries(KEYS, st.integers(0, 3), max_size=8), min_size=2, max_size=4)


def document(key: Key, variant: int) -> Json:
    kind, namespace, name = key
    metadata: Json = {"name": name, "namespace": namespace}
    if variant % 2:
        metadata |= {"labels": {"variant": str(variant)}, "annotations": {"example.com/note": f"n{variant}"}}
    return {"kind": kind, "metadata": metadata, **MAKERS[kind](variant)}


def refs() -> list[Ref]:
    kinds = {
        kind: next(key for key, _ in load(yaml.safe_dump(document((kind, "default", "a"), 1))).put) for kind in MAKERS
    }
    found: list[Ref] = []
    for kind, ref in kinds.items():
        assert isinstance(ref, Ref)
        found += [Ref(ref.group, kind, namespace, name) for namespace in NAMESPACES for name in ("a", "b")]
    return found


UNIVERSE = refs()


def seen(graph: Graph) -> dict[str, Object]:
    """What is there, without what a store gives every object."""
    found: dict[str, Object] = {}
    for ref in UNIVERSE:
        value = graph.input(ref)
        if isinstance(value, Object):
            metadata = msgspec.structs.replace(value.metadata, uid="", creation_timestamp="")
            found[str(ref)] = msgspec.structs.replace(value, metadata=metadata, api_version="")
    return found


def difference(before: Any, after: Any) -> Any:
    """The JSON merge patch (RFC 7386) from one to the other."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    old, new = cast("Json", before), cast("Json", after)
    patch: Json = {name: None for name in old if name not in new}
    return patch | {name: difference(old.get(name), part) for name, part in new.items() if old.get(name) != part}


class Folder:
    """A directory and the graph behind it."""

    def __init__(self, directory: Path) -> None:
        self.graph = Graph()
        self._directory = directory
        directory.mkdir()
        self._source = DirectorySource(directory, check, self.graph.commit, allow_mass_delete=True)

    async def become(self, world: World, turn: int) -> None:
        files: dict[str, list[str]] = {f"{each}.yaml": [] for each in range(3)}
        for key, variant in world.items():
            place = (sum(map(ord, "".join(key))) + (turn if variant % 2 else 0)) % 3
            files[f"{place}.yaml"].append(yaml.safe_dump(document(key, variant)))
        for name, texts in files.items():
            (self._directory / name).write_text("---\n".join(texts))
        if turn == 0:
            await self._source.load()
        else:
            self._source._events()  # what the kernel has to say
            await self._source._look()
        due = self._source.folder.due_at
        if due is not None and (change := self._source.folder.update(due)) is not None:
            self.graph.commit(change)


async def through_the_api(client: Client, before: World, after: World, ways: list[int]) -> None:
    for key in before.keys() - after.keys():
        kind, namespace, name = key
        await client.delete(kind, name, namespace)
    for key, variant in after.items():
        # an object stays with one client: an apply takes back only what an apply has set
        wanted, way = document(key, variant), ways[sum(map(ord, "".join(key))) % len(ways)]
        if way == 0:
            assert (await apply_files(client, [("a.json", json.dumps(wanted))])).applied
        elif key not in before:
            await client.create(wanted)
        elif way == 1:
            await client.replace(wanted)
        else:
            kind, namespace, name = key
            old = await client.get(kind, name, namespace)
            own = {
                part: old["metadata"][part]
                for part in ("name", "namespace", "labels", "annotations")
                if part in old["metadata"]
            }
            there = {**old, "metadata": own}
            there.pop("status", None)
            change = difference(there, {**wanted, "apiVersion": old["apiVersion"]})
            await client.patch(kind, name, namespace, change)


async def run(worlds: list[World], ways: list[int]) -> None:
    with tempfile.TemporaryDirectory(prefix="lateen-") as name:
        directory = Path(name)
        folder = Folder(directory / "folder")
        store = await Store.open(directory / "store.db")
        graph = Graph()
        graph.commit(initial(store.rows()))
        store.subscribe(Inputs(graph.commit))
        before: World = {}
        async with serving(store) as client:
            for turn, world in enumerate(worlds):
                memory = Graph()
                memory.commit(load("---\n".join(yaml.safe_dump(document(*each)) for each in world.items())))
                expected = seen(memory)
                assert len(expected) == len(world)
                await folder.become(world, turn)
                assert seen(folder.graph) == expected
                await through_the_api(client, before, world, ways)
                assert seen(graph) == expected
                before = world
        await store.close()
        store = await Store.open(directory / "store.db")
        again = Graph()
        again.commit(initial(store.rows()))
        await store.close()
        assert seen(again) == seen(graph)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds=WORLDS, ways=st.lists(st.integers(0, 2), min_size=1, max_size=8))
def test_three_sources_one_picture(worlds: list[World], ways: list[int]) -> None:
    asyncio.run(run(worlds, ways))
