"""Mirror: a share of the requests is also sent somewhere else; nobody waits for that answer or sees it.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPMirrorPolicy
"""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import Route

from lateen.api.istio.http_route import Percent
from lateen.engine import Q
from lateen.features.encoding import set_percent
from lateen.features.feature import Feature, Rule
from lateen.intent.destination import destination
from lateen.intent.route import Mirror


def intent(q: Q, rule: Rule) -> tuple[Mirror, ...] | None:
    """The mirrors of a rule with a share above zero, or None."""
    said = rule.http
    found = [(each.destination, _share(each.percentage)) for each in said.mirrors]
    if said.mirror is not None:
        whole = said.mirror_percent if said.mirror_percent is not None else said.mirror_percent_alias
        share = _share(said.mirror_percentage)
        found.insert(0, (said.mirror, share if said.mirror_percentage is not None or whole is None else whole))
    mirrors = tuple(Mirror(destination(q, rule.client, to, rule.port), percent) for to, percent in found if percent > 0)
    return mirrors or None


def _share(said: Percent | None) -> float:
    return 100 if said is None else said.value or 0


def envoy(slot: tuple[Mirror, ...], route: Route) -> None:
    """Writes the mirrors of a route that forwards; their requests keep the host name."""
    for each in slot:
        policy = route.route.request_mirror_policies.add()
        policy.cluster = each.destination.cluster
        set_percent(policy.runtime_fraction.default_value, each.percent)
        policy.trace_sampled.value = False
        policy.disable_shadow_host_suffix_append = True


def words(slot: tuple[Mirror, ...]) -> str:
    """For people."""
    targets = " and ".join(f"{each.percent:g} % to {each.destination.words}" for each in slot)
    return f"Requests are also sent, as copies nobody waits for: {targets}."


FEATURE = Feature("mirror", intent, envoy, words)
