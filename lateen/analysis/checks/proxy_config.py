"""Checks of ProxyConfigs."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.check import Said, check
from lateen.analysis.lookup import key, nearest_labels, selected
from lateen.api.istio.proxy_config import ProxyConfig
from lateen.api.objects import in_namespace
from lateen.engine import Q
from lateen.lib.findings import Level
from lateen.model.policy_attachment import oldest_first
from lateen.model.proxy_config import proxy_configs


@check("LTN0101", Level.WARNING, "A selector picks no workload", ProxyConfig)
def selects_nothing(q: Q, subject: ProxyConfig) -> Iterator[Said]:
    """No workload of the namespace has all labels of the `selector`, so the settings are for no proxy.

    Correct the labels, or leave the selector out to mean every workload of the namespace.
    """
    selector = subject.spec.selector
    if selector is not None and selector.match_labels:
        labels = selector.match_labels
        if not q(selected, subject.namespace, key(labels)):
            remedy = nearest_labels(q, subject.namespace, labels)
            yield Said("spec.selector", "no workload has these labels", remedy)


@check("LTN0262", Level.WARNING, "Several ProxyConfigs are for the same proxies", ProxyConfig)
def several(q: Q, subject: ProxyConfig) -> Iterator[Said]:
    """Another ProxyConfig of the same rank (for the whole namespace, or for a workload by its labels) is for the same
    proxies. The oldest counts; this one has no effect there.

    Merge them into one.
    """
    selector = subject.spec.selector
    if selector is None or not selector.match_labels:
        every = [each for each in in_namespace(q, ProxyConfig, subject.namespace) if not _labels(each)]
        first = oldest_first(every)[0]
        if first.name != subject.name:
            yield Said("", f"{first.ref.short} counts for the whole namespace, being older", "merge them")
        return
    for group in q(selected, subject.namespace, key(selector.match_labels)):
        counting = q(proxy_configs, subject.namespace, group.labels)[-1]
        if counting != subject.ref:
            yield Said("spec.selector", f"{counting.short} counts for {group.name}, being older", "merge them")
            return


CHECKS = (selects_nothing, several)


def _labels(each: ProxyConfig) -> bool:
    return each.spec.selector is not None and bool(each.spec.selector.match_labels)
