"""Controllers at work on a small API: which changes reach which objects, staleness and failures."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from lateen.api.struct import Json
from lateen.apiserver.errors import ConflictError, ExistsError, NotFoundError
from lateen.lib.usage import Measured
from lateen.platform.controllers import documents as d
from lateen.platform.controllers import work
from lateen.platform.controllers.cluster import Cluster, Queue
from lateen.platform.controllers.events import Recorder
from tests.unit.controllers.documents import NOW, deployment, merged, set_ready

VIPS = "10.96.0.0/16"


class SmallApi:
    """The API in memory: revisions, uids, compare-and-set. What it does reaches the cluster only by `deliver`."""

    def __init__(self, cluster: Cluster) -> None:
        self.objects: dict[tuple[str, d.Key], Json] = {}
        self.failing = 0
        self.calls: list[str] = []
        self._cluster = cluster
        self._revisions = itertools.count(1)
        self._events: list[tuple[str, Json]] = []

    def deliver(self) -> None:
        for kind, document in self._events:
            if document["kind"] not in self._cluster.kinds:
                continue
            (self._cluster.put if kind == "put" else self._cluster.remove)(document)
        self._events.clear()

    def of(self, kind: str) -> list[Json]:
        return [each for (its, _), each in sorted(self.objects.items()) if its == kind]

    def store(self, document: Json) -> Json:
        revision = str(next(self._revisions))
        document = copy.deepcopy({**document, "metadata": {**document["metadata"], "resourceVersion": revision}})
        self.objects[document["kind"], d.key(document)] = document
        self._events.append(("put", document))
        return document

    def drop(self, kind: str, key: d.Key) -> None:
        gone = self.objects.pop((kind, key))
        metadata = {**gone["metadata"], "resourceVersion": str(next(self._revisions))}
        self._events.append(("remove", {**gone, "metadata": metadata}))

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.failing:
            self.failing -= 1
            raise ConnectionRefusedError

    async def create(self, document: Json) -> Json:
        self._called("create")
        metadata = dict(document["metadata"])
        if "generateName" in metadata:
            metadata["name"] = f"{metadata.pop('generateName')}{len(self.objects)}"
        made = {**document, "metadata": {**metadata, "uid": f"u-{metadata['name']}"}}
        if (document["kind"], d.key(made)) in self.objects:
            raise ExistsError("exists")
        return self.store(made)

    async def delete(self, kind: str, key: d.Key, uid: str) -> Json | None:
        self._called("delete")
        found = self.objects.get((kind, key))
        if found is None:
            raise NotFoundError("gone")
        if d.uid(found) != uid:
            raise ConflictError("another one")
        if kind == "Pod":
            return self.store(merged(found, {"metadata": {"deletionTimestamp": d.timestamp(NOW)}}))
        self.drop(kind, key)
        return None

    async def patch(self, kind: str, key: d.Key, patch: Json) -> Json:
        self._called("patch")
        return self.store(merged(self.objects[kind, key], patch))

    async def replace_status(self, document: Json) -> Json:
        self._called("replace_status")
        found = self.objects[document["kind"], d.key(document)]
        if found["metadata"]["resourceVersion"] != document["metadata"]["resourceVersion"]:
            raise ConflictError("changed")
        kept = {name: value for name, value in d.status(found).items() if name == "findings"}
        return self.store({**found, "status": {**document["status"], **kept}})


@asynccontextmanager
async def working() -> AsyncIterator[tuple[SmallApi, Cluster]]:
    cluster = Cluster(work.KINDS)
    api = SmallApi(cluster)
    running = asyncio.create_task(
        work.run(work.controllers(api, cluster, VIPS, Measured, Recorder(api, "here").say, lambda: NOW))
    )
    try:
        yield api, cluster
    finally:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def until(api: SmallApi, reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while True:
            api.deliver()
            if reached():
                return
            await asyncio.sleep(0)


def pods_of(api: SmallApi) -> list[Json]:
    return [each for each in api.of("Pod") if d.active(each)]


def web_service() -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-service"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }


async def test_a_deployment_and_a_service_become_pods_an_address_and_endpoints() -> None:
    async with working() as (api, _):
        api.store(web_service())
        api.store(deployment(2))
        await until(api, lambda: len(pods_of(api)) == 2)
        for number, each in enumerate(pods_of(api)):
            changed = copy.deepcopy(each)
            changed["status"] = {"podIP": f"10.88.0.{number + 2}"}
            set_ready(changed, True)
            api.store(changed)
        await until(api, lambda: any(len(each["endpoints"]) == 2 for each in api.of("EndpointSlice")))
        await until(api, lambda: d.status(api.of("Deployment")[0]).get("availableReplicas") == 2)
        assert api.of("Service")[0]["spec"]["clusterIP"].startswith("10.96.")


async def test_pods_just_made_count_before_the_watch_tells_of_them() -> None:
    async with working() as (api, cluster):
        web = api.store(deployment(3))
        cluster.put(web)
        for _ in range(200):  # nothing is delivered meanwhile, and the Deployment is looked at again and again
            cluster.put(api.store({**web, "status": {"observedGeneration": _}}))
            await asyncio.sleep(0)
        assert len(api.of("Pod")) == 3


async def test_actions_that_fail_are_repeated() -> None:
    async with working() as (api, _):
        api.failing = 3
        api.store(deployment(1))
        await until(api, lambda: len(pods_of(api)) == 1)
        assert api.calls[:4] == ["patch"] * 4  # the number of its revision


async def test_every_namespace_gets_and_keeps_a_default_account() -> None:
    async with working() as (api, _):
        api.store({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "u-shop"}})
        await until(api, lambda: len(api.of("ServiceAccount")) == 1)
        api.drop("ServiceAccount", ("shop", "default"))
        await until(api, lambda: len(api.of("ServiceAccount")) == 1)


def document(name: str, revision: int) -> Json:
    return {"kind": "Pod", "metadata": {"name": name, "namespace": "shop", "resourceVersion": str(revision)}}


def test_the_cluster_ignores_what_is_older_than_it_knows() -> None:
    cluster, heard = Cluster(["Pod"]), list[tuple[Json | None, Json | None]]()
    cluster.listen("Pod", lambda before, after: heard.append((before, after)))
    cluster.put(new := document("a", 5))
    cluster.put(document("a", 4))
    cluster.remove(document("a", 4))
    assert cluster.all("Pod") == [new]
    cluster.remove(document("a", 6))
    cluster.put(document("a", 5))
    assert cluster.all("Pod") == []
    assert heard == [(None, new), (new, None)]
    cluster.put(document("a", 7))
    assert len(heard) == 3


def test_a_list_replaces_what_was_known_but_not_what_is_newer() -> None:
    cluster = Cluster(["Pod"])
    cluster.put(document("old", 1))
    cluster.put(document("newer", 9))
    cluster.replace("Pod", [document("found", 3)], revision=5)
    assert [d.name(each) for each in cluster.all("Pod")] == ["found", "newer"]


async def test_a_queue_gives_each_thing_once_and_later_ones_when_due() -> None:
    queue = Queue[str]()
    for item in ("a", "b", "a"):
        queue.add(item)
    queue.add_later("c", 0.02)
    queue.add_later("c", 60)
    assert [await queue.take() for _ in range(2)] == ["a", "b"]
    async with asyncio.timeout(5):
        assert await queue.take() == "c"
    queue.add_later("d", 60)
    queue.close()
