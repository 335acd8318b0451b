"""A small world in one network namespace: a sidecar's Envoy, a gateway's Envoy, servers, and clients.

Everything a proxy gets comes from lateen's own queries over the YAML of a test. Servers (`tests/lab/server.py`) and
clients are threads of the test itself: their sockets are made inside the namespace by a helper and handed over, so
nothing has to be started for a request. Addresses: the application with the sidecar is 10.88.0.5, the gateway
10.88.0.8, servers are 10.88.1.x and on; nothing answers at 10.88.9.9. What the application's side dials is
captured, what arrives at 10.88.0.5 too; servers have no proxy.

There is nothing shared with other tests or with the machine's own network.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from lateen.api.objects import transaction
from lateen.api.struct import Object
from lateen.engine import Graph, Transaction
from lateen.envoy.resource import Resource, ResourceType
from lateen.envoy.types import TYPES
from lateen.intent.scope import ProxyKind, Scope
from lateen.lib.ids import OWN_CLUSTER, Ref
from lateen.lib.names import UNIX_PREFIX
from lateen.model.extensions import Module, ModuleSource, pull_secret, wanted_modules
from lateen.model.jwt_keys import KeySource, wanted_sources
from lateen.model.workloads import Locality
from lateen.node.bootstrap import own_cluster
from lateen.security.fetching import FetchError
from lateen.security.modules import fetch
from tests.configuration import objects
from tests.envoy.harness import SECRET, Envoy, Json, Validator, short_directory
from tests.envoy.identity_provider import IdentityProvider
from tests.lab.certificates import Certificates
from tests.lab.modules import REGISTRY, Registry
from tests.lab.names import answer_names
from tests.lab.server import Servers
from tests.lab.world import APPLICATION, DNS, GATEWAY, WORLD, World

READY_S = 15.0
PROXY = 0x539
"""The mark of the proxies' own connections."""
EDGE = (("gateway.networking.k8s.io/gateway-name", "edge"), ("istio", "ingressgateway"))
"""The labels of the gateway."""
ISSUER = "http://issuer.lab"
OUTSIDE = 0x53A
"""The mark of clients without a proxy."""

CARES = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
RULES = f"""
table ip lab {{
  chain output {{
    type nat hook output priority -100
    ip saddr 127.0.0.6 return
    ip daddr 127.0.0.0/8 return
    meta mark {{ {OUTSIDE}, {PROXY} }} ip daddr {APPLICATION} tcp dport != 15006 redirect to :15006
    meta mark {{ {OUTSIDE}, {PROXY} }} return
    ip daddr {GATEWAY} return
    meta l4proto tcp redirect to :15001
  }}
  set silent {{ type ipv4_addr; elements = {{ 10.88.9.9 }}; }}
  chain silence {{
    type filter hook output priority 0
    ip daddr @silent drop
  }}
}}
"""

SOCKETS = """
import socket, sys
control = socket.socket(fileno=int(sys.argv[1]))
while (asked := control.recv(64)):
    kind, mark = asked.decode().split()
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    if int(mark):
        one.setsockopt(socket.SOL_SOCKET, 36, int(mark))
    socket.send_fds(control, [b"."], [one.fileno()])
    one.close()
"""


class Refused(Exception):
    """Envoy does not take a resource; its words."""


class Station(Validator):
    """One Envoy and the scope it is configured for. The first one makes the namespace, others join it."""

    def __init__(self, scope: Scope, certificates: Certificates, join: Station | None = None) -> None:
        self._join = join
        self._certificates = certificates
        self.scope = scope
        self.graph = Graph()
        self._objects: list[Object] = []
        super().__init__()

    def bootstrap(self, xds: Path) -> Json:
        """The proxy's own connections are marked, so that redirection lets them out. Its certificate and trust are
        those of the lab."""
        own, root = self._identity["default"], self._identity["ROOTCA"]
        own.tls_certificate.certificate_chain.inline_string = self._certificates.read("workload.pem")
        own.tls_certificate.private_key.inline_string = self._certificates.read("workload.key")
        root.validation_context.trusted_ca.inline_string = self._certificates.read("root.pem")
        option = {"level": 1, "name": 36, "int_value": PROXY, "state": "STATE_PREBIND"}
        base = super().bootstrap(xds)
        return {
            **base,
            "typed_dns_resolver_config": {
                "name": "envoy.network.dns_resolver.cares",
                "typed_config": {
                    "@type": CARES,
                    "resolvers": [{"socket_address": {"address": DNS, "port_value": 53}}],
                },
            },
            "cluster_manager": {
                "upstream_bind_config": {"socket_options": [option]},
                "local_cluster_name": OWN_CLUSTER,
            },
            "static_resources": {"clusters": [*base["static_resources"]["clusters"], own_cluster()]},
            "node": {**base["node"], "locality": locality_of(self.scope)},
        }

    def start(self, bootstrap: Json) -> Envoy:
        """Starts Envoy in the namespace."""
        if self._join is None:
            return super().start(bootstrap)
        return Envoy(bootstrap, self.directory, prefix=self._join.inside())

    def inside(self) -> list[str]:
        """The command prefix that brings a program into the namespace."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self.envoy.process.pid), *user, "--net"]

    def configure(self, wanted: list[Object]) -> None:
        """Replaces the configuration and waits until Envoy uses all of it; Refused for what it does not take."""
        gone = {each.ref for each in self._objects} - {each.ref for each in wanted}
        self._objects = wanted
        with self._changed:
            self.graph.commit(transaction(wanted, gone))
            self.graph.commit(Transaction(put=[(each, self.fetched(each)) for each in self.graph.pull(wanted_modules)]))
            before, self._errors = self._given, []
            self._given = {kind.type_url: dict(self._made(kind)) for kind in TYPES}
            for kind in TYPES:
                listed = self._given[kind.type_url]
                if kind.wildcard:
                    old = before.get(kind.type_url, {})
                    changed = [each for name, each in listed.items() if old.get(name) != each]
                    self._offer(kind.type_url, changed, [name for name in old if name not in listed])
                else:
                    asked = sorted(name for type_url, name in self._subscribed if type_url == kind.type_url)
                    known = [made for name in asked if (made := self._answer(kind.type_url, name)) is not None]
                    self._offer(kind.type_url, known, [])
            assert self._changed.wait_for(lambda: not self._sent, READY_S), "Envoy does not answer"
            self._complain()
        deadline = time.monotonic() + READY_S
        while (missing := self._warming()) or self._sent:
            assert time.monotonic() < deadline, f"not in use: {missing}"
            time.sleep(0.005)
        self._complain()

    def key_sources(self) -> tuple[KeySource, ...]:
        """Where the keys that policies name come from."""
        return self.graph.pull(wanted_sources)

    def put_keys(self, keys: list[tuple[KeySource, str]]) -> None:
        """Puts keys in force."""
        self.graph.commit(Transaction(put=keys))
        self.configure(self._objects)

    def fetched(self, source: ModuleSource) -> Module:
        """What the control plane would put into the graph for a source of WebAssembly."""
        try:
            return Module(asyncio.run(fetch(source, self.graph.pull(pull_secret, source))))
        except FetchError as error:
            return Module(problem=str(error))

    def _complain(self) -> None:
        if self._errors:
            raise Refused("; ".join(self._errors))

    def _warming(self) -> str:
        lines = self.envoy.admin("/stats", filter="^(cluster|listener)_manager.*(warming|total_listeners_active)")
        return " ".join(line for line in lines.splitlines() if "warming" in line and not line.endswith(": 0"))

    def _made(self, kind: ResourceType) -> Iterable[tuple[str, Resource]]:
        for name in self.graph.pull(kind.names, self.scope):
            made = self.graph.pull(kind.resource, self.scope, name)
            assert made is not None, f"{kind.short} {name} is listed and isn't there"
            yield name, made

    def _answer(self, type_url: str, name: str) -> Resource | None:
        kind = next(each for each in TYPES if each.type_url == type_url)
        made = self.graph.pull(kind.resource, self.scope, name)
        return made if made is not None or type_url != SECRET or "://" in name else super()._answer(type_url, name)


class Lab:
    """The world. Use it as a context manager; `configure` adds a test's YAML to what is always there."""

    def __init__(self, sidecar: type[Station] = Station, world: World = WORLD) -> None:
        self.world = world
        self.directory = short_directory()
        self.certificates = Certificates(self.directory, *self.world.certified)
        self._objects: dict[Ref, Object] = {}
        locality = Locality("east", "a", "1")
        labels = (("app", "app"), ("version", "v1"))
        scope = Scope(
            ProxyKind.SIDECAR,
            "default",
            labels,
            locality=locality,
            addresses=(APPLICATION,),
            node="n1",
            metadata=(("TEAM", "shop"),),
        )
        self.sidecar = sidecar(scope, self.certificates)
        self._listening: list[socket.socket] = []
        try:
            self._prepare()
            router = Scope(ProxyKind.ROUTER, "istio-system", EDGE, locality=locality)
            self.gateway = Station(router, self.certificates, self.sidecar)
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._control = mine
            self._sockets = subprocess.Popen(
                [*self.sidecar.inside(), sys.executable, "-I", "-c", SOCKETS, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
            )
            theirs.close()
            self.servers = Servers(self.world.names, self.certificates.server_context)
            self._names = self.socket(kind="udp")
            self._names.bind((DNS, 53))
            threading.Thread(target=answer_names, args=(self._names, self.world.hosts), daemon=True).start()
            for address, port in self.world.listening:
                self.listen(port, address)
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        for command in (
            "ip link set lo up",
            "ip link add eth0 type veth peer name eth1",
            "ip link set eth1 up",
            f"ip address add {APPLICATION}/16 dev eth0",
            "ip link set eth0 up",
            "ip route add default dev eth0",
            "ip route add local 10.88.0.0/16 dev lo",
            *(f"ip route add local {network} dev lo" for network in self.world.networks),
            "nft -f -",
        ):
            subprocess.run([*self.sidecar.inside(), *command.split()], input=RULES, text=True, check=True)

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything."""
        if "provider" in vars(self):
            self.provider.close()
        if "registry" in self.__dict__:
            self.registry.close()
        for each in self._listening:
            each.shutdown(socket.SHUT_RDWR)
            each.close()
        if hasattr(self, "_names"):
            self._names.close()
        if hasattr(self, "_sockets"):
            self._control.close()
            self._sockets.wait()
        if hasattr(self, "gateway"):
            self.gateway.close()
        self.sidecar.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- configuration ----------------------------------------------------------------------------------------

    def configure(self, *texts: str) -> None:
        """Replaces what tests have configured, forgets what servers saw. Refused when Envoy does not take it.

        `@files` in a text stands for the directory of the certificates, `http://issuer.lab` for the identity provider,
        `registry.lab` for the server of modules.
        """
        self._objects = {}
        self.servers.reset()
        self.add(self.world.objects, self.certificates.secrets(), *texts)

    def add(self, *texts: str) -> None:
        """Adds to the configuration; an object replaces one of the same name."""
        wanted = [each for text in texts for each in objects(self._filled(text))]
        self._objects |= {each.ref: each for each in wanted}
        for each in (self.sidecar, self.gateway):
            each.configure(list(self._objects.values()))

    def _filled(self, text: str) -> str:
        text = text.replace("@files", str(self.directory))
        if REGISTRY in text:
            text = text.replace(REGISTRY, self.registry.host)
        return text.replace(ISSUER, self.provider.issuer) if ISSUER in text else text

    @cached_property
    def registry(self) -> Registry:
        """The lab's own server of modules and images."""
        return Registry()

    @cached_property
    def provider(self) -> IdentityProvider:
        """An identity provider outside of the lab's network, where the control plane is."""
        return IdentityProvider()

    # -- sockets ----------------------------------------------------------------------------------------------

    def socket(self, mark: int = 0, kind: str = "tcp") -> socket.socket:
        """A new socket inside the namespace."""
        self._control.send(f"{kind} {mark}".encode())
        _, handles, _, _ = socket.recv_fds(self._control, 1, 1)
        return socket.socket(fileno=handles[0])

    def listen(self, port: int, address: str = "0.0.0.0") -> None:
        """Lets the servers listen on one more port, or on a Unix socket (`unix://PATH`). On one address alone a proxy
        may listen on all others."""
        local = address.startswith(UNIX_PREFIX)
        one = socket.socket(socket.AF_UNIX) if local else self.socket()
        if not local and address != "0.0.0.0":
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(address.removeprefix(UNIX_PREFIX) if local else (address, port))
        one.listen(128)
        self._listening.append(one)
        self.servers.serve(one)

    def connect(
        self, host: str, port: int, *, source: str = "", tls: ssl.SSLContext | None = None, sni: str = "", mark: int = 0
    ) -> socket.socket:
        """A connection from the application (its proxy takes it) or with a mark of another client.

        `host` is an address, one of the names of the world, or `unix://PATH`; `source` another local address to come
        from.
        """
        local = host.startswith(UNIX_PREFIX)
        one = socket.socket(socket.AF_UNIX) if local else self.socket(mark)
        one.settimeout(10)
        try:
            if source:
                one.bind((source, 0))
            address = self.world.addresses.get(host, host)
            one.connect(host.removeprefix(UNIX_PREFIX) if local else (address, port))
            if not local:  # the first words after a handshake would wait for an acknowledgement (40 ms)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return one if tls is None else tls.wrap_socket(one, server_hostname=sni or None)
        except BaseException:
            one.close()
            raise

    def silence(self, address: str, *, on: bool = True) -> None:
        """Lets nothing more reach an address, or lets it again."""
        verb = "add" if on else "delete"
        command = f"nft {verb} element ip lab silent {{ {address} }}"
        subprocess.run([*self.sidecar.inside(), *command.split()], check=True)

    def stat(self, name: str, station: str = "sidecar") -> int:
        """A counter of one of the proxies; `name` is a regular expression, several are added up."""
        envoy = self.sidecar.envoy if station == "sidecar" else self.gateway.envoy
        lines = envoy.admin("/stats", filter=f"^{name}$").splitlines()
        return sum(int(line.rpartition(": ")[2]) for line in lines)

    def wait(self, what: Any, within_s: float = 5) -> None:
        """Returns when `what()` holds; AssertionError after that time."""
        end = time.monotonic() + within_s
        while not what():
            assert time.monotonic() < end, "it did not come about"
            time.sleep(0.005)


def locality_of(scope: Scope) -> Json:
    """Where a proxy is, as its bootstrap says it."""
    place = scope.locality
    return {"region": place.region, "zone": place.zone, "sub_zone": place.subzone}
