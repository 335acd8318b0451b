"""Checks of Gateways."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lateen.analysis.check import Said, check
from lateen.analysis.lookup import Group, config_map_keys, gateway_losses, key, secret_keys, selected_anywhere
from lateen.api.istio.gateway import Gateway
from lateen.api.objects import everywhere
from lateen.api.problems import at
from lateen.engine import Q
from lateen.lib.findings import Level
from lateen.lib.ids import Ref
from lateen.model.gateways import server_hosts, udp_port
from lateen.model.services import selected_by, service
from lateen.model.workloads import Labels

_CERTIFICATE_KEYS = (("tls.crt", "tls.key"), ("cert", "key"))
_ROOT_KEYS = ("ca.crt", "cacert")
_PREFIX = "kubernetes://"


class _Claim(msgspec.Struct, frozen=True):
    """A host that a Gateway claims on a port. `namespace` is whose VirtualServices may have it, or `*`."""

    gateway: Ref
    created: str
    selector: Labels
    port: int
    bind: str
    namespace: str
    host: str


@check("IST0101", Level.WARNING, "A Gateway selects no workload", Gateway)
def selects_nothing(q: Q, subject: Gateway) -> Iterator[Said]:
    """No Pod has all labels of the Gateway's selector, in any namespace, so nobody listens on its ports.

        selector: {istio: ingresgateway}

    Correct the labels, or deploy a gateway with them.
    """
    if subject.spec.selector and not q(selected_anywhere, key(subject.spec.selector)):
        labels = ", ".join(f"{name}: {value}" for name, value in subject.spec.selector.items())
        yield Said("spec.selector", f"no workload has the labels {labels}", "deploy a gateway with these labels")


@check("IST0104", Level.WARNING, "A port of a Gateway is not on its workload", Gateway)
def port_not_on_workload(q: Q, subject: Gateway) -> Iterator[Said]:
    """The Gateway opens a port that no Service of the selected workloads has, and that is no port of their
    containers either. The proxy listens there, and nobody gets through to it.

    Use a port of the gateway's Service (80, say, whose `targetPort` may be another), or add the port there.
    """
    groups = q(selected_anywhere, key(subject.spec.selector)) if subject.spec.selector else ()
    if not groups:
        return
    open_ports = sorted({port for each in groups for port in q(_open_ports, each)})
    for index, server in enumerate(subject.spec.servers):
        if open_ports and server.port.number not in open_ports:
            ports = ", ".join(map(str, open_ports))
            message = f"port {server.port.number} is not open on the gateway's workload"
            yield Said(at("spec", "servers", index, "port", "number"), message, f"open are {ports}")


@check("IST0101", Level.WARNING, "A certificate of a Gateway is not there", Gateway)
def missing_credential(q: Q, subject: Gateway) -> Iterator[Said]:
    """A server's `credentialName` names a Secret that is not in the namespace of the gateway's workload, or that
    lacks the certificate and key (`tls.crt` and `tls.key`), or for mode MUTUAL the roots (`ca.crt`). TLS
    connections to the server fail until it is there.

        lateen apply -f secret.yaml   # of type kubernetes.io/tls, in the gateway's namespace

    The Secret belongs to the namespace of the gateway Pods, which need not be that of the Gateway object.
    """
    groups = q(selected_anywhere, key(subject.spec.selector))
    namespaces = sorted({each.namespace for each in groups}) or [subject.namespace]
    for index, server in enumerate(subject.spec.servers):
        tls = server.tls
        if tls is None or tls.passes or tls.mode == "ISTIO_MUTUAL":
            continue
        mutual = tls.mode in ("MUTUAL", "OPTIONAL_MUTUAL") and not tls.ca_cert_credential_name
        names = [(at("spec", "servers", index, "tls", "credentialName"), tls.credential_name or "")]
        names += [
            (at("spec", "servers", index, "tls", "credentialNames", inner), name)
            for inner, name in enumerate(tls.credential_names)
        ]
        for path, name in names:
            for namespace in namespaces if name else ():
                reason = _credential_problem(q, namespace, name.removeprefix(_PREFIX), mutual)
                if reason:
                    yield Said(path, reason, "create it with tls.crt and tls.key" + (" and ca.crt" if mutual else ""))
        if roots := tls.ca_cert_credential_name:
            for namespace in namespaces:
                if not _has_roots(q, namespace, roots.removeprefix(_PREFIX)):
                    place = at("spec", "servers", index, "tls", "caCertCredentialName")
                    message = f"there is no Secret or ConfigMap {namespace}/{roots} with roots"
                    yield Said(place, message, "create it with ca.crt")


@check("IST0145", Level.WARNING, "Another Gateway claims the same host and port", Gateway)
def conflicting_servers(q: Q, subject: Gateway) -> Iterator[Said]:
    """Two Gateways of the same workload claim the same host on the same port. Plain HTTP servers are one then, and so
    are HTTPS servers with the same TLS settings: the VirtualServices of both count, the oldest first. Where the two
    treat the port in different ways the older Gateway has the host (LTN0200).

    Claim each host in one Gateway.
    """
    mine = [each for each in q(_claims) if each.gateway == subject.ref]
    for index, server in enumerate(subject.spec.servers):
        pairs = server_hosts(server.hosts, subject.namespace)
        for inner, (namespace, host) in enumerate(pairs):
            for other in q(_claims):
                same_place = (other.port, other.bind, other.host) == (server.port.number, server.bind or "", host)
                if (
                    other.gateway != subject.ref
                    and mine
                    and same_place
                    and _share(mine[0].selector, other.selector)
                    and (namespace == other.namespace or "*" in (namespace, other.namespace))
                ):
                    message = f"{other.gateway.short} claims {host} on port {server.port.number} too"
                    yield Said(at("spec", "servers", index, "hosts", inner), message, "claim it in one of them")


@check("LTN0200", Level.WARNING, "Another server has a port or host of a Gateway", Gateway)
def loses_to_another(q: Q, subject: Gateway) -> Iterator[Said]:
    """A port carries plain HTTP, TLS or plain bytes; what the first server carries counts, and later ones that carry
    something else get nothing. Of TLS servers with the very same host and different TLS settings the first has it.
    First is the older Gateway, then the first by name and namespace, then the order inside of the Gateway.

        servers:
        - {port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.example], tls: {mode: SIMPLE, credentialName: a}}
        - {port: {number: 443, name: b, protocol: HTTPS}, hosts: [a.example], tls: {mode: MUTUAL, credentialName: a}}

    Give the server another port or host, or the settings of the other.
    """
    for each in sorted(q(gateway_losses, subject.ref), key=lambda one: (one.index, one.host)):
        winner = f"server {each.winner_index} of {each.winner.short}"
        server = subject.spec.servers[each.index]
        path = at("spec", "servers", each.index)
        if not each.host:
            message = f"{winner} has port {each.port} and treats it in another way, so this server gets nothing"
            yield Said(path, message, "use another port")
            continue
        inner = [host for _, host in server_hosts(server.hosts, subject.namespace)].index(each.host)
        message = f"{winner} has {each.host} on port {each.port} with other TLS settings, and counts"
        yield Said(at("spec", "servers", each.index, "hosts", inner), message, "use its settings, or another host")


@check("LTN0201", Level.WARNING, "HTTP/3 is asked for where it cannot be", Gateway)
def no_http3(q: Q, subject: Gateway) -> Iterator[Said]:
    """The Service in front of the gateway has the server's port for UDP, which asks for HTTP/3. Envoy's QUIC knows no
    certificates of clients, so servers that want them (MUTUAL, OPTIONAL_MUTUAL, ISTIO_MUTUAL) are served by TCP only.

    Use mode SIMPLE, or leave the UDP port out of the Service.
    """
    groups = q(selected_anywhere, key(subject.spec.selector))
    for index, server in enumerate(subject.spec.servers):
        mode = server.tls.effective_mode if server.tls is not None else "SIMPLE"
        if server.port.protocol.upper() == "HTTPS" and mode not in ("SIMPLE", "PASSTHROUGH", "AUTO_PASSTHROUGH"):
            asked = [each for each in groups if q(udp_port, each.namespace, each.labels, server.port.number)]
            if asked:
                message = f"port {server.port.number} is also a UDP port, and mode {mode} cannot be had by HTTP/3"
                yield Said(at("spec", "servers", index, "tls", "mode"), message, "use SIMPLE, or TCP alone")


def _share(first: Labels, second: Labels) -> bool:
    """True when every workload of one selector is one of the other."""
    return set(first) <= set(second) or set(second) <= set(first)


def _claims(q: Q) -> tuple[_Claim, ...]:
    return tuple(
        _Claim(
            each.ref,
            each.metadata.creation_timestamp,
            key(each.spec.selector),
            server.port.number,
            server.bind or "",
            namespace,
            host,
        )
        for each in everywhere(q, Gateway)
        for server in each.spec.servers
        for namespace, host in server_hosts(server.hosts, each.namespace)
    )


def _open_ports(q: Q, group: Group) -> tuple[int, ...]:
    """The ports by which a gateway's workload can be reached: of its Services, and of its containers."""
    ports = {number for _, number in group.ports}
    for host in q(selected_by, group.namespace, group.labels):
        found = q(service, host)
        for port in found.ports if found is not None else ():
            ports.add(port.number)
            if isinstance(port.target_port, int) and port.target_port:
                ports.add(port.target_port)
    return tuple(sorted(ports))


def _has_roots(q: Q, namespace: str, name: str) -> bool:
    keys = (q(secret_keys, namespace, name), q(secret_keys, namespace, f"{name}-cacert"))
    public = q(config_map_keys, namespace, name)
    return any(set(each or ()) & set(_ROOT_KEYS) for each in (*keys, public))


def _credential_problem(q: Q, namespace: str, name: str, mutual: bool) -> str | None:
    keys = q(secret_keys, namespace, name)
    if keys is None:
        return f"there is no Secret {namespace}/{name}"
    if not any(set(pair) <= set(keys) for pair in _CERTIFICATE_KEYS):
        return f"Secret {namespace}/{name} has no certificate and key"
    roots = q(secret_keys, namespace, f"{name}-cacert") if mutual else None
    if mutual and not {*keys, *(roots or ())} & set(_ROOT_KEYS):
        return f"Secret {namespace}/{name} has no roots to check clients with"
    return None
