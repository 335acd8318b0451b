"""Checks of Sidecars."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.check import Said, check
from lateen.analysis.lookup import key, nearest_labels, selected
from lateen.api.istio.sidecar import Sidecar
from lateen.api.objects import in_namespace
from lateen.engine import Q
from lateen.lib.findings import Level
from lateen.model.visibility import sidecar_for
from lateen.model.workloads import Labels


@check("IST0101", Level.WARNING, "A Sidecar selects no workload", Sidecar)
def selects_nothing(q: Q, subject: Sidecar) -> Iterator[Said]:
    """No workload of the namespace has all labels of the `workloadSelector`, so the Sidecar applies to nothing.

    Correct the labels, or leave the selector out to mean every workload of the namespace.
    """
    selector = subject.spec.workload_selector
    if selector is not None and not q(selected, subject.namespace, key(selector.labels)):
        remedy = nearest_labels(q, subject.namespace, selector.labels)
        yield Said("spec.workloadSelector", "no workload has these labels", remedy)


@check("IST0110", Level.WARNING, "Two Sidecars select the same workload", Sidecar)
def conflicting_selectors(q: Q, subject: Sidecar) -> Iterator[Said]:
    """A workload is selected by several Sidecars. Only one applies, the oldest.

    Change the selectors so that each workload is selected once.
    """
    selector = subject.spec.workload_selector
    if selector is None:
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
    if subject.spec.workload_selector is not None:
        return
    others = [name for name, selecting in q(_sidecars, subject.namespace) if not selecting and name != subject.name]
    if others:
        message = f"{', '.join(others)} is for the whole namespace {subject.namespace} too"
        yield Said("", message, "merge them, or set workloadSelector")


def _sidecars(q: Q, namespace: str) -> tuple[tuple[str, Labels], ...]:
    return tuple(
        (each.name, key(each.spec.workload_selector.labels) if each.spec.workload_selector is not None else ())
        for each in in_namespace(q, Sidecar, namespace)
    )
