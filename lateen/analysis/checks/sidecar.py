"""Checks of Sidecars."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.check import Said, check
from lateen.analysis.lookup import Group, key, nearest_labels, selected, workloads
from lateen.api.istio.sidecar import Sidecar
from lateen.api.objects import in_namespace
from lateen.api.problems import at
from lateen.engine import Q
from lateen.lib.findings import Level
from lateen.lib.ids import Ref
from lateen.model.listing import visible_services
from lateen.model.peer_authentication import MtlsMode, peer_policy
from lateen.model.protocols import parse_protocol
from lateen.model.visibility import (
    Client,
    egress,
    listening,
    numbered_ports,
    sidecar_for,
    visible,
)
from lateen.model.workloads import Labels


@check("IST0101", Level.WARNING, "A Sidecar selects no workload", Sidecar)
def selects_nothing(q: Q, subject: Sidecar) -> Iterator[Said]:
    """No workload of the namespace has all labels of the `workloadSelector`, so the Sidecar applies to nothing.

    Correct the labels, or leave the selector out to mean every workload of the namespace.
    """
    selector = subject.spec.workload_selector
    if selector is not None and selector.labels and not q(selected, subject.namespace, key(selector.labels)):
        remedy = nearest_labels(q, subject.namespace, selector.labels)
        yield Said("spec.workloadSelector", "no workload has these labels", remedy)


@check("IST0110", Level.WARNING, "Two Sidecars select the same workload", Sidecar)
def conflicting_selectors(q: Q, subject: Sidecar) -> Iterator[Said]:
    """A workload is selected by several Sidecars. Only one applies, the oldest.

    Change the selectors so that each workload is selected once.
    """
    selector = subject.spec.workload_selector
    if selector is None or not selector.labels:
        return
    for group in q(selected, subject.namespace, key(selector.labels)):
        applies = q(sidecar_for, subject.namespace, group.labels)
        if applies is not None and applies != subject.ref:
            message = f"{applies.short} applies to {group.name}, and not this one"
            yield Said("spec.workloadSelector", message, "select each workload once")
            return


@check("IST0111", Level.WARNING, "Two Sidecars are for the whole namespace", Sidecar)
def several_defaults(q: Q, subject: Sidecar) -> Iterator[Said]:
    """A namespace has several Sidecars without a `workloadSelector`. Only one applies, the oldest.

    Merge them, or give all but one a selector.
    """
    if subject.spec.workload_selector is not None and subject.spec.workload_selector.labels:
        return
    others = [name for name, selecting in q(_sidecars, subject.namespace) if not selecting and name != subject.name]
    if others:
        message = f"{', '.join(others)} is for the whole namespace {subject.namespace} too"
        yield Said("", message, "merge them, or set workloadSelector")


@check("LTN0220", Level.WARNING, "TLS of a Sidecar's port has no effect", Sidecar)
def tls_not_ended(q: Q, subject: Sidecar) -> Iterator[Said]:
    """A Sidecar ends the TLS of clients on a port, and the port takes mutual TLS of the mesh: one port cannot do both,
    so the TLS of clients goes on to the application.

        ingress:
        - port: {number: 9443, protocol: HTTPS}
          tls: {mode: SIMPLE, serverCertificate: /certs/tls.crt, privateKey: /certs/tls.key}

    Turn mutual TLS off for that port: a PeerAuthentication with a selector and
    `portLevelMtls: {"9443": {mode: DISABLE}}`.
    """
    groups = q(_applied_to, subject.ref)
    for index, listener in enumerate(subject.spec.ingress):
        port = listener.port.number or 0
        if listener.tls is None:
            continue
        for group in groups:
            if q(peer_policy, subject.namespace, group.labels).at(port) is not MtlsMode.DISABLE:
                message = f"port {port} of {group.name} takes mutual TLS of the mesh, so this TLS is not ended"
                remedy = f"a PeerAuthentication with portLevelMtls: {{{port}: {{mode: DISABLE}}}}"
                yield Said(at("spec", "ingress", index, "tls"), message, remedy)
                break


@check("LTN0221", Level.WARNING, "Several services share one address of an egress listener", Sidecar)
def shared_address(q: Q, subject: Sidecar) -> Iterator[Said]:
    """All services of an egress listener with `bind` (or one that opens a port, or a Unix socket) are at one address.
    Requests name their host, and TLS its server; other connections don't, so the first service by name has them all.

        egress:
        - port: {number: 3306, protocol: MYSQL}
          bind: 127.0.0.1
          captureMode: NONE
          hosts: ["*/*"]

    Name the one service that is meant under `hosts`, or leave `bind` out: services are then told apart by their
    addresses.
    """
    client = Client(subject.namespace, subject.ref)
    for index, listener in enumerate(q(egress, client)):
        reached = [host for host in q(visible_services, client) if q(_streams_to, client, index, host)]
        if listener.address and len(reached) > 1:
            message = f"connections to {listener.address} go to {reached[0]}, never to {', '.join(reached[1:4])}"
            remedy = "name one service, or leave bind out"
            yield Said(at("spec", "egress", index, "hosts"), message, remedy)


def _streams_to(q: Q, client: Client, index: int, host: str) -> bool:
    """True when an egress listener passes on bytes to a service."""
    listeners = q(egress, client)
    listener, service = listeners[index], q(visible, client, host)
    if service is None or not listener.sees(service):
        return False
    if listener.whole:
        return parse_protocol(listener.protocol).is_tcp
    ports = q(numbered_ports, client, host)
    return any(
        not each.protocol.is_http and not each.protocol.is_tls and listening(listeners, each.number) is listener
        for each in ports
    )


def _applied_to(q: Q, ref: Ref) -> tuple[Group, ...]:
    """The workloads a Sidecar applies to, as far as they are in its namespace."""
    groups = q(workloads, ref.namespace)
    return tuple(each for each in groups if q(sidecar_for, ref.namespace, each.labels) == ref)


def _sidecars(q: Q, namespace: str) -> tuple[tuple[str, Labels], ...]:
    return tuple(
        (each.name, key(each.spec.workload_selector.labels) if each.spec.workload_selector is not None else ())
        for each in in_namespace(q, Sidecar, namespace)
    )
