"""The kubelet: makes the Pods of the API be processes, and tells the API how they are.

Each Pod has one task, so its steps follow one another: accept it (node name, and the labels by which the rest of the
mesh knows that it has a proxy), give it an address, a token, a certificate's way (the agent) and a bootstrap, start
it, report what its init says, and end it in the order that loses no request: it leaves the endpoints first
(`drain_s`), then its programs get SIGTERM, then its proxy drains, then the object goes. A finished Pod gives up its
processes and keeps its status and logs. After a restart the Pods that still run are found by the platform and taken
up where they are; one whose processes are gone (the machine was restarted) is started again at the same address.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from lateen.api.struct import Json
from lateen.apiserver.errors import ConflictError, NotFoundError
from lateen.engine import Graph
from lateen.lib.errors import LateenError
from lateen.lib.findings import Finding
from lateen.node import control
from lateen.node.workload import PodSpec
from lateen.platform import pod_events, pod_status, translate
from lateen.platform.addresses import Addresses
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.cluster import Cluster, Queue
from lateen.platform.controllers.events import Tell
from lateen.platform.controllers.service import vips
from lateen.platform.environment import ConfigError
from lateen.platform.pod import PodState, ServiceVip
from lateen.platform.pod_api import PodApi, Pods
from lateen.platform.policies import Policies
from lateen.platform.proxy import PATCH_REFUSED, SETTINGS_CHANGED, Facts, PodProxy
from lateen.platform.sandbox import PodChanged, PodGone

OWN_CODES = frozenset({pod_status.POD_CANNOT_RUN, PATCH_REFUSED, SETTINGS_CHANGED})
"""What the kubelet says of Pods."""

TLS_MODE_LABEL = "security.istio.io/tlsMode"
STATUS_ANNOTATION = "sidecar.istio.io/status"
TOKEN_LIFETIME_S = 12 * 3600
TOKEN_RENEWAL_S = TOKEN_LIFETIME_S / 2
RETRY_FIRST_S, RETRY_LAST_S = 0.1, 10.0

_log = structlog.stdlib.get_logger("lateen.kubelet")


class Kubelet:
    """All Pods of one node."""

    def __init__(
        self,
        facts: Facts,
        api: PodApi,
        cluster: Cluster,
        platform: Pods,
        tell: Tell,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.facts = facts
        self.api = api
        self.cluster = cluster
        self.platform = platform
        self.tell = tell
        self.clock = clock
        self.addresses = Addresses(facts.platform)
        self._pods: dict[str, PodWorker] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._vips: Queue[None] = Queue()
        self.policies = Policies(Graph())
        self.policies.follow(cluster, self._policies_changed)

    async def run(self) -> None:
        """Work until cancelled; the cluster must be complete and the platform started."""
        for state in self.platform.pods().values():
            self.addresses.take(state.ip)
        for pod in self.cluster.all("Pod"):
            if not d.finished(pod):
                self.addresses.take(d.status(pod).get("podIP", ""))
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._follow_services(), name="service table")
            tasks.create_task(self._renew_tokens(), name="tokens")
            for state in self.platform.pods().values():
                self._worker(state.uid).told(state)
            self.cluster.listen("Pod", self._changed)
            self.cluster.listen("Node", lambda _before, _after: self._policies_changed())
            for kind in ("ConfigMap", "Secret", "ServiceAccount"):
                self.cluster.listen(kind, lambda _before, _after: self._retry())
            async for event in self.platform.events():
                self._happened(event)

    def _happened(self, event: PodChanged | PodGone) -> None:
        """Take in an event of the platform."""
        if isinstance(event, PodChanged):
            self._worker(event.state.uid).told(event.state)
        elif event.uid in self._pods:
            self._pods[event.uid].told(None)

    def cordoned_for(self, pod: Json) -> bool:
        """Whether that Pod is not to be started here any more (`kubectl cordon`); a DaemonSet's may."""
        node = self.cluster.get("Node", ("", self.facts.node_name))
        if node is None or not d.spec(node).get("unschedulable") or d.spec(pod).get("nodeName"):
            return False
        return (d.owner(pod) or {}).get("kind") != "DaemonSet"

    def done(self, uid: str) -> None:
        """Forget a Pod that is gone."""
        self._pods.pop(uid, None)

    def _changed(self, before: Json | None, after: Json | None) -> None:
        if before is not None and (after is None or d.uid(after) != d.uid(before)) and d.uid(before) in self._pods:
            self._pods[d.uid(before)].wanted(None)
        if after is not None:
            self._worker(d.uid(after)).wanted(after)

    def _policies_changed(self) -> None:
        for each in self._pods.values():
            each.look()

    def _retry(self) -> None:
        for each in self._pods.values():
            each.retry()

    def _worker(self, uid: str) -> PodWorker:
        found = self._pods.get(uid)
        if found is None:
            assert self._tasks is not None
            found = self._pods[uid] = PodWorker(uid, self)
            self._tasks.create_task(found.run(), name=f"pod {uid}")
        return found

    async def _follow_services(self) -> None:
        for kind in ("Service", "EndpointSlice"):
            self.cluster.listen(kind, lambda _before, _after: self._vips.add(None))
        told: tuple[ServiceVip, ...] = ()
        while True:
            await self._vips.take()
            table = vips(self.cluster.all("Service"), self.cluster.all("EndpointSlice"))
            if table == told:
                continue
            try:
                await self.platform.services(table)
                told = table
            except (LateenError, OSError) as error:
                _log.warning("service table not set", error=str(error))
                self._vips.add_later(None, 1)

    async def _renew_tokens(self) -> None:
        while True:
            await asyncio.sleep(60)
            for each in list(self._pods.values()):
                await each.renew_token()


class PodWorker:
    """One Pod: what is wanted of it, what it is, and the steps from one to the other."""

    def __init__(self, uid: str, kubelet: Kubelet) -> None:
        self._uid = uid
        self._kubelet = kubelet
        self._pod: Json | None = None
        self._grace_s: float = translate.GRACE_S
        self._state: PodState | None = None
        self._wake = asyncio.Event()
        self._address = ""
        self._failures = 0
        self._said = ""
        self._told: tuple[Finding, ...] | None = None

    def wanted(self, pod: Json | None) -> None:
        """The Pod's object is now this; None: it is gone."""
        self._pod = pod
        if pod is not None:
            self._grace_s = translate.grace_s(pod)
        self._wake.set()

    def told(self, state: PodState | None) -> None:
        """The Pod is now this; None: nothing of it is left."""
        self._state = state
        self._wake.set()

    def look(self) -> None:
        """What the mesh says of its network may have changed."""
        self._wake.set()

    def retry(self) -> None:
        """Something it may have waited for has changed."""
        if self._failures:
            self._wake.set()

    async def run(self) -> None:
        """Until the Pod is gone."""
        while True:
            self._wake.clear()
            delay_s: float | None = None
            try:
                if await self._step():
                    self._kubelet.done(self._uid)
                    return
                self._failures = 0
            except ConflictError:
                delay_s = RETRY_FIRST_S
            except (LateenError, control.ControlError, ConfigError, LookupError, OSError) as error:
                delay_s = min(RETRY_FIRST_S * 2 ** min(self._failures, 10), RETRY_LAST_S)
                self._failures += 1
                await self._explain(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._wake.wait()

    async def _step(self) -> bool:
        """One step towards what is wanted; True when nothing is left to do for this Pod."""
        pod = self._pod
        if pod is None:
            # its object was removed at once, or while nobody was looking
            await self._end(self._state.ip if self._state else "", self._grace_s)
            return True
        if d.terminating(pod):
            await self._drain(pod)
            await self._end(d.status(pod).get("podIP", ""), translate.grace_s(pod))
            await self._finalize(pod)
            return True
        if d.finished(pod):
            if self._state is not None:
                await self._end(self._state.ip, grace_s=0)
            return False
        if self._kubelet.cordoned_for(pod):
            await self._report(pod_status.unschedulable(pod, self._kubelet.clock()))
            return False
        pod = await self._accept(pod)
        if self._state is None:
            if d.ready(pod):  # its processes are lost: nobody should send it requests until they are back
                again = pod_status.not_running(pod, "ContainerCreating", "starting again", self._kubelet.clock())
                await self._report(again)
            await self._start(pod)
        if self._state is not None:
            await self._say(pod)
            if self._state.locked != (locked := self._kubelet.policies.locked(pod)) and not self._state.stopped:
                await self._kubelet.platform.lock(self._uid, on=locked)
            await self._report(pod_status.running(self._pod or pod, self._state, self._kubelet.clock()))
        return False

    async def _accept(self, pod: Json) -> Json:
        """The Pod with its node, and with the marks of its proxy: mesh and tools know injected Pods by them."""
        name = self._kubelet.facts.node_name
        if d.spec(pod).get("nodeName") == name:
            return pod
        metadata: Json = {}
        if translate.injection(pod) is not None:
            containers = msgspec.json.encode({"containers": [translate.PROXY_CONTAINER]}).decode()
            metadata["annotations"] = {STATUS_ANNOTATION: containers}
            if TLS_MODE_LABEL not in d.labels(pod):
                metadata["labels"] = {TLS_MODE_LABEL: "istio"}
        accepted = await self._kubelet.api.patch("Pod", d.key(pod), {"metadata": metadata, "spec": {"nodeName": name}})
        self._kubelet.cluster.put(accepted)
        return accepted

    async def _start(self, pod: Json) -> None:
        facts = self._kubelet.facts
        if not self._address:
            before = d.status(pod).get("podIP", "")
            # the Pod's own earlier address was taken for it when the kubelet started
            self._address = before if before else self._kubelet.addresses.next()
        injected = translate.injection(pod)
        directory = facts.layout.pod(self._uid)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_dir = str(facts.layout.logs / "pods" / f"{d.namespace(pod)}_{d.name(pod)}")
        proxy = None if injected is None else await self._proxy(pod, injected, self._address).prepare()
        wanted = translate.sandbox(pod, source=self._kubelet.cluster, ip=self._address, proxy=proxy, log_dir=log_dir)
        wanted = msgspec.structs.replace(wanted, locked=self._kubelet.policies.locked(pod))
        if injected is not None:
            await self._write_token(pod, directory)
            await self._introduce(pod, directory)
        self._state = await self._kubelet.platform.create(wanted)

    def _proxy(self, pod: Json, injected: translate.Injection, address: str) -> PodProxy:
        return PodProxy(self._kubelet.facts, self._kubelet.policies, pod, injected, address)

    async def _say(self, pod: Json) -> None:
        """Say of a Pod that runs what there is to say, in place of what was said before."""
        injected, state = translate.injection(pod), self._state
        found: tuple[Finding, ...] = ()
        if injected is not None and state is not None:
            found = tuple(await self._proxy(pod, injected, state.ip).look(state.proxy))
        if self._told is None and not found:
            said = {each.get("code") for each in d.parts(d.status(pod), "findings")}
            self._told = None if said & OWN_CODES else ()
        if found != self._told:
            await self._kubelet.api.findings(pod, found)
            self._told = found

    async def _introduce(self, pod: Json, directory: Path) -> None:
        """Tell the agent, which then has the Pod's certificate ready on its socket."""
        spec = PodSpec(
            uid=self._uid,
            namespace=d.namespace(pod),
            name=d.name(pod),
            service_account=d.spec(pod).get("serviceAccountName") or "default",
            token_path=str(directory / "token"),
            sds_socket=str(directory / "sds.sock"),
            admin_socket=str(directory / "admin.sock"),
        )
        await control.call(self._kubelet.facts.layout.agent_socket, "add_pod", pod=msgspec.to_builtins(spec))

    async def _write_token(self, pod: Json, directory: Path) -> None:
        token = await self._kubelet.api.token(pod, TOKEN_LIFETIME_S)
        draft = directory / ".token.new"
        draft.touch(mode=0o600)
        draft.write_text(token)
        draft.replace(directory / "token")

    async def renew_token(self) -> None:
        """Replace the Pod's token at half of its life."""
        pod, directory = self._pod, self._kubelet.facts.layout.pod(self._uid)
        if pod is None or d.terminating(pod):
            return
        try:
            if time.time() - (directory / "token").stat().st_mtime > TOKEN_RENEWAL_S:
                await self._write_token(pod, directory)
        except FileNotFoundError:
            return
        except (LateenError, OSError) as error:
            _log.warning("token not renewed", pod=d.name(pod), error=str(error))

    async def _drain(self, pod: Json) -> None:
        """Wait while clients learn that the Pod leaves; one that was never ready has none."""
        if self._state is None or not self._state.ready or translate.grace_s(pod) == 0:
            return
        await asyncio.sleep(self._kubelet.facts.drain_s)

    async def _end(self, address: str, grace_s: float) -> None:
        """End the Pod's processes, applications first, and give back what it had."""
        await self._kubelet.platform.delete(self._uid, grace_s)
        self._state = None
        with contextlib.suppress(OSError, control.ControlError):
            await control.call(self._kubelet.facts.layout.agent_socket, "remove_pod", uid=self._uid)
        self._kubelet.addresses.release(self._address or address)
        self._address = ""

    async def _finalize(self, pod: Json) -> None:
        """Let the object go."""
        with contextlib.suppress(NotFoundError, ConflictError):  # gone already, or another Pod has the name
            await self._kubelet.api.finalize(pod)

    async def _report(self, status: Json) -> None:
        """Set the status, if it says anything new."""
        pod = self._pod
        if pod is None:
            return
        before = {name: value for name, value in d.status(pod).items() if name != "findings"}
        if before != status:
            # the cluster's listener makes the answer this worker's Pod
            self._kubelet.cluster.put(await self._kubelet.api.replace_status({**pod, "status": status}))
            for each in pod_events.events(pod, before, status):
                await self._kubelet.tell(each)

    async def _explain(self, error: Exception) -> None:
        """Say in the status, or at least in the log, why a step failed."""
        reason = error.reason if isinstance(error, ConfigError) else type(error).__name__
        name = d.name(self._pod) if self._pod else self._uid
        if (said := f"{reason}: {error}") != self._said:
            self._said = said
            _log.warning("pod step failed", pod=name, reason=reason, error=str(error))
        if self._pod is None or self._state is not None or d.terminating(self._pod):
            return
        with contextlib.suppress(LateenError, OSError):
            if isinstance(error, ConfigError):
                self._told = (pod_status.cannot_run(self._pod, error),)
                await self._kubelet.api.findings(self._pod, self._told)
            await self._report(pod_status.not_running(self._pod, reason, str(error), self._kubelet.clock()))
