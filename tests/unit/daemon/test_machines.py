"""Machines that join: real certificates, tokens and streams over TLS, the store behind them, and every way to be
refused."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from structlog.testing import capture_logs

from lateen.api.core.service import Service
from lateen.api.core.service_account import ServiceAccount
from lateen.api.istio.workload_entry import WorkloadEntry
from lateen.api.istio.workload_group import WorkloadGroup
from lateen.api.objects import ref_of
from lateen.apiserver.deletion import Delete
from lateen.apiserver.operations import Put, PutStatus
from lateen.apiserver.store import Store
from lateen.daemon.departures import Departures
from lateen.daemon.identities import Identities
from lateen.daemon.machines import Machines
from lateen.intent.scope import Proxy, ProxyKind
from lateen.lib import machines as wire
from lateen.lib.keypair import new_request
from lateen.lib.signing import SigningError
from lateen.node.identity import Identity, from_answer
from lateen.node.membership import Membership
from lateen.node.names import Names
from lateen.security.ca_files import open_ca
from lateen.security.client import CertificateClient, ControlPlane, unix_target
from lateen.security.csr import CertificateService
from lateen.security.peer import parse_peer, peer_of
from lateen.security.serving import SERVER_OPTIONS, ServingCertificate
from lateen.security.tokens import TokenIssuer
from tests.envoy.harness import short_directory

Json = dict[str, Any]
HERE = "192.0.2.7"
GRACE_S = 0.3


def settings_of(namespace: str, labels: Mapping[str, str]) -> wire.ProxySettings:
    return wire.ProxySettings(environment={"FOR": f"{namespace}/{labels.get('app')}"})


def group(name: str = "vm", **changed: Any) -> Json:
    template = {"serviceAccount": "vm-account", "labels": {"app": "vm"}, **changed.pop("template", {})}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadGroup",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": template, **changed},
    }


def account(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}}


class Plane:
    """A control plane that lets machines in, without proxies."""

    def __init__(self, directory: Path, store: Store) -> None:
        self.directory, self.store = directory, store
        self.now_s = 0.0
        ca = open_ca(directory / "ca")
        self.tokens = TokenIssuer(directory / "tokens.json", now=lambda: time.time() + self.now_s)
        identities = Identities(store, self.tokens, lambda: "cluster.local")
        certificates = CertificateService(lambda: ca, self.tokens, identities.certificate_of, lambda: "cluster.local")
        serving = ServingCertificate(lambda: ca, lambda: "cluster.local")
        self.machines = Machines(
            store, partial(peer_of, trust_domain=lambda: "cluster.local"), settings_of, grace_s=GRACE_S, return_s=0.5
        )
        self._servers: list[grpc.aio.Server] = []
        for name, mutual in (("ca", False), ("xds", True)):
            server = grpc.aio.server(options=SERVER_OPTIONS)
            certificates.add_to(server)
            if mutual:
                server.add_generic_rpc_handlers((self.machines.handler(),))
            server.add_secure_port(self.target(name), serving.credentials(require_client_certificate=mutual))
            self._servers.append(server)

    def target(self, name: str) -> str:
        return unix_target(self.directory / f"{name}.sock")

    async def start(self) -> None:
        for each in self._servers:
            await each.start()

    async def stop(self) -> None:
        for each in self._servers:
            await each.stop(None)

    async def apply(self, *documents: Json) -> None:
        await self.store.write([Put(each) for each in documents])

    def uid(self, name: str = "vm") -> str:
        row = self.store.get(ref_of(WorkloadGroup, "default", name))
        assert row is not None
        return row.decode()["metadata"]["uid"]

    def token(self, name: str = "vm", **changed: Any) -> str:
        claims: Json = {"namespace": "default", "service_account": "vm-account", "group": name, "uid": self.uid(name)}
        return self.tokens.issue(**claims | changed)

    async def login(self, token: str, address: str = HERE) -> Identity:
        roots = self.directory / "ca" / "root-cert.pem"
        client = CertificateClient(ControlPlane(self.target("ca"), self.target("xds"), roots), address=address)
        key, csr = new_request()
        return from_answer(key, await client.sign(csr, token=token))

    async def renew(self, held: Identity, address: str = HERE) -> Identity:
        roots = self.directory / "ca" / "root-cert.pem"
        client = CertificateClient(ControlPlane(self.target("ca"), self.target("xds"), roots), address=address)
        key, csr = new_request()
        return from_answer(key, await client.renew(csr, key=held.key, chain=held.chain))

    def entry(self, name: str = f"vm-{HERE}") -> Json | None:
        row = self.store.get(ref_of(WorkloadEntry, "default", name))
        return row.decode() if row is not None else None

    def health(self) -> str:
        status: Json = (self.entry() or {}).get("status") or {}
        conditions: list[Json] = status.get("conditions") or []
        return next((each["status"] for each in conditions if each["type"] == "Healthy"), "")


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    directory = short_directory()
    store = await Store.open(directory / "store.db")
    made = Plane(directory, store)
    await made.apply(group(), *(account(name) for name in ("vm-account", "other-account", "default")))
    await made.start()
    running = asyncio.create_task(made.machines.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await made.stop()
    await store.close()
    shutil.rmtree(directory)


class Agent:
    """The part of an agent that joins."""

    def __init__(self, plane: Plane, identity: Identity, machine: str = "m1", address: str = HERE) -> None:
        self.joined: list[wire.Joined] = []
        self.names = Names(home="default")
        hello = wire.Hello(address, machine)
        self.membership = Membership(plane.target("xds"), hello, lambda: identity, self.names, self.joined.append)
        self.task = asyncio.create_task(self.membership.run())

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def vanish(self) -> None:
        """As a process that is killed: its connection ends, and nothing is said."""
        joining = self.membership._joining
        assert joining is not None
        joining.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def until(holds: Callable[[], object], within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


async def refusal(plane: Plane, identity: Identity, hello: wire.Hello) -> str:
    """What a machine is told that is not let in."""
    with capture_logs() as logs:
        agent = Agent(plane, identity, hello.machine, hello.address)
        await until(lambda: any(each["event"] == "not joined" for each in logs))
        await agent.leave()
    assert not agent.joined
    return next(str(each["reason"]) for each in logs if each["event"] == "not joined")


async def test_a_token_gets_the_certificate_of_one_entry_of_its_group(plane: Plane) -> None:
    identity = await plane.login(plane.token())
    peer = parse_peer(identity.leaf)
    assert str(peer.spiffe) == "spiffe://cluster.local/ns/default/sa/vm-account"
    assert (peer.pod, peer.workload, peer.type, peer.service) == (f"vm-{HERE}", "vm", "workloadgroup", "vm")
    assert parse_peer((await plane.renew(identity)).leaf) == peer
    moved = parse_peer((await plane.renew(identity, "192.0.2.8")).leaf)
    assert moved.pod == "vm-192.0.2.8"


async def test_a_machine_registers_and_leaves(plane: Plane) -> None:
    agent = Agent(plane, await plane.login(plane.token()))
    await until(lambda: agent.joined)
    assert agent.joined[0] == wire.Joined("default", f"vm-{HERE}", None, settings_of("default", {"app": "vm"}))
    entry = plane.entry()
    assert entry is not None
    assert entry["spec"]["address"] == HERE
    assert entry["metadata"]["ownerReferences"][0]["uid"] == plane.uid()
    await agent.leave()
    await until(lambda: plane.entry() is None)


async def test_an_entry_outlives_its_machine_for_a_while_and_a_machine_that_comes_back_was_never_away(
    plane: Plane,
) -> None:
    identity = await plane.login(plane.token())
    first = Agent(plane, identity)
    await until(lambda: first.joined)
    uid = (plane.entry() or {})["metadata"]["uid"]
    await first.vanish()
    again = Agent(plane, identity)
    await until(lambda: again.joined)
    await asyncio.sleep(2 * GRACE_S)
    assert (plane.entry() or {})["metadata"]["uid"] == uid
    await again.vanish()
    assert plane.entry() is not None
    await until(lambda: plane.entry() is None)


async def test_the_next_connection_of_a_machine_takes_over_and_that_of_another_one_does_not(plane: Plane) -> None:
    identity = await plane.login(plane.token())
    first = Agent(plane, identity, "m1")
    await until(lambda: first.joined)
    said = await refusal(plane, identity, wire.Hello(HERE, "m2"))
    assert said == (
        f"ALREADY_EXISTS: another machine has joined as WorkloadEntry default/vm-{HERE}: "
        f"two machines have the address {HERE}"
    )
    second = Agent(plane, identity, "m1")  # as after a loss of the network that the control plane has not noticed yet
    await until(lambda: second.joined)
    await first.leave()
    await second.leave()


async def test_a_taken_address_is_refused(plane: Plane) -> None:
    entry = {"kind": "WorkloadEntry", "apiVersion": "networking.istio.io/v1", "spec": {"address": "192.0.2.9"}}
    await plane.apply({**entry, "metadata": {"name": "old", "namespace": "default"}})
    with pytest.raises(SigningError, match=r"192\.0\.2\.9 is the address of WorkloadEntry default/old already"):
        await plane.login(plane.token(), "192.0.2.9")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}}
    await plane.apply({**pod, "spec": {"containers": [{"name": "c"}]}})
    await plane.store.write([PutStatus({**pod, "status": {"podIP": "192.0.2.10"}})])
    with pytest.raises(SigningError, match=r"192\.0\.2\.10 is the address of Pod default/p"):
        await plane.login(plane.token(), "192.0.2.10")


@pytest.mark.parametrize("address", ["", "127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.1.1", "here"])
async def test_an_address_that_cannot_be_called_is_refused(plane: Plane, address: str) -> None:
    with pytest.raises(SigningError, match="--address"):
        await plane.login(plane.token(), address)


async def test_a_machine_cannot_be_what_its_certificate_does_not_say(plane: Plane) -> None:
    await plane.apply(group("other"))
    identity = await plane.login(plane.token())
    said = await refusal(plane, identity, wire.Hello("192.0.2.8", "m1"))
    assert "the certificate is for default/vm-192.0.2.7, the machine says it is vm-192.0.2.8" in said
    other = await plane.login(plane.token("other"))
    assert parse_peer(other.leaf).pod == f"other-{HERE}"


async def test_anothers_token_is_refused_with_the_reason_once_in_the_log_and_no_secret(plane: Plane) -> None:
    await plane.apply(group("other", template={"serviceAccount": "other-account"}))
    await plane.apply(group("homeless", template={"serviceAccount": "none"}))
    wrong = {
        "runs as service account vm-account, the credential is of thief": plane.token(service_account="thief"),
        "the credential is for a former WorkloadGroup": plane.token(uid="another"),
        "there is no WorkloadGroup default/none": plane.tokens.issue(
            namespace="default", service_account="vm-account", group="none", uid="u"
        ),
        "there is no ServiceAccount default/none": plane.token("homeless", service_account="none"),
        "the credential is of a former ServiceAccount": plane.token(account_uid="another"),
        "expired": plane.token(lifetime_s=-100),
        "signature": plane.token()[:-8] + "AAAAAAAA",
    }
    for reason, token in wrong.items():
        with capture_logs() as logs:
            for _ in range(3):
                with pytest.raises(SigningError, match=reason):
                    await plane.login(token)
        (line,) = [each for each in logs if each["event"] == "certificate refused"]
        assert reason in line["reason"]
        assert token not in str(logs)
        assert token.rpartition(".")[2] not in str(logs)


async def test_a_certificate_outlives_its_token(plane: Plane) -> None:
    token = plane.token(lifetime_s=3600)
    identity = await plane.login(token)
    plane.now_s = 7200
    with pytest.raises(SigningError, match="expired"):
        await plane.login(token)
    assert parse_peer((await plane.renew(identity)).leaf).pod == f"vm-{HERE}"


async def test_a_group_that_changes_takes_its_machines_along(plane: Plane) -> None:
    agent = Agent(plane, await plane.login(plane.token()))
    await until(lambda: agent.joined)
    await plane.apply(group(template={"labels": {"app": "vm", "version": "v2"}}))
    await until(lambda: (plane.entry() or {})["spec"]["labels"].get("version") == "v2")
    await plane.store.write([Delete(ref_of(WorkloadGroup, "default", "vm"))])
    await until(lambda: plane.entry() is None)
    await agent.leave()


async def test_the_end_of_a_group_is_that_of_its_machines_and_of_their_proxies_streams(plane: Plane) -> None:
    """Also of one that is away for a moment, long before its grace is over."""
    plane.machines._grace_s = 60
    identities = Identities(plane.store, plane.tokens, lambda: "cluster.local")
    here, stranger = (Proxy(ProxyKind.SIDECAR, "default", name, "vm-account") for name in (f"vm-{HERE}", "web-1"))
    ended: list[tuple[str, str]] = []

    def expel(reason: Callable[[Proxy], str]) -> None:
        ended.extend((each.name, reason(each)) for each in (here, stranger) if reason(each))

    plane.store.subscribe(Departures(identities.account_of, expel))
    agent = Agent(plane, await plane.login(plane.token()))
    await until(lambda: agent.joined)
    await agent.vanish()
    assert plane.entry() is not None
    assert ended == []
    await plane.store.write([Delete(ref_of(WorkloadGroup, "default", "vm"))])
    await until(lambda: plane.entry() is None)
    assert ended == [(here.name, f"default/{here.name} is no Pod or WorkloadEntry with a service account any more")]
    ended.clear()
    await plane.store.write([Delete(ref_of(ServiceAccount, "default", "vm-account"))])
    assert [name for name, _ in ended] == [here.name, stranger.name], "whose account is gone"


async def test_health_is_in_the_entry_as_the_probe_has_it(plane: Plane, tmp_path: Path) -> None:
    flag = tmp_path / "good"
    probe = {"exec": {"command": ["test", "-e", str(flag)]}, "periodSeconds": 1, "failureThreshold": 1}
    await plane.apply(group(probe=probe))
    agent = Agent(plane, await plane.login(plane.token()))
    await until(lambda: plane.health() == "False")
    flag.touch()
    await until(lambda: plane.health() == "True")
    flag.unlink()
    await until(lambda: plane.health() == "False")
    await plane.apply(group())
    await until(lambda: agent.joined[-1].probe is None)
    await agent.leave()


async def test_names_come_as_they_are_and_as_they_change(plane: Plane) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "reviews", "namespace": "default"}}
    await plane.apply({**service, "spec": {"clusterIP": "10.96.0.5", "ports": [{"port": 80}]}})
    agent = Agent(plane, await plane.login(plane.token()))
    await until(lambda: agent.names.complete)
    for name in ("reviews", "reviews.default", "reviews.default.svc.cluster.local"):
        found = agent.names.find(name)
        assert found is not None
        assert found.addresses == ("10.96.0.5",)
    await plane.store.write([Delete(ref_of(Service, "default", "reviews"))])
    await until(lambda: agent.names.find("reviews") is None)
    await agent.leave()


async def test_entries_whose_machines_do_not_come_back_after_a_restart_are_removed(plane: Plane) -> None:
    identity = await plane.login(plane.token())
    agent = Agent(plane, identity)
    await until(lambda: agent.joined)
    await plane.apply(group("gone"))
    left = {"istio.io/autoRegistrationGroup": "gone"}
    kept = {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "spec": {"address": "192.0.2.99"}}
    await plane.apply({**kept, "metadata": {"name": "gone-1", "namespace": "default", "annotations": left}})
    await plane.apply({**kept, "metadata": {"name": "own", "namespace": "default"}, "spec": {"address": "192.0.2.98"}})
    restarted = Machines(plane.store, lambda _: None, return_s=0.1)
    restarted._members = plane.machines._members
    running = asyncio.create_task(restarted.run())
    await until(lambda: plane.entry("gone-1") is None)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert plane.entry() is not None
    assert plane.entry("own") is not None
    await agent.leave()


async def test_who_is_no_machine_is_told_to_log_in(plane: Plane) -> None:
    pod_token = plane.tokens.issue(namespace="default", service_account="vm-account", pod="p", uid="u")
    with pytest.raises(SigningError, match="there is no Pod default/p"):
        await plane.login(pod_token)
