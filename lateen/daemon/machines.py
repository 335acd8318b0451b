"""The machines of a mesh: who has joined, as which WorkloadEntry, and for how long that one is kept.

A machine is let in by its certificate, which names its WorkloadGroup, the group's uid and the entry it may be; what
it says beside that is checked against the group as it is now. Its stream registers the entry, carries the results of
its probe into the entry's condition `Healthy`, and brings it the objects that names are made of. An entry whose
machine is gone is kept for a grace period, then removed; so are those found at the start whose machine does not come
back. One machine's trouble stays with its stream.

Source of names and grace: https://istio.io/latest/blog/2021/workload-entry-auto-registration/ (the behaviour).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
import msgspec
import structlog

from lateen.api.core.pod import Pod
from lateen.api.core.service_account import ServiceAccount
from lateen.api.istio.workload_entry import GROUP_ANNOTATION, HEALTHY, WorkloadEntry
from lateen.api.istio.workload_group import WorkloadGroup
from lateen.api.objects import ref_of
from lateen.api.struct import Json
from lateen.apiserver.deletion import Delete
from lateen.apiserver.errors import ApiError
from lateen.apiserver.operations import Put, SetConditions
from lateen.apiserver.rows import Change, Row
from lateen.apiserver.store import Store
from lateen.daemon.inputs import typed
from lateen.lib import machines as wire
from lateen.lib.ids import Ref
from lateen.lib.once import Once
from lateen.model.registration import entry_document, entry_name
from lateen.security.peer import PeerIdentity

RETURN_S = 30.0
"""How long after a start of the control plane its machines may take to come back."""
_AUTHOR = "machine"
_NAMES = {("", "Service"), ("discovery.k8s.io", "EndpointSlice"), ("networking.istio.io", "ServiceEntry")}

_log = structlog.stdlib.get_logger("lateen.machines")

Context = grpc.aio.ServicerContext[bytes, bytes]


class Refused(Exception):
    """A machine is not let in; the message tells it why."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Groups:
    """WorkloadGroups and what holds against a machine of one, looked up in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, namespace: str, name: str, uid: str, account: str, account_uid: str = "") -> WorkloadGroup:
        """The group that a credential is for. Refused when it is not there, another, or of another account, or when
        that account is not there (another than `account_uid`, where the credential says it)."""
        row = self._store.get(ref_of(WorkloadGroup, namespace, name))
        group = typed(row) if row is not None else None
        full = f"{namespace}/{name}"
        if not isinstance(group, WorkloadGroup):
            raise Refused(grpc.StatusCode.NOT_FOUND, f"there is no WorkloadGroup {full}")
        if group.metadata.uid != uid:
            message = f"the credential is for a former WorkloadGroup {full}: make a new bundle with `lateen vm`"
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, message)
        wanted = group.spec.template.service_account or "default"
        if wanted != account:
            message = f"WorkloadGroup {full} runs as service account {wanted}, the credential is of {account}"
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, message)
        there = self.account_uid(namespace, account)
        if there is None:
            message = f"there is no ServiceAccount {namespace}/{account}, which WorkloadGroup {full} runs as"
            raise Refused(grpc.StatusCode.NOT_FOUND, message)
        if account_uid not in ("", there):
            message = f"the credential is of a former ServiceAccount {namespace}/{account}: make a new bundle"
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, message)
        return group

    def account_uid(self, namespace: str, name: str) -> str | None:
        """The uid of a service account; None when there is none."""
        row = self._store.get(ref_of(ServiceAccount, namespace, name))
        found = typed(row) if row is not None else None
        return found.metadata.uid if isinstance(found, ServiceAccount) else None

    def check_address(self, group: WorkloadGroup, address: str) -> None:
        """Refused when a machine of the group cannot be at that address."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            message = f"{address[:80]!r} is no address of a machine: say --address"
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, message) from None
        if parsed.is_loopback or parsed.is_unspecified or parsed.is_multicast or parsed.is_link_local:
            message = f"{address} cannot be reached from other machines: say --address"
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, message)
        own, network = ref_of(WorkloadEntry, group.namespace, entry_name(group, address)), group.spec.template.network
        for row in self._store.members(own.collection):
            other = typed(row)
            if not isinstance(other, WorkloadEntry) or other.spec.address != address:
                continue
            ours = other.ref == own and other.metadata.annotations.get(GROUP_ANNOTATION) == group.name
            if not ours and (other.spec.network or "") == (network or ""):
                message = f"{address} is the address of {other.ref.short} already"
                raise Refused(grpc.StatusCode.ALREADY_EXISTS, message)
        for row in self._store.members(ref_of(Pod, "", "").collection):
            pod = typed(row)
            if isinstance(pod, Pod) and address in pod.status.addresses:
                raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"{address} is the address of {pod.ref.short}")


class _Member:
    """One machine on one stream."""

    def __init__(self, ref: Ref, group: Ref, hello: wire.Hello, peer: str) -> None:
        self.ref = ref
        self.group = group
        self.hello = hello
        self.peer = peer
        self.changed = asyncio.Event()
        self.names: dict[Ref, None] = {}
        self.joined: wire.Joined | None = None
        self.ended: Refused | None = None

    def end(self, why: Refused) -> None:
        """Ends the stream with a reason."""
        self.ended = why
        self.changed.set()


class Machines:
    """Serves Join, and removes entries whose machines are gone."""

    def __init__(
        self,
        store: Store,
        peer_of: Callable[[Context], PeerIdentity | None],
        settings_of: Callable[[str, Mapping[str, str]], wire.ProxySettings] = lambda _namespace, _labels: (
            wire.ProxySettings()
        ),
        *,
        grace_s: float = wire.GRACE_S,
        return_s: float = RETURN_S,
    ) -> None:
        self._store = store
        self._groups = Groups(store)
        self._peer_of = peer_of
        self._settings_of = settings_of
        self._grace_s = grace_s
        self._return_s = return_s
        self._members: dict[Ref, _Member] = {}
        self._leaving: dict[Ref, float] = {}
        """Entries to remove, each with the time of the loop's clock when its grace is over."""
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._said = Once()
        store.subscribe(self._stored)

    def handler(self) -> grpc.GenericRpcHandler:
        """The gRPC service, for a server that requires client certificates."""
        return grpc.method_handlers_generic_handler(
            wire.SERVICE, {"Join": grpc.stream_stream_rpc_method_handler(self.join)}
        )

    async def run(self) -> None:
        """Removes entries whose grace is over, until cancelled."""
        loop = asyncio.get_running_loop()
        for row in self._store.members(ref_of(WorkloadEntry, "", "").collection):
            if _registered(row) and row.ref not in self._members:
                self._leaving[row.ref] = loop.time() + self._return_s
        while True:
            self._woken.clear()
            due = [ref for ref, at in self._leaving.items() if at <= loop.time()]
            for ref in due:
                del self._leaving[ref]
                await self._remove(ref)
            wait_s = min(self._leaving.values(), default=loop.time() + 3600) - loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(wait_s, 0)):
                    await self._woken.wait()

    # -- one stream -----------------------------------------------------------------------------------------

    async def join(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """One machine, from its first message to the end of its stream."""
        member: _Member | None = None
        try:
            member = await self._admit(requests, context)
            leaves = await self._serve(member, requests, context)
        except Refused as refused:
            self._say(refused, context)
            await context.abort(refused.code, str(refused))
        except msgspec.MsgspecError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a message of a machine: {error}")
        else:
            if leaves:
                await self._left(member)
        finally:
            if member is not None and self._members.get(member.ref) is member:
                del self._members[member.ref]
                self._leaving[member.ref] = asyncio.get_running_loop().time() + self._grace_s
                self._woken.set()
                _log.info("machine gone", entry=member.ref.short, removed_in_s=self._grace_s)

    async def _admit(self, requests: AsyncIterator[bytes], context: Context) -> _Member:
        peer = self._peer_of(context)
        if peer is None or peer.type != wire.PEER_TYPE:
            message = "the client certificate is not that of a machine: log in with the token of a bundle first"
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, message)
        try:
            hello = wire.from_machine(await anext(requests))
        except StopAsyncIteration:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "no message came") from None
        if not isinstance(hello, wire.Hello):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "the first message says hello")
        group = self._groups.of(peer.namespace, peer.workload, peer.uid, peer.service_account)
        name = entry_name(group, hello.address)
        if name != peer.pod:
            message = f"the certificate is for {peer.namespace}/{peer.pod}, the machine says it is {name}"
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, message)
        self._groups.check_address(group, hello.address)
        member = _Member(ref_of(WorkloadEntry, peer.namespace, name), group.ref, hello, context.peer())
        there = self._members.get(member.ref)
        if there is not None and there.hello.machine != hello.machine:
            message = f"another machine has joined as {member.ref.short}: two machines have the address {hello.address}"
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, message)
        if there is not None:
            there.end(Refused(grpc.StatusCode.ABORTED, "the machine has joined again on another connection"))
        self._members[member.ref] = member
        self._leaving.pop(member.ref, None)
        await self._register(member, group)
        _log.info("machine joined", entry=member.ref.short, peer=member.peer, version=hello.version)
        return member

    async def _register(self, member: _Member, group: WorkloadGroup) -> None:
        document = entry_document(group, member.hello.address)
        try:
            await self._store.write([Put(document)], author=_AUTHOR)
        except ApiError as error:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f"the entry cannot be stored: {error}") from None
        row = self._store.get(group.ref)
        spec: Json = msgspec.json.decode(row.body)["spec"] if row is not None else {}
        proxy = self._settings_of(group.namespace, document["metadata"]["labels"])
        member.joined = wire.Joined(group.namespace, member.ref.name, spec.get("probe"), proxy)
        member.changed.set()

    async def _serve(self, member: _Member, requests: AsyncIterator[bytes], context: Context) -> bool:
        """Returns at the end of the stream whether the machine has said that it leaves: one that was killed ends its
        stream, too."""
        reader = asyncio.create_task(self._read(member, requests), name=f"from {member.ref.short}")
        writer = asyncio.create_task(self._write(member, context), name=f"to {member.ref.short}")
        try:
            done, _ = await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in (reader, writer):
                each.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
        if member.ended is not None:
            raise member.ended
        return reader in done and reader.result()

    async def _read(self, member: _Member, requests: AsyncIterator[bytes]) -> bool:
        async for raw in requests:
            message = wire.from_machine(raw)
            if isinstance(message, wire.Health):
                await self._heard(member, message)
            elif isinstance(message, wire.Leaving):
                return True
        return False

    async def _heard(self, member: _Member, health: wire.Health) -> None:
        row = self._store.get(member.ref)
        if row is None:
            return
        condition = {
            "type": HEALTHY,
            "status": "True" if health.healthy else "False",
            "reason": "ProbeSucceeded" if health.healthy else "ProbeFailed",
            "message": health.message[:1024],
        }
        await self._store.write([SetConditions(member.ref, row.generation, (condition,))], author=_AUTHOR)

    async def _write(self, member: _Member, context: Context) -> None:
        for group, kind in sorted(_NAMES):
            rows = self._store.list((group, kind))
            await context.write(wire.encode(wire.Objects(kind, tuple(map(_trimmed, rows)), listing=True)))
        while member.ended is None:
            member.changed.clear()
            if member.joined is not None:
                joined, member.joined = member.joined, None
                await context.write(wire.encode(joined))
            names, member.names = member.names, {}
            for message in self._news(names):
                await context.write(wire.encode(message))
            await member.changed.wait()

    def _news(self, names: Iterable[Ref]) -> Iterable[wire.Objects]:
        for ref in names:
            row = self._store.get(ref)
            if row is not None:
                yield wire.Objects(ref.kind, (_trimmed(row),))
            else:
                yield wire.Objects(ref.kind, gone=((ref.namespace, ref.name),))

    # -- what changes meanwhile -----------------------------------------------------------------------------

    def _stored(self, changes: Sequence[Change]) -> None:
        for change in changes:
            ref = change.row.ref
            for member in list(self._members.values()):
                if ref.collection in _NAMES:
                    member.names[ref] = None
                    member.changed.set()
                elif ref == member.group and _other(change):
                    self._start(self._again(member), f"registration of {member.ref.short}")
            if ref.kind == WorkloadGroup.KIND and change.after is None:
                self._start(self._disband(ref), f"end of {ref.short}")

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("registration failed", exc_info=error)

    async def _disband(self, group: Ref) -> None:
        """A group is gone, and with it the entries of its machines, those that are away for a moment too."""
        for row in self._store.members(ref_of(WorkloadEntry, "", "").collection):
            if row.ref.namespace == group.namespace and _group_of(row) == group.name:
                self._leaving.pop(row.ref, None)
                await self._remove(row.ref)

    async def _again(self, member: _Member) -> None:
        """The group of a machine has changed: its entry is made anew, or the machine is told to go."""
        row = self._store.get(member.group)
        group = typed(row) if row is not None else None
        try:
            if not isinstance(group, WorkloadGroup):
                raise Refused(grpc.StatusCode.NOT_FOUND, f"there is no {member.group.short} any more")
            if entry_name(group, member.hello.address) != member.ref.name:
                raise Refused(grpc.StatusCode.ABORTED, f"{member.group.short} has another network: join again")
            await self._register(member, group)
        except Refused as refused:
            member.end(refused)

    async def _left(self, member: _Member) -> None:
        if self._members.get(member.ref) is member:
            del self._members[member.ref]
            _log.info("machine left", entry=member.ref.short)
            await self._remove(member.ref)

    async def _remove(self, ref: Ref) -> None:
        row = self._store.get(ref)
        if row is not None and _registered(row):
            with contextlib.suppress(ApiError):  # somebody else was faster
                await self._store.write([Delete(ref)], author=_AUTHOR)
            _log.info("entry removed", entry=ref.short)

    def _say(self, refused: Refused, context: Context) -> None:
        """Logs why a machine is refused, once: it goes on asking."""
        if self._said.is_new(context.peer().rpartition(":")[0], str(refused)):
            _log.warning("machine refused", peer=context.peer(), code=refused.code.name, reason=str(refused))


def _registered(row: Row) -> bool:
    """True for an entry that a machine's joining made."""
    return bool(_group_of(row))


def _group_of(row: Row) -> str:
    """The group of the machine whose joining made an entry; empty for other entries."""
    metadata: Json = msgspec.json.decode(row.metadata)
    annotations: dict[str, str] = metadata.get("annotations") or {}
    return annotations.get(GROUP_ANNOTATION, "")


def _other(change: Change) -> bool:
    return change.before is None or change.after is None or change.before.generation != change.after.generation


def _trimmed(row: Row) -> Json:
    """What names are made of."""
    document = row.decode()
    metadata: Json = document["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "labels") if key in metadata}
    return {**{key: value for key, value in document.items() if key not in ("apiVersion", "kind")}, "metadata": kept}
