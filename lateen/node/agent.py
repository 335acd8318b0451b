"""The agent: certificates for the Pods of one node.

    agent = Agent(signer, control=layout.agent_socket, state=layout.run / "agent.json", trust=layout.run / "trust.json")
    await agent.run()

It is told of Pods over its control socket (`lateen.node.control`; requests `add_pod`, `remove_pod`, `list`,
`refresh`), keeps what it was told in a file, and after a crash serves all of them again by itself:
proxies reconnect, and their open connections never notice. One Pod's trouble (no token, a broken socket path)
stays with that Pod.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import msgspec
import structlog

from lateen.lib.signing import TrustedSigner
from lateen.node.control import ControlError, Json, serve
from lateen.node.request_counts import report
from lateen.node.trust import TrustFollower
from lateen.node.workload import PodSpec, Workload

_log = structlog.stdlib.get_logger("lateen.node.agent")


class Agent:
    """Serves Pods until `run` is cancelled."""

    def __init__(
        self,
        signer: TrustedSigner,
        *,
        control: Path,
        state: Path,
        trust: Path,
    ) -> None:
        """`trust` is the file that keeps what the mesh trusts."""
        self._signer = signer
        self._state = state
        self._control = control
        self._pods: dict[str, tuple[Workload, asyncio.Task[None]]] = {}
        self._trust = TrustFollower(signer, trust, self._workloads)

    async def run(self) -> None:
        """Takes up the Pods of the state file, then does as the control socket says."""
        tasks = [
            asyncio.create_task(self._trust.run(), name="trust of the mesh"),
            asyncio.create_task(report(self._trust, self._workloads), name="counts of requests"),
        ]
        try:
            for spec in self._kept():
                try:
                    await self._add(spec, resumed=True)
                except OSError as error:
                    _log.error("Pod not served", pod=spec.name, reason=str(error))
            await serve(self._control, self._handle)
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            for uid in list(self._pods):
                await self._remove(uid)

    def _workloads(self) -> list[Workload]:
        return [workload for workload, _ in self._pods.values()]

    async def _handle(self, request: Json) -> Any:
        match request.get("do"):
            case "add_pod":
                try:
                    spec = msgspec.convert(request.get("pod"), PodSpec)
                except msgspec.ValidationError as error:
                    raise ControlError(f"add_pod: {error}") from None
                try:
                    await self._add(spec)
                except OSError as error:
                    raise ControlError(f"cannot serve {spec.namespace}/{spec.name}: {error}") from None
                self._keep()
                return None
            case "remove_pod":
                await self._remove(str(request.get("uid")))
                self._keep()
                return None
            case "list":
                return [msgspec.to_builtins(workload.state) for workload, _ in self._pods.values()]
            case "refresh":
                uid = request.get("uid")
                if uid is not None and uid not in self._pods:
                    raise ControlError(f"refresh: no Pod with uid {uid}")
                for each in self._pods if uid is None else (uid,):
                    self._pods[each][0].refresh()
                return None
            case other:
                raise ControlError(f"unknown request {other!r}")

    async def _add(self, spec: PodSpec, *, resumed: bool = False) -> None:
        known = self._pods.get(spec.uid)
        if known is not None:
            if known[0].spec == spec and Path(spec.sds_socket).is_socket():  # noqa: ASYNC240 - a local file
                return  # a Pod that was started anew has a new directory, without the socket
            await self._remove(spec.uid)
        workload = Workload(spec, self._signer, resumed=resumed)
        await workload.start()
        task = asyncio.create_task(self._renew(workload), name=f"certificate of {spec.namespace}/{spec.name}")
        self._pods[spec.uid] = (workload, task)
        self._trust.told(workload)

    async def _renew(self, workload: Workload) -> None:
        """Runs a Pod's renewals; a bug there is logged and does not take the other Pods along."""
        while True:
            try:
                await workload.run()
            except Exception:
                _log.exception("renewal failed", pod=workload.spec.name)
                await asyncio.sleep(1)

    async def _remove(self, uid: str) -> None:
        known = self._pods.pop(uid, None)
        if known is None:
            return
        self._trust.told()
        workload, task = known
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await workload.stop()

    def _kept(self) -> tuple[PodSpec, ...]:
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=tuple[PodSpec, ...])
        except FileNotFoundError:
            return ()
        except msgspec.DecodeError as error:
            _log.error("state file unreadable", file=str(self._state), reason=str(error))
            return ()

    def _keep(self) -> None:
        draft = self._state.with_name(f".{self._state.name}.new")
        draft.write_bytes(msgspec.json.encode([workload.spec for workload, _ in self._pods.values()]))
        draft.replace(self._state)
