"""The check of routes by claims of tokens."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.check import Said, check
from lateen.analysis.lookup import key, selected_anywhere
from lateen.api.istio.gateway import Gateway
from lateen.api.istio.virtual_service import VirtualService
from lateen.api.objects import get
from lateen.api.problems import at
from lateen.engine import Q
from lateen.intent.matching import is_claim
from lateen.lib.findings import Level
from lateen.model.policy_attachment import Workloads
from lateen.model.request_authentication import jwt_rules


@check("IST0149", Level.WARNING, "A route asks for a claim that nobody verifies", VirtualService)
def claims_without_tokens(q: Q, subject: VirtualService) -> Iterator[Said]:
    """A match asks for a claim of a token (`@request.auth.claims...`), and no RequestAuthentication applies to the
    gateway. No request has such a claim then, so the rule is for nobody, and one with `withoutHeaders` for everybody.
    For sidecars (gateway `mesh`) tokens are never looked at before the route is chosen.

        match: [{headers: {"@request.auth.claims.group": {exact: admin}}}]

    Create a RequestAuthentication that selects the gateway's workload.
    """
    if all(q(_verified, subject.namespace, name) for name in subject.spec.gateways or ("mesh",)):
        return
    for index, rule in enumerate(subject.spec.http):
        for inner, match in enumerate(rule.match):
            for field, names in (("headers", match.headers), ("withoutHeaders", match.without_headers)):
                for name in filter(is_claim, names):
                    if match.gateways and all(q(_verified, subject.namespace, each) for each in match.gateways):
                        continue
                    place = at("spec", "http", index, "match", inner, field, name)
                    yield Said(place, "nothing verifies tokens there", "create a RequestAuthentication for the gateway")


def _verified(q: Q, owner: str, name: str) -> bool:
    """True when some workload of a gateway understands tokens, or there is no such workload yet."""
    namespace, _, own = name.rpartition("/")
    found = get(q, Gateway, namespace or owner, own)
    if name == "mesh" or found is None:
        return name != "mesh"
    groups = q(selected_anywhere, key(found.spec.selector))
    return not groups or any(q(jwt_rules, Workloads(each.namespace, each.labels, True)) for each in groups)
