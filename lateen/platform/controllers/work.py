"""Running the controllers: which object to look at when something changes, and carrying out what they want.

Each controller is a queue of keys, filled by the changes of the kinds it reads, and a pure function from the
cluster to an Outcome. A key whose actions fail is looked at again, later each time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from lateen.api.struct import Json
from lateen.apiserver.errors import NotFoundError
from lateen.lib.errors import LateenError
from lateen.lib.usage import Measured
from lateen.platform.controllers import account, cron_job, deployment, endpoints, job, service, sets
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Action, Create, Delete, Outcome, Patch, Say, Status
from lateen.platform.controllers.autoscaler import Autoscalers
from lateen.platform.controllers.cluster import Cluster, Queue
from lateen.platform.controllers.events import Tell

KINDS = (
    "Namespace", "ServiceAccount", "Service", "EndpointSlice", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet",
    "Job", "CronJob", "HorizontalPodAutoscaler", "Pod", "ConfigMap", "Secret", "EnvoyFilter", "ProxyConfig", "Sidecar",
    "Node",
)  # fmt: skip
"""The kinds that controllers and the kubelet read."""

RETRY_FIRST_S, RETRY_LAST_S = 0.05, 10.0

_log = structlog.stdlib.get_logger("lateen.controllers")


class Api(Protocol):
    """What controllers write through. Each raises an ApiError when refused, OSError when the API can't be reached."""

    async def create(self, document: Json) -> Json:
        """The object as made; `generateName` gets its five letters."""
        ...

    async def delete(self, kind: str, key: d.Key, uid: str) -> Json | None:
        """The object as it is on its way out, None when it is gone at once. ConflictError for another uid."""
        ...

    async def patch(self, kind: str, key: d.Key, patch: Json) -> Json:
        """The object as changed by a JSON merge patch."""
        ...

    async def replace_status(self, document: Json) -> Json:
        """The object with the status of this document. ConflictError when it has changed since."""
        ...


async def perform(api: Api, cluster: Cluster, actions: Iterable[Action], tell: Tell) -> None:
    """Carry actions out one after the other; the answers go into the cluster. What is gone already is done."""
    for action in actions:
        try:
            match action:
                case Create(document, by):
                    made = await api.create(document)
                    cluster.put(made)
                    await _say_of(tell, by, "SuccessfulCreate", f"Created {made['kind'].lower()}: {d.name(made)}")
                case Delete(kind, key, uid, by):
                    left = await api.delete(kind, key, uid)
                    if left is not None:
                        cluster.put(left)
                    await _say_of(tell, by, "SuccessfulDelete", f"Deleted {kind.lower()}: {key[1]}")
                case Patch(kind, key, patch):
                    cluster.put(await api.patch(kind, key, patch))
                case Status(document, status):
                    cluster.put(await api.replace_status({**document, "status": status}))
                case Say():
                    await tell(action)
        except NotFoundError:
            continue


async def _say_of(tell: Tell, by: Json | None, reason: str, message: str) -> None:
    if by is not None:
        await tell(Say(by, reason, message, f"{by['kind'].lower()}-controller"))


_Make = Callable[[str, Callable[[d.Key], Outcome]], Queue[d.Key]]
"""Makes a controller of a name over a look; its queue."""


class Controller:
    """One controller at work: keys in, actions out."""

    def __init__(self, name: str, look: Callable[[d.Key], Outcome], api: Api, cluster: Cluster, tell: Tell) -> None:
        self.queue: Queue[d.Key] = Queue()
        self._name = name
        self._look = look
        self._api = api
        self._cluster = cluster
        self._tell = tell
        self._failures: dict[d.Key, int] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                await self._one(await self.queue.take())
        finally:
            self.queue.close()

    async def _one(self, key: d.Key) -> None:
        outcome = self._look(key)
        try:
            await perform(self._api, self._cluster, outcome.actions, self._tell)
        except (LateenError, OSError) as error:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            delay_s = min(RETRY_FIRST_S * 2 ** min(count - 1, 10), RETRY_LAST_S)
            if count > 3:
                _log.warning("actions failed", controller=self._name, key=key, error=repr(error), again_s=delay_s)
            self.queue.add_later(key, delay_s)
            return
        self._failures.pop(key, None)
        if outcome.again_s is not None:
            self.queue.add_later(key, outcome.again_s)


def controllers(
    api: Api,
    cluster: Cluster,
    vip_range: str,
    measured: Callable[[], Measured],
    tell: Tell,
    clock: Callable[[], float] = time.time,
) -> list[Controller]:
    """All controllers, listening to the cluster. `measured`: what Pods use."""

    def owners_of(kind: str, queue: Queue[d.Key]) -> None:
        """Look at the owner of a Pod that changed; at all that could claim it, when it has none."""

        def changed(before: Json | None, after: Json | None) -> None:
            for pod in (before, after):
                if pod is None:
                    continue
                reference = d.owner(pod)
                if reference is not None:
                    if reference["kind"] == kind:
                        queue.add((d.namespace(pod), reference["name"]))
                    continue
                for each in cluster.namespace(kind, d.namespace(pod)):
                    if d.matches(d.spec(each).get("selector"), d.labels(pod)):
                        queue.add(d.key(each))

        cluster.listen("Pod", changed)

    def look(kind: str, reconcile: Callable[[Json, list[Json], float], Outcome]) -> Callable[[d.Key], Outcome]:
        def outcome(key: d.Key) -> Outcome:
            found = cluster.get(kind, key)
            return Outcome() if found is None else reconcile(found, cluster.namespace("Pod", key[0]), clock())

        return outcome

    made: list[Controller] = []

    def controller(name: str, looking: Callable[[d.Key], Outcome]) -> Queue[d.Key]:
        one = Controller(name, looking, api, cluster, tell)
        made.append(one)
        return one.queue

    _listen_for_deployments(cluster, controller, clock)

    for kind, reconcile in _OF_PODS.items():
        queue = controller(kind, look(kind, reconcile))
        cluster.listen(kind, _to(queue))
        owners_of(kind, queue)

    def cron(key: d.Key) -> Outcome:
        found = cluster.get("CronJob", key)
        return Outcome() if found is None else cron_job.reconcile(found, cluster.namespace("Job", key[0]), clock())

    jobs = controller("CronJob", cron)
    cluster.listen("CronJob", _to(jobs))

    def job_changed(before: Json | None, after: Json | None) -> None:
        one = after or before
        owner = d.owner(one) if one is not None else None
        if one is not None and owner is not None and owner["kind"] == "CronJob":
            jobs.add((d.namespace(one), owner["name"]))

    cluster.listen("Job", job_changed)

    _listen_for_autoscalers(cluster, controller, Autoscalers(cluster, measured, clock))

    addresses = controller("Service address", lambda _: service.allocate(cluster.all("Service"), vip_range))
    cluster.listen(
        "Service", lambda _, after: addresses.add(("", "")) if after and service.needs_address(after) else None
    )

    _listen_for_endpoints(cluster, controller("EndpointSlice", lambda key: _endpoints(cluster, key)))

    accounts = controller("ServiceAccount", lambda key: _account(cluster, key))
    cluster.listen("Namespace", _to(accounts))
    cluster.listen("ServiceAccount", lambda _, after: None if after else _all(accounts, cluster, "Namespace"))

    return made


_OF_PODS = {
    "ReplicaSet": sets.replica_set,
    "StatefulSet": sets.stateful_set,
    "DaemonSet": sets.daemon_set,
    "Job": job.reconcile,
}
"""Controllers over one object and the Pods of its namespace."""


def _to(queue: Queue[d.Key]) -> Callable[[Json | None, Json | None], None]:
    def changed(before: Json | None, after: Json | None) -> None:
        one = after or before
        if one is not None:
            queue.add(d.key(one))

    return changed


def _all(queue: Queue[d.Key], cluster: Cluster, kind: str) -> None:
    for each in cluster.all(kind):
        queue.add(d.key(each))


def _account(cluster: Cluster, key: d.Key) -> Outcome:
    namespace = cluster.get("Namespace", key)
    return Outcome() if namespace is None else account.reconcile(namespace, cluster.keys("ServiceAccount"))


def _endpoints(cluster: Cluster, key: d.Key) -> Outcome:
    found = cluster.get("Service", key)
    if found is None:
        return Outcome()
    slices = [
        each
        for each in cluster.namespace("EndpointSlice", key[0])
        if d.labels(each).get(endpoints.SERVICE_LABEL) == key[1]
    ]
    return endpoints.reconcile(found, cluster.namespace("Pod", key[0]), slices)


def _listen_for_deployments(cluster: Cluster, controller: _Make, clock: Callable[[], float]) -> None:
    def look(key: d.Key) -> Outcome:
        found = cluster.get("Deployment", key)
        if found is None:
            return Outcome()
        sets, pods = cluster.namespace("ReplicaSet", key[0]), cluster.namespace("Pod", key[0])
        return deployment.reconcile(found, sets, pods, clock())

    queue = controller("Deployment", look)

    def set_changed(before: Json | None, after: Json | None) -> None:
        for each in (before, after):
            reference = d.owner(each) if each is not None else None
            if each is not None and reference is not None and reference["kind"] == "Deployment":
                queue.add((d.namespace(each), reference["name"]))
            elif each is not None and reference is None:
                for one in cluster.namespace("Deployment", d.namespace(each)):
                    if d.matches(d.spec(one).get("selector"), d.labels(each)):
                        queue.add(d.key(one))

    def pod_changed(before: Json | None, after: Json | None) -> None:
        for each in (before, after):
            reference = d.owner(each) if each is not None else None
            if each is not None and reference is not None and reference["kind"] == "ReplicaSet":
                set_changed(cluster.get("ReplicaSet", (d.namespace(each), reference["name"])), None)

    cluster.listen("Deployment", _to(queue))
    cluster.listen("ReplicaSet", set_changed)
    cluster.listen("Pod", pod_changed)


def _listen_for_autoscalers(cluster: Cluster, controller: _Make, scalers: Autoscalers) -> None:
    queue = controller("HorizontalPodAutoscaler", scalers)

    def changed(before: Json | None, after: Json | None) -> None:
        """What it says of itself is no reason to look again."""
        if after is None:
            scalers.forget(d.uid(before or {"metadata": {}}))
        elif before is None or before["metadata"].get("generation") != after["metadata"].get("generation"):
            queue.add(d.key(after))

    cluster.listen("HorizontalPodAutoscaler", changed)


def _listen_for_endpoints(cluster: Cluster, queue: Queue[d.Key]) -> None:
    def pod_changed(before: Json | None, after: Json | None) -> None:
        one = after or before
        if one is None:
            return
        for each in cluster.namespace("Service", d.namespace(one)):
            if any(pod is not None and endpoints.selects(each, d.labels(pod)) for pod in (before, after)):
                queue.add(d.key(each))

    def slice_changed(before: Json | None, after: Json | None) -> None:
        one = after or before
        if one is not None:
            queue.add((d.namespace(one), d.labels(one).get(endpoints.SERVICE_LABEL, "")))

    cluster.listen("Service", _to(queue))
    cluster.listen("Pod", pod_changed)
    cluster.listen("EndpointSlice", slice_changed)


async def run(controllers: Iterable[Controller]) -> None:
    """Run controllers until cancelled; the cluster must be complete, or they would act on half of the picture."""
    async with asyncio.TaskGroup() as tasks:
        for each in controllers:
            tasks.create_task(each.run())
