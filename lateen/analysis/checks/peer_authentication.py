"""Checks of PeerAuthentications."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.check import Said, check
from lateen.analysis.lookup import key, nearest_labels, selected
from lateen.api.istio.peer_authentication import PeerAuthentication
from lateen.api.objects import in_namespace
from lateen.api.problems import at
from lateen.engine import Q
from lateen.lib.findings import Level
from lateen.model.mesh import root_namespace
from lateen.model.workloads import Labels


@check("LTN0101", Level.WARNING, "A selector picks no workload", PeerAuthentication)
def selects_nothing(q: Q, subject: PeerAuthentication) -> Iterator[Said]:
    """No workload of the namespace has all labels of the selector, so the policy protects nothing.

    Correct the labels, or leave the selector out to mean every workload of the namespace.
    """
    selector = _selector(subject)
    if selector and not q(selected, subject.namespace, selector):
        remedy = nearest_labels(q, subject.namespace, dict(selector))
        yield Said("spec.selector", "no workload has these labels", remedy)


@check("LTN0102", Level.WARNING, "A port of a policy is on none of its workloads", PeerAuthentication)
def port_not_on_workload(q: Q, subject: PeerAuthentication) -> Iterator[Said]:
    """`portLevelMtls` names a port that no container of the selected workloads declares. Ports here are those of
    the workload (`containerPort`, a Service's `targetPort`), not those of a Service.

        portLevelMtls:
          80: {mode: DISABLE}   # the Service's port; the container listens on 8080

    Write the workload's port.
    """
    groups = q(selected, subject.namespace, _selector(subject))
    declared = {number for each in groups for _, number in each.ports}
    if not declared:
        return
    for port in subject.spec.port_level_mtls:
        if int(port) not in declared:
            remedy = f"they have {', '.join(map(str, sorted(declared)))}"
            yield Said(at("spec", "portLevelMtls", port), f"no selected workload has port {port}", remedy)


@check("LTN0103", Level.WARNING, "Two policies are for the same workloads", PeerAuthentication)
def several_policies(q: Q, subject: PeerAuthentication) -> Iterator[Said]:
    """A namespace has several PeerAuthentications with the same selector, or without one. Only the oldest applies.

    Merge them.
    """
    mine = _selector(subject)
    others = [each for each in q(_policies, subject.namespace) if each[2] == mine and each[1] != subject.name]
    older = [name for created, name, _ in others if (created, name) < (_created(subject), subject.name)]
    if older:
        where = "the whole mesh" if subject.namespace == q(root_namespace) and not mine else "the same workloads"
        yield Said("", f"{older[0]} is for {where} and older, so this policy does not apply", "merge the two")


def _selector(subject: PeerAuthentication) -> Labels:
    return key(subject.spec.selector.match_labels) if subject.spec.selector is not None else ()


def _created(subject: PeerAuthentication) -> str:
    return subject.metadata.creation_timestamp or "9999"


def _policies(q: Q, namespace: str) -> tuple[tuple[str, str, Labels], ...]:
    return tuple(
        (_created(each), each.name, _selector(each)) for each in in_namespace(q, PeerAuthentication, namespace)
    )
