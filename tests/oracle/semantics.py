"""Istio's written semantics of authorization, read plainly: what a set of policies says about one request.

It knows documents (as YAML has them) and requests, and shares no code with lateen. A policy is read into parts, once:
each field or condition of a rule with its values is one part, true or false for a request. A verdict is what the parts
come to; asking again with one part the other way round says whether that part decided.

Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/, .../conditions/ and
https://istio.io/latest/docs/ops/configuration/security/security-policy-examples/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Json = dict[str, Any]
ROOT = "istio-system"


@dataclass(frozen=True)
class Caller:
    """Who a certificate says is calling."""

    domain: str
    namespace: str
    account: str


@dataclass(frozen=True)
class Request:
    """A request, or with `tcp` a connection; `claims` are those of a token that was verified."""

    tcp: bool = False
    caller: Caller | None = None
    source: str = "10.88.1.1"
    sni: str = ""
    port: int = 9080
    host: str = "app"
    method: str = "GET"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    claims: Json | None = None

    def values(self, name: str) -> list[str]:
        """The values of a header: one for each time it is there."""
        return [value for own, value in self.headers if own.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The only value of a header."""
        return next(iter(self.values(name)), None)


@dataclass(frozen=True)
class Mesh:
    """What the mesh is set to. `authorizers` say of a request whether they allow it; those that only understand
    requests are in `of_requests`. A provider that is in neither was never declared."""

    domains: tuple[str, ...]
    normalization: str
    authorizers: Mapping[str, Callable[[Request], bool]]
    of_requests: frozenset[str]
    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(eq=False)
class Part:
    """One field of a rule: `holds` for a request. `of_request`: plain TCP cannot answer it."""

    field: str
    holds: Callable[[Request], bool]
    of_request: bool = False


@dataclass(eq=False)
class Rule:
    """Alternatives of parts: one of `callers` and one of `targets` must hold, and all of `conditions`."""

    callers: list[list[Part]]
    targets: list[list[Part]]
    conditions: list[Part]

    @property
    def parts(self) -> list[Part]:
        return [*(part for group in (*self.callers, *self.targets) for part in group), *self.conditions]


@dataclass(eq=False)
class Policy:
    """A policy; `attached` is the part that says whether it means this workload."""

    action: str
    provider: str
    trial: bool
    attached: Part
    rules: list[Rule]


@dataclass(frozen=True)
class Verdict:
    """`allowed` is the answer; whether a policy of AUDIT matched; what policies on trial would have done, by action
    (True: let it pass)."""

    allowed: bool
    audited: bool
    trials: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Cell:
    """What one part decided in one case: `outcome` is allowed or denied, for AUDIT matched or unmatched."""

    transport: str
    field: str
    action: str
    outcome: str


class Asked:
    """A request, and which parts hold for it: each is looked at once, when it is first asked about."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._held: dict[Part, bool] = {}

    def holds(self, part: Part) -> bool:
        """Whether a part is true for the request."""
        if part not in self._held:
            self._held[part] = part.holds(self.request)
        return self._held[part]


def verdict(policies: Sequence[Policy], mesh: Mesh, request: Request) -> Verdict:
    """What the policies say."""
    asked = Asked(request)
    return _verdict(policies, mesh, request, [_matches(each, asked) for each in policies])


def deciding(policies: Sequence[Policy], mesh: Mesh, request: Request) -> set[Cell]:
    """Every part that decided: the verdict is another one when that part alone is the other way round."""
    asked = Asked(request)
    matching = [_matches(each, asked) for each in policies]
    said = _verdict(policies, mesh, request, matching)
    transport = "tcp" if request.tcp else "http"
    found: set[Cell] = set()
    for index, policy in enumerate(policies):
        for part in (policy.attached, *(part for rule in policy.rules for part in rule.parts)):
            flipped = _matches(policy, asked, part)
            if flipped == matching[index]:
                continue
            other = _verdict(policies, mesh, request, [*matching[:index], flipped, *matching[index + 1 :]])
            if policy.trial:
                if other.trials != said.trials:
                    outcome = "passes" if dict(said.trials).get(policy.action, True) else "refuses"
                    found.add(Cell(transport, "any field", f"dry-run {policy.action}", outcome))
            elif policy.action == "AUDIT":
                if other.audited != said.audited:
                    found.add(Cell(transport, part.field, "AUDIT", "matched" if said.audited else "unmatched"))
            elif other.allowed != said.allowed:
                found.add(Cell(transport, part.field, policy.action, "allowed" if said.allowed else "denied"))
    return found


Match: TypeAlias = bool | None
"""Whether a policy matches; None when it does not mean the workload."""


def _verdict(policies: Sequence[Policy], mesh: Mesh, request: Request, matching: Sequence[Match]) -> Verdict:
    refused = audited = allowing = allowed = False
    tried: dict[str, bool] = {}
    for policy, match in zip(policies, matching, strict=True):
        if match is None:
            continue
        if policy.trial:
            tried[policy.action] = tried.get(policy.action, False) or match
        elif policy.action == "ALLOW":
            allowing, allowed = True, allowed or match
        elif match and policy.action == "AUDIT":
            audited = True
        elif match:
            refused = refused or policy.action == "DENY" or not _lets_pass(policy, mesh, request)
    trials = tuple((action, found == (action in ("ALLOW", "AUDIT"))) for action, found in sorted(tried.items()))
    return Verdict(not refused and (allowed or not allowing), audited, trials)


def _matches(policy: Policy, asked: Asked, flipped: Part | None = None) -> Match:
    if asked.holds(policy.attached) == (policy.attached is flipped):
        return None
    restricts = policy.action in ("DENY", "CUSTOM")
    return any(_holds(rule, restricts, asked, flipped) for rule in policy.rules)


def _holds(rule: Rule, restricts: bool, asked: Asked, flipped: Part | None) -> bool:
    """For plain TCP a rule that restricts goes without fields of requests; any other rule never matches with one."""
    tcp = asked.request.tcp

    def true(part: Part) -> bool:
        holds = restricts if tcp and part.of_request else asked.holds(part)
        return holds != (part is flipped)

    if tcp and not restricts and any(part.of_request and part is not flipped for part in rule.parts):
        return False
    return (
        all(map(true, rule.conditions))
        and any(all(map(true, group)) for group in rule.callers or [[]])
        and any(all(map(true, group)) for group in rule.targets or [[]])
    )


def _lets_pass(policy: Policy, mesh: Mesh, request: Request) -> bool:
    if request.tcp and policy.provider in mesh.of_requests:
        return True
    return policy.provider in mesh.authorizers and mesh.authorizers[policy.provider](request)
