"""Checks of AuthorizationPolicies and RequestAuthentications."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from lateen.analysis.check import Said, check
from lateen.analysis.lookup import key, nearest_labels, selected, selected_anywhere
from lateen.api.istio.authorization_policy import AuthorizationPolicy
from lateen.api.istio.request_authentication import RequestAuthentication
from lateen.api.istio.selectors import PolicySelector
from lateen.api.objects import in_namespace
from lateen.api.problems import at
from lateen.engine import Q
from lateen.lib.findings import Level
from lateen.model.authorization import ext_authz
from lateen.model.mesh import root_namespace

DEFAULT_TIMEOUT_S = 5

_LABELS: Final = "correct the labels, or leave the selector out to mean every workload of the namespace"


@check("LTN0121", Level.WARNING, "An AuthorizationPolicy selects no workload", AuthorizationPolicy)
def selects_nothing(q: Q, subject: AuthorizationPolicy) -> Iterator[Said]:
    """No workload has all labels of the selector, so the policy protects nothing.

    Correct the labels, or leave the selector out to mean every workload of the namespace.
    """
    yield from _selects_nothing(q, subject.namespace, subject.spec.selector)


@check("LTN0122", Level.WARNING, "A RequestAuthentication selects no workload", RequestAuthentication)
def tokens_of_nobody(q: Q, subject: RequestAuthentication) -> Iterator[Said]:
    """No workload has all labels of the selector, so no token is verified by this policy.

    Correct the labels, or leave the selector out to mean every workload of the namespace.
    """
    yield from _selects_nothing(q, subject.namespace, subject.spec.selector)


def _selects_nothing(q: Q, namespace: str, selector: PolicySelector | None) -> Iterator[Said]:
    if selector is None or not selector.match_labels:
        return
    labels = key(selector.match_labels)
    if namespace == q(root_namespace):
        if not q(selected_anywhere, labels):
            yield Said("spec.selector", "no workload has these labels", _LABELS)
    elif not q(selected, namespace, labels):
        remedy = nearest_labels(q, namespace, dict(labels)) or _LABELS
        yield Said("spec.selector", "no workload has these labels", remedy)


@check("LTN0123", Level.WARNING, "Nobody declared the external authorizer", AuthorizationPolicy)
def unknown_provider(q: Q, subject: AuthorizationPolicy) -> Iterator[Said]:
    """A policy of action CUSTOM names a provider that `extensionProviders` of the mesh configuration does not have,
    or not as `envoyExtAuthzGrpc` or `envoyExtAuthzHttp`. What the policy's rules match is refused.

    Declare the provider, or correct the name.
    """
    name = _provider(subject)
    if name and q(ext_authz, name) is None:
        yield Said(
            "spec.provider.name",
            f"{name} is not an external authorizer of the mesh: requests are refused",
            "declare it in extensionProviders of the mesh configuration, or correct the name",
        )


@check("LTN0124", Level.INFO, "An external authorizer has no time limit of its own", AuthorizationPolicy)
def no_timeout(q: Q, subject: AuthorizationPolicy) -> Iterator[Said]:
    """The provider that the policy names says nothing of `timeout`. Istio would let a request wait for ten minutes;
    here it waits for 5 seconds, and is then refused (or let through with `failOpen`).

    Set `timeout` in `extensionProviders`.
    """
    found = q(ext_authz, _provider(subject)) if _provider(subject) else None
    said = (found.grpc or found.http) if found is not None else None
    if said is not None and said.timeout is None:
        yield Said("spec.provider.name", f"requests wait up to {DEFAULT_TIMEOUT_S} s for its answer", "set timeout")


@check("LTN0125", Level.INFO, "A policy lets nothing through", AuthorizationPolicy)
def shuts_everything(_: Q, subject: AuthorizationPolicy) -> Iterator[Said]:
    """A policy of action ALLOW without rules allows nothing: what no other ALLOW policy lets through is refused. That
    is the usual first policy of a namespace, and a surprise for who left the rules out by accident.

    Write `rules: [{}]` to allow everything.
    """
    if subject.spec.action in (None, "ALLOW") and not subject.spec.rules:
        yield Said("spec", "it has no rules, so it allows nothing", "write rules: [{}] to allow everything")


@check("LTN0126", Level.WARNING, "A rule asks for tokens that nobody verifies", AuthorizationPolicy)
def tokens_not_verified(q: Q, subject: AuthorizationPolicy) -> Iterator[Said]:
    """A rule asks for a request principal or a claim, and no RequestAuthentication in the policy's namespace or the
    root namespace verifies tokens. No request has a claim then: such a rule of ALLOW never matches, one of DENY
    refuses nobody.

    Write a RequestAuthentication for the issuer of the tokens.
    """
    namespaces = {subject.namespace, q(root_namespace)}
    if subject.namespace == q(root_namespace) or any(q(_verifies, each) for each in namespaces):
        return
    for index, rule in enumerate(subject.spec.rules):
        sources = [each.source for each in rule.from_ if each.source is not None]
        asks = any(each.request_principals for each in sources)
        if asks or any(each.key.startswith("request.auth.") and each.values for each in rule.when):
            remedy = "apply a RequestAuthentication for these workloads with the issuer of the tokens"
            yield Said(at("spec", "rules", index), "no RequestAuthentication verifies tokens here", remedy)


@check("LTN0127", Level.WARNING, "An issuer is there twice", RequestAuthentication)
def issuer_twice(q: Q, subject: RequestAuthentication) -> Iterator[Said]:
    """Two rules for the same workloads have the same issuer, in one policy or in two. A token counts when it fits one
    of them, so the stricter rule (other audiences, other keys) protects nothing.

    Keep one rule for each issuer.
    """
    counted = Counter(each.issuer for each in subject.spec.jwt_rules if each.issuer)
    beside = {
        rule.issuer: other.name
        for other in in_namespace(q, RequestAuthentication, subject.namespace)
        if other.name != subject.name and _same_workloads(other, subject)
        for rule in other.spec.jwt_rules
    }
    for index, each in enumerate(subject.spec.jwt_rules):
        path = at("spec", "jwtRules", index, "issuer")
        if each.issuer and counted[each.issuer] > 1:
            yield Said(path, f"{each.issuer} is the issuer of another rule too", "keep one rule for each issuer")
        elif each.issuer and each.issuer in beside:
            message = f"{each.issuer} is an issuer of {beside[each.issuer]} too, for the same workloads"
            yield Said(path, message, "keep one rule for each issuer")


def _same_workloads(one: RequestAuthentication, other: RequestAuthentication) -> bool:
    def means(policy: RequestAuthentication) -> object:
        return policy.spec.selector, policy.spec.target_ref, policy.spec.target_refs

    return means(one) == means(other)


def _provider(policy: AuthorizationPolicy) -> str:
    custom = policy.spec.action == "CUSTOM" and policy.spec.provider is not None
    return (policy.spec.provider.name or "") if custom and policy.spec.provider is not None else ""


def _verifies(q: Q, namespace: str) -> bool:
    return any(each.spec.jwt_rules for each in in_namespace(q, RequestAuthentication, namespace))


CHECKS = (
    selects_nothing,
    tokens_of_nobody,
    unknown_provider,
    no_timeout,
    shuts_everything,
    tokens_not_verified,
    issuer_twice,
)
