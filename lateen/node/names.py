"""The names of a mesh: which addresses a host name has, from Services, EndpointSlices and ServiceEntries.

A table is fed with raw objects as the API's watches give them and answers lookups at any time. It knows

- `NAME.NAMESPACE`, `NAME.NAMESPACE.svc` and the full name of each Service: its cluster address, or for a headless
  one the ready addresses of its endpoints, each endpoint also by its own host name in front (its address with
  dashes when it has none); an ExternalName Service is an alias;
- `_PORT._PROTOCOL.` in front of the full name: who serves a named port;
- the hosts of ServiceEntries that have addresses, wildcards included: those of the object, else those that the
  control plane wrote to its status. One without addresses is left to the resolvers of the machine, like every
  other name.

Sources: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/ and
https://istio.io/latest/docs/ops/configuration/traffic-management/dns-proxy/
"""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lateen.lib.machines import NAME_KINDS

Json = Mapping[str, Any]


class Target(msgspec.Struct, frozen=True):
    """Who serves a named port, by full name."""

    host: str
    port: int


class Found(msgspec.Struct, frozen=True):
    """What a name is: addresses (v4 and v6 mixed, maybe none), the name it is an alias of, or the servers of a
    named port."""

    addresses: tuple[str, ...] = ()
    alias: str = ""
    targets: tuple[Target, ...] = ()


class _Meta(msgspec.Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None

    @property
    def key(self) -> tuple[str, str]:
        return (self.namespace, self.name)


class _Port(msgspec.Struct, frozen=True):
    port: int | None = None
    name: str | None = None
    protocol: str | None = None

    @property
    def label(self) -> str:
        """How names of its servers begin; empty for a port without a name."""
        return f"_{self.name}._{self.protocol or 'TCP'}".lower() if self.name and self.port else ""


class _ServiceSpec(msgspec.Struct, frozen=True, rename="camel"):
    type: str | None = None
    cluster_ip: str | None = msgspec.field(name="clusterIP", default=None)
    cluster_ips: tuple[str, ...] | None = msgspec.field(name="clusterIPs", default=None)
    external_name: str | None = None
    publish_not_ready_addresses: bool | None = None
    ports: tuple[_Port, ...] | None = None


class _Conditions(msgspec.Struct, frozen=True):
    ready: bool | None = None


class _Endpoint(msgspec.Struct, frozen=True):
    addresses: tuple[str, ...] = ()
    hostname: str | None = None
    conditions: _Conditions | None = None


class _EntrySpec(msgspec.Struct, frozen=True):
    hosts: tuple[str, ...] = ()
    addresses: tuple[str, ...] | None = None


class _EntryAddress(msgspec.Struct, frozen=True):
    value: str
    host: str | None = None


class _EntryStatus(msgspec.Struct, frozen=True):
    addresses: tuple[_EntryAddress, ...] | None = None


class _Service(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _ServiceSpec | None = None


class _Slice(msgspec.Struct, frozen=True):
    metadata: _Meta
    endpoints: tuple[_Endpoint, ...] | None = None
    ports: tuple[_Port, ...] | None = None

    @property
    def service(self) -> tuple[str, str]:
        return (self.metadata.namespace, (self.metadata.labels or {}).get("kubernetes.io/service-name", ""))


class _Entry(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _EntrySpec | None = None
    status: _EntryStatus | None = None

    @property
    def names(self) -> dict[str, Found]:
        """Its hosts that have addresses."""
        spec = self.spec or _EntrySpec()
        if spec.addresses:
            found = Found(_addresses(spec.addresses))
            return {_plain(host): found for host in spec.hosts} if found.addresses else {}
        given = self.status.addresses if self.status is not None and self.status.addresses else ()
        names: dict[str, Found] = {}
        for host in map(_plain, spec.hosts):
            mine = _addresses(each.value for each in given if not each.host or _plain(each.host) == host)
            if mine:
                names[host] = Found(mine)
        return names


KINDS = NAME_KINDS
"""The kinds a table is made of."""


class Names:
    """A table of one cluster domain (`cluster.local`).

    Services of the namespace `home` are also known by their names alone: on a machine outside of the Pods no search
    list says where it belongs. Until each kind was listed once it is not complete: then a table kept from before
    (`restore`) helps out, and what neither knows may still exist.
    """

    def __init__(self, domain: str = "cluster.local", home: str = "") -> None:
        self.domain = domain
        self._home = home
        self._objects: dict[str, dict[tuple[str, str], dict[str, Found]]] = defaultdict(dict)
        self._slices: dict[tuple[str, str], _Slice] = {}
        self._slices_of: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
        self._headless: dict[tuple[str, str], _ServiceSpec] = {}
        self._hosts: dict[str, Found] = {}
        self._owners: dict[str, list[Found]] = defaultdict(list)
        self._reverse: dict[str, str] = {}
        self._above: Counter[str] = Counter()
        self._listed: set[str] = set()
        self.changes = 0
        """Goes up whenever an answer may have changed."""
        self._restored: dict[str, Found] = {}

    @property
    def complete(self) -> bool:
        """Whether each kind was listed."""
        return self._listed.issuperset(KINDS)

    def snapshot(self) -> bytes:
        """The table as bytes for `restore`."""
        return msgspec.json.encode(self._hosts)

    def restore(self, snapshot: bytes) -> None:
        """Helps out with an earlier table until this one is complete. msgspec.DecodeError when it is none."""
        self._restored = msgspec.json.decode(snapshot, type=dict[str, Found])
        self.changes += 1

    def replace(self, kind: str, objects: Iterable[Json]) -> list[str]:
        """Makes these all objects of a kind (`Service`, `EndpointSlice`, `ServiceEntry`): a list. Those that do not
        have the kind's form are left out; the answer says which and why."""
        problems: list[str] = []
        given = {msgspec.convert(each["metadata"], _Meta).key: each for each in objects}
        known = set(self._slices) if kind == "EndpointSlice" else {*self._objects[kind], *self._headless}
        for namespace, name in known - given.keys():
            self.delete(kind, {"metadata": {"namespace": namespace, "name": name}})
        for (namespace, name), each in given.items():
            try:
                self.put(kind, each)
            except msgspec.ValidationError as error:
                problems.append(f"{kind} {namespace}/{name}: {error}")
        self._listed.add(kind)
        self.changes += 1
        if self.complete:
            self._restored = {}
        return problems

    def put(self, kind: str, item: Json) -> None:
        """Adds or changes one object. msgspec.ValidationError when it does not have the kind's form."""
        match kind:
            case "EndpointSlice":
                self._put_slice(msgspec.convert(item, _Slice))
            case "Service":
                service = msgspec.convert(item, _Service)
                self._put_service(service.metadata.key, service.spec or _ServiceSpec())
            case "ServiceEntry":
                entry = msgspec.convert(item, _Entry)
                self._set(kind, entry.metadata.key, entry.names)
            case _:
                raise ValueError(f"{kind} has no names")

    def delete(self, kind: str, item: Json) -> None:
        """Forgets one object; only its name and namespace are read."""
        key = msgspec.convert(item["metadata"], _Meta).key
        if kind == "EndpointSlice":
            self._drop_slice(key)
            return
        if kind == "Service":
            self._headless.pop(key, None)
        self._set(kind, key, {})

    def find(self, name: str) -> Found | None:
        """What a name (any case, dot at the end or not) is; None when the table does not know it."""
        name = _plain(name)
        found = self._entry(name)
        _, _, rest = name.partition(".")
        while found is None and rest:
            found = self._entry(f"*.{rest}")
            _, _, rest = rest.partition(".")
        return found

    def owns(self, name: str) -> bool:
        """Whether only this table may answer for a name: it is in the cluster's domain."""
        return _plain(name) == self.domain or _plain(name).endswith(f".{self.domain}")

    def above(self, name: str) -> bool:
        """Whether a name of the cluster's domain has names below it: then it exists, though nothing is there."""
        return self._above[_plain(name)] > 0 or _plain(name) == self.domain

    def reverse(self, address: str) -> str | None:
        """The full name of the Service with this cluster address, or of the endpoint of a headless one."""
        return self._reverse.get(address)

    def __len__(self) -> int:
        return len(self._hosts)

    def _entry(self, name: str) -> Found | None:
        return self._hosts.get(name) or self._restored.get(name)

    def _put_service(self, key: tuple[str, str], spec: _ServiceSpec) -> None:
        self._headless.pop(key, None)
        if spec.type == "ExternalName":
            self._set("Service", key, self._service_names(key, Found(alias=_plain(spec.external_name or ""))))
        elif spec.cluster_ip == "None":
            self._headless[key] = spec
            self._refresh_headless(key)
        else:
            names = self._service_names(key, Found(_addresses(spec.cluster_ips or (spec.cluster_ip or "",))))
            full = self._full(key)
            for port in spec.ports or ():
                if port.label and port.port:
                    names[f"{port.label}.{full}"] = Found(targets=(Target(full, port.port),))
            self._set("Service", key, names)

    def _put_slice(self, item: _Slice) -> None:
        key = item.metadata.key
        before = self._slices.get(key)
        if before is not None and before.service != item.service:
            self._drop_slice(key)
        self._slices[key] = item
        self._slices_of[item.service].add(key)
        self._refresh_headless(item.service)

    def _drop_slice(self, key: tuple[str, str]) -> None:
        item = self._slices.pop(key, None)
        if item is None:
            return
        rest = self._slices_of[item.service]
        rest.discard(key)
        if not rest:
            del self._slices_of[item.service]
        self._refresh_headless(item.service)

    def _service_names(self, key: tuple[str, str], found: Found) -> dict[str, Found]:
        namespace, name = key
        short = f"{name}.{namespace}"
        alone = (name,) if namespace == self._home else ()
        return dict.fromkeys((*alone, short, f"{short}.svc", self._full(key)), found)

    def _full(self, key: tuple[str, str]) -> str:
        return f"{key[1]}.{key[0]}.svc.{self.domain}"

    def _refresh_headless(self, key: tuple[str, str]) -> None:
        spec = self._headless.get(key)
        if spec is None:
            return
        full = self._full(key)
        ready: list[str] = []
        hosts: dict[str, list[str]] = defaultdict(list)
        targets: dict[str, list[Target]] = defaultdict(list)
        for name in sorted(self._slices_of.get(key, ())):
            item = self._slices[name]
            for endpoint in item.endpoints or ():
                unready = endpoint.conditions is not None and endpoint.conditions.ready is False
                if not endpoint.addresses or (unready and not spec.publish_not_ready_addresses):
                    continue
                ready += endpoint.addresses
                host = _plain(endpoint.hostname or "") or endpoint.addresses[0].replace(".", "-").replace(":", "-")
                hosts[host] += endpoint.addresses
                for port in item.ports or ():
                    if port.label and port.port:
                        targets[f"{port.label}.{full}"].append(Target(f"{host}.{full}", port.port))
        names = self._service_names(key, Found(_addresses(ready)))
        for host, addresses in hosts.items():
            found = Found(_addresses(addresses))
            names |= {f"{host}.{name}": found for name in self._service_names(key, found)}
        names |= {name: Found(targets=tuple(dict.fromkeys(each))) for name, each in targets.items()}
        self._set("Service", key, names)

    def _set(self, kind: str, key: tuple[str, str], names: dict[str, Found]) -> None:
        """Replaces what one object says. When several say something of one name, their addresses add up."""
        self.changes += 1
        old = self._objects[kind].pop(key, {})
        for name, found in old.items():
            self._owners[name].remove(found)
            for address in found.addresses:
                self._reverse.pop(address, None)
        if names:
            self._objects[kind][key] = names
        for name, found in names.items():
            self._owners[name].append(found)
            if kind == "Service" and name.endswith(f".{self.domain}") and self._names_one(key, name):
                self._reverse |= dict.fromkeys(found.addresses, name)
        for name in old.keys() | names.keys():
            self._join(name)

    def _names_one(self, key: tuple[str, str], name: str) -> bool:
        """Whether an address has that name and no other: of a headless Service, those of its endpoints."""
        return key not in self._headless or name.endswith(f".{self._full(key)}")

    def _join(self, name: str) -> None:
        owners = self._owners[name]
        if not owners:
            del self._owners[name]
            if self._hosts.pop(name, None) is not None:
                self._count(name, -1)
            return
        if name not in self._hosts:
            self._count(name, 1)
        addresses = dict.fromkeys(address for found in owners for address in found.addresses)
        alias = next((found.alias for found in owners if found.alias), "")
        targets = dict.fromkeys(target for found in owners for target in found.targets)
        self._hosts[name] = Found(tuple(addresses), "" if addresses else alias, tuple(targets))

    def _count(self, name: str, change: int) -> None:
        """Counts a name in the names above it, as far as the cluster's domain goes."""
        while name.endswith(f".{self.domain}"):
            _, _, name = name.partition(".")
            self._above[name] += change


def _plain(name: str) -> str:
    return name.rstrip(".").lower()


def _addresses(texts: Iterable[str]) -> tuple[str, ...]:
    """The single addresses among texts; ranges and what is no address stay out."""
    found: list[str] = []
    for text in texts:
        try:
            found.append(str(ipaddress.ip_address(text.removesuffix("/32"))))
        except ValueError:
            continue
    return tuple(dict.fromkeys(found))
