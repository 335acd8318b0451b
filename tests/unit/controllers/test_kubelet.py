"""The kubelet on a platform in memory: order of steps, what it reports, how Pods end and come back."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lateen.api.struct import Json
from lateen.lib.findings import Finding
from lateen.lib.layout import Layout
from lateen.node import control
from lateen.platform.addresses import Addresses
from lateen.platform.controllers import documents as d
from lateen.platform.controllers import work
from lateen.platform.controllers.cluster import Cluster
from lateen.platform.controllers.events import Recorder
from lateen.platform.kubelet import Kubelet
from lateen.platform.pod import ContainerState, Ended, PodSandbox, PodState, ServiceVip
from lateen.platform.pod_status import POD_CANNOT_RUN
from lateen.platform.proxy import SETTINGS_CHANGED, Facts
from lateen.platform.sandbox import PodChanged, PodGone
from lateen.platform.settings import PlatformSettings
from tests.unit.controllers.documents import NOW
from tests.unit.controllers.test_work import SmallApi, until


class SmallPlatform:
    """Pods without processes: they are what the test says, and gone when they are deleted."""

    def __init__(self, journal: list[str]) -> None:
        self.journal = journal
        self.made: dict[str, PodSandbox] = {}
        self.table: tuple[ServiceVip, ...] = ()
        self._states: dict[str, PodState] = {}
        self._events: asyncio.Queue[PodChanged | PodGone] = asyncio.Queue()

    def say(self, state: PodState) -> None:
        self._states[state.uid] = state
        self._events.put_nowait(PodChanged(state))

    def vanish(self, uid: str) -> None:
        del self._states[uid], self.made[uid]
        self._events.put_nowait(PodGone(uid))

    def pods(self) -> Mapping[str, PodState]:
        return dict(self._states)

    async def create(self, spec: PodSandbox) -> PodState:
        assert spec.uid not in self.made
        self.journal.append(f"create {spec.name}")
        self.made[spec.uid] = spec
        self._states[spec.uid] = state_of(spec)
        return self._states[spec.uid]

    async def delete(self, uid: str, grace_s: float) -> None:
        if uid in self._states:
            self.journal.append(f"delete {uid} {grace_s:g}")
            del self._states[uid]
            self.made.pop(uid, None)
            self._events.put_nowait(PodGone(uid))

    async def lock(self, uid: str, *, on: bool) -> None:
        self.journal.append(f"lock {uid} {on}")
        self.say(msgspec.structs.replace(self._states[uid], locked=on))

    async def services(self, services: tuple[ServiceVip, ...]) -> None:
        self.table = services

    async def events(self) -> AsyncIterator[PodChanged | PodGone]:
        while True:
            yield await self._events.get()


def state_of(spec: PodSandbox, *containers: ContainerState, proxy_ready: bool = False) -> PodState:
    proxy = ContainerState(name="istio-proxy", phase="running", ready=proxy_ready, started_at=NOW)
    waiting = (ContainerState(name="web", phase="waiting", reason="ProxyStarting"),)
    return PodState(
        uid=spec.uid, namespace=spec.namespace, name=spec.name, ip=spec.ip or "", pid=1, started_at=NOW,
        proxy=proxy if spec.proxy else None, containers=containers or waiting,
    )  # fmt: skip


RUNNING = ContainerState(name="web", phase="running", ready=True, started=True, started_at=NOW)


class NodeApi(SmallApi):
    """With the two calls that only a kubelet makes."""

    def __init__(self, cluster: Cluster, journal: list[str]) -> None:
        super().__init__(cluster)
        self.journal = journal

    async def token(self, pod: Json, lifetime_s: int) -> str:
        return f"token of {d.name(pod)}"

    async def findings(self, pod: Json, findings: Iterable[Finding]) -> None:
        status = {**d.status(pod), "findings": [msgspec.to_builtins(each) for each in findings]}
        if status != d.status(pod):
            self.store({**self.objects["Pod", d.key(pod)], "status": status})

    async def finalize(self, pod: Json) -> None:
        self.journal.append(f"finalize {d.name(pod)}")
        self.drop("Pod", d.key(pod))


class Node:
    def __init__(
        self, api: NodeApi, platform: SmallPlatform, cluster: Cluster, journal: list[str], layout: Layout
    ) -> None:
        self.api, self.platform, self.cluster, self.journal, self.layout = api, platform, cluster, journal, layout

    def pod(self, name: str = "web-1") -> Json:
        return self.api.objects["Pod", ("shop", name)]

    async def started(self, name: str = "web-1", **spec: Any) -> PodSandbox:
        self.api.store(pod(name, **spec))
        await until(self.api, lambda: f"u-{name}" in self.platform.made)
        return self.platform.made[f"u-{name}"]

    async def ready(self, name: str = "web-1", **spec: Any) -> PodSandbox:
        made = await self.started(name, **spec)
        self.platform.say(state_of(made, RUNNING, proxy_ready=True))
        await until(self.api, lambda: d.ready(self.pod(name)))
        return made


@asynccontextmanager
async def node(
    tmp_path: Path, before: Callable[[NodeApi, SmallPlatform, Cluster], None] | None = None
) -> AsyncIterator[Node]:
    layout = Layout("t", tmp_path / "state", tmp_path / "run")
    (tmp_path / "run").mkdir()
    journal: list[str] = []
    cluster = Cluster(work.KINDS)
    api, platform = NodeApi(cluster, journal), SmallPlatform(journal)
    if before is not None:
        before(api, platform, cluster)
        api.deliver()
    facts = Facts(node_name="here", layout=layout, envoy_binary=Path("/bin/envoy"), drain_s=0.01)

    async def agent(request: Json) -> None:
        about = request["pod"]["name"] if "pod" in request else request["uid"]
        journal.append(f"{request['do']} {about}")

    async with asyncio.TaskGroup() as tasks:
        running: list[asyncio.Task[None]] = []

        def start(work: Awaitable[None]) -> None:
            async def awaited() -> None:
                await work

            running.append(tasks.create_task(awaited()))

        start(control.serve(layout.agent_socket, agent))
        start(Kubelet(facts, api, cluster, platform, Recorder(api, "here").say, lambda: NOW).run())
        await asyncio.sleep(0)
        try:
            yield Node(api, platform, cluster, journal, layout)
        finally:
            for each in running:
                each.cancel()


def pod(name: str = "web-1", **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": f"u-{name}", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "command": ["web"]}], "serviceAccountName": "shopper", **spec},
    }


async def test_the_agent_knows_a_pod_before_it_starts_and_its_files_are_private(tmp_path: Path) -> None:
    async with node(tmp_path) as one:
        made = await one.started()
        assert one.journal == ["add_pod web-1", "create web-1"]
        directory = one.layout.pod("u-web-1")
        assert (directory / "token").read_text() == "token of web-1"
        assert {(directory / name).stat().st_mode & 0o777 for name in ("token", "envoy.json")} == {0o600}
        document = msgspec.json.decode((directory / "envoy.json").read_bytes())
        assert document["node"]["id"] == "sidecar~10.88.0.2~web-1.shop~shop.svc.cluster.local"
        assert made.proxy is not None
        assert made.redirect is not None
        assert made.proxy.paths == (str(directory), str(one.layout.run / "xds"))
        accepted = one.pod()
        assert accepted["spec"]["nodeName"] == "here"
        assert d.labels(accepted) == {"app": "web", "security.istio.io/tlsMode": "istio"}
        assert "sidecar.istio.io/status" in d.annotations_of(accepted)


async def test_a_pod_that_declines_gets_no_proxy(tmp_path: Path) -> None:
    async with node(tmp_path) as one:
        document = pod()
        document["metadata"]["labels"]["sidecar.istio.io/inject"] = "false"
        one.api.store(document)
        await until(one.api, lambda: "u-web-1" in one.platform.made)
        made = one.platform.made["u-web-1"]
        assert (made.proxy, made.redirect) == (None, None)
        assert one.journal == ["create web-1"]
        assert "security.istio.io/tlsMode" not in d.labels(one.pod())


async def test_a_pod_is_ready_when_its_proxy_and_programs_are(tmp_path: Path) -> None:
    async with node(tmp_path) as one:
        made = await one.started()
        await until(one.api, lambda: d.status(one.pod()).get("podIP") == made.ip)
        assert d.phase(one.pod()) == "Pending"
        one.platform.say(state_of(made, RUNNING, proxy_ready=False))
        await until(one.api, lambda: d.phase(one.pod()) == "Running")
        assert not d.ready(one.pod())
        one.platform.say(state_of(made, RUNNING, proxy_ready=True))
        await until(one.api, lambda: d.ready(one.pod()))
        names = [each["name"] for each in one.pod()["status"]["containerStatuses"]]
        assert names == ["istio-proxy", "web"]


async def test_a_crashing_container_says_how_it_ended(tmp_path: Path) -> None:
    async with node(tmp_path) as one:
        made = await one.ready()
        last = Ended(exit_code=3, reason="Error", message="no database", started_at=NOW, finished_at=NOW)
        crashed = ContainerState(name="web", phase="waiting", reason="CrashLoopBackOff", restarts=4, last=last)
        one.platform.say(state_of(made, crashed, proxy_ready=True))
        await until(one.api, lambda: not d.ready(one.pod()))
        web = one.pod()["status"]["containerStatuses"][1]
        assert web["restartCount"] == 4
        assert web["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "exit code 3: no database"}}
        assert web["lastState"]["terminated"]["exitCode"] == 3
        assert d.phase(one.pod()) == "Running"


async def test_a_deleted_pod_leaves_then_ends_then_its_object_goes(tmp_path: Path) -> None:
    async with node(tmp_path) as one:
        await one.ready(terminationGracePeriodSeconds=7)
        one.journal.clear()
        await one.api.delete("Pod", ("shop", "web-1"), "u-web-1")
        await until(one.api, lambda: ("Pod", ("shop", "web-1")) not in one.api.objects)
        assert one.journal == ["delete u-web-1 7", "remove_pod u-web-1", "finalize web-1"]


async def test_a_finished_pod_gives_up_its_processes_and_keeps_its_status(tmp_path: Path) -> None:
    async with node(tmp_path) as one:
        made = await one.ready(restartPolicy="Never")
        last = Ended(exit_code=0, reason="Completed", started_at=NOW, finished_at=NOW)
        one.platform.say(state_of(made, ContainerState(name="web", phase="terminated", last=last), proxy_ready=True))
        await until(one.api, lambda: one.journal[-1] == "remove_pod u-web-1")
        assert "u-web-1" not in one.platform.made
        assert d.phase(one.pod()) == "Succeeded"
        assert one.pod()["status"]["containerStatuses"][1]["state"]["terminated"]["exitCode"] == 0


async def test_a_pod_that_cannot_run_says_why_and_runs_once_it_can(tmp_path: Path) -> None:
    async with node(tmp_path) as one:
        reference = {"configMapRef": {"name": "settings"}}
        one.api.store(pod(containers=[{"name": "web", "command": ["web"], "envFrom": [reference]}]))
        await until(one.api, lambda: "containerStatuses" in d.status(one.pod()))
        (web,) = one.pod()["status"]["containerStatuses"]
        assert web["state"]["waiting"] == {
            "reason": "CreateContainerConfigError",
            "message": "ConfigMap shop/settings does not exist",
        }
        assert [each["code"] for each in one.pod()["status"]["findings"]] == [POD_CANNOT_RUN]
        settings: Json = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": "shop"},
        }
        one.api.store({**settings, "data": {"A": "1"}})
        await until(one.api, lambda: "u-web-1" in one.platform.made)
        assert one.platform.made["u-web-1"].containers[0].env["A"] == "1"
        await until(one.api, lambda: one.pod()["status"]["findings"] == [])


async def test_settings_that_change_under_a_running_proxy_are_said_to(tmp_path: Path) -> None:
    def settings(concurrency: int) -> Json:
        metadata = {"name": "proxies", "namespace": "shop"}
        api = "networking.istio.io/v1beta1"
        return {"apiVersion": api, "kind": "ProxyConfig", "metadata": metadata, "spec": {"concurrency": concurrency}}

    def codes(one: Node) -> list[str]:
        return [each["code"] for each in d.status(one.pod()).get("findings", [])]

    async with node(tmp_path) as one:
        one.api.store(settings(1))
        await one.ready()
        assert codes(one) == []
        one.api.store(settings(2))
        await until(one.api, lambda: codes(one) == [SETTINGS_CHANGED])
        one.api.store(settings(1))
        await until(one.api, lambda: codes(one) == [])


async def test_running_pods_are_taken_up_after_a_restart_and_strangers_end(tmp_path: Path) -> None:
    def before(api: NodeApi, platform: SmallPlatform, cluster: Cluster) -> None:
        document = pod()
        document["spec"]["nodeName"] = "here"
        document["status"] = {"phase": "Running", "podIP": "10.88.0.2"}
        api.store(document)
        for uid, ip in (("u-web-1", "10.88.0.2"), ("u-stranger", "10.88.0.3")):
            spec = PodSandbox(uid=uid, namespace="shop", name=uid[2:], containers=(), log_dir="", ip=ip)
            platform.made[uid] = spec
            platform.say(state_of(spec, RUNNING))

    async with node(tmp_path, before) as one:
        await until(one.api, lambda: d.ready(one.pod()) and "u-stranger" not in one.platform.made)
        assert "u-web-1" in one.platform.made
        assert "create web-1" not in one.journal
        assert (await one.started("web-2")).ip == "10.88.0.4"


async def test_a_pod_whose_processes_are_lost_starts_again_at_its_address(tmp_path: Path) -> None:
    async with node(tmp_path) as one:
        first = await one.ready()
        said: list[bool] = []
        one.cluster.listen("Pod", lambda _, after: said.append(d.ready(after)) if after else None)
        one.platform.vanish("u-web-1")
        await until(one.api, lambda: one.journal.count("create web-1") == 2)
        assert one.platform.made["u-web-1"].ip == first.ip
        assert said[0] is True
        assert said[1] is False


async def test_the_service_table_reaches_the_platform(tmp_path: Path) -> None:
    async with node(tmp_path) as one:
        service: Json = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u-s"},
            "spec": {"clusterIP": "10.96.1.1", "ports": [{"port": 80}]},
        }
        one.api.store(service)
        await until(one.api, lambda: bool(one.platform.table))
        assert one.platform.table == (ServiceVip(vip="10.96.1.1", port=80),)
        changed = copy.deepcopy(service)
        changed["spec"]["ports"] = [{"port": 81}]
        one.api.store(changed)
        await until(one.api, lambda: one.platform.table[0].port == 81)


def test_addresses_are_given_again_last() -> None:
    addresses = Addresses(PlatformSettings(pod_range="10.88.0.0/29", gateway="10.88.0.1", host_address="10.88.0.6"))
    assert [addresses.next() for _ in range(3)] == ["10.88.0.2", "10.88.0.3", "10.88.0.4"]
    addresses.release("10.88.0.2")
    assert [addresses.next() for _ in range(2)] == ["10.88.0.5", "10.88.0.2"]
    with pytest.raises(LookupError):
        addresses.next()
    addresses.release("10.88.0.4")
    assert not addresses.take("10.88.0.3")
    assert not addresses.take("192.168.0.1")
    assert addresses.take("10.88.0.4")
