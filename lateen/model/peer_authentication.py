"""Which transport a workload accepts: PeerAuthentication by workload, namespace and mesh.

The policy of the workload (a selector that matches) outranks that of its namespace (no selector), which outranks
that of the root namespace. UNSET inherits from the next level; nothing at all means PERMISSIVE. Ports are named
only by a policy with a selector and are the workload's own ports. Of several at one level the oldest counts.

Source: https://istio.io/latest/docs/reference/config/security/peer_authentication/
"""

from __future__ import annotations

import enum

import msgspec

from lateen.api.istio.peer_authentication import PeerAuthentication
from lateen.api.objects import in_namespace, selects
from lateen.engine import Q
from lateen.lib.ids import Ref
from lateen.model.mesh import root_namespace
from lateen.model.workloads import Labels


class MtlsMode(enum.StrEnum):
    """What an inbound port accepts: only mutual TLS, both, or plain traffic only."""

    STRICT = "STRICT"
    PERMISSIVE = "PERMISSIVE"
    DISABLE = "DISABLE"


class PeerPolicy(msgspec.Struct, frozen=True):
    """The effective modes of a workload: one for all ports, others for some; `origins` made them."""

    mode: MtlsMode = MtlsMode.PERMISSIVE
    ports: tuple[tuple[int, MtlsMode], ...] = ()
    origins: tuple[Ref, ...] = ()

    def at(self, port: int) -> MtlsMode:
        """The mode of one workload port."""
        return dict(self.ports).get(port, self.mode)


def peer_policy(q: Q, namespace: str, labels: Labels) -> PeerPolicy:
    """The policy for workloads with those labels in a namespace."""
    root = q(root_namespace)
    mesh = next((each for each in q(_policies, root) if not _selector(each)), None)
    own = None
    space = None
    have = dict(labels)
    for each in q(_policies, namespace):
        selector = _selector(each)
        if selector and own is None and selects(selector, have):
            own = each
        if not selector and space is None and namespace != root:
            space = each
    levels = [each for each in (mesh, space, own) if each is not None]
    mode = MtlsMode.PERMISSIVE
    for each in levels:
        mode = _mode(each.spec.mtls.mode if each.spec.mtls else None, mode)
    ports = sorted(
        (int(port), _mode(said.mode, mode)) for port, said in (own.spec.port_level_mtls.items() if own else ())
    )
    return PeerPolicy(mode, tuple(ports), tuple(each.ref for each in levels))


def _policies(q: Q, namespace: str) -> tuple[PeerAuthentication, ...]:
    found = in_namespace(q, PeerAuthentication, namespace)
    return tuple(sorted(found, key=lambda each: (each.metadata.creation_timestamp or "9999", each.name)))


def _selector(policy: PeerAuthentication) -> dict[str, str]:
    return dict(policy.spec.selector.match_labels) if policy.spec.selector is not None else {}


def _mode(said: str | None, inherited: MtlsMode) -> MtlsMode:
    return MtlsMode(said) if said not in (None, "UNSET") else inherited
