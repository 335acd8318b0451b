"""Istio's written semantics of authorization, read plainly: what a set of policies says about one request.

It knows documents (as YAML has them) and requests, and shares no code with lateen. A policy is read into parts, once:
each field or condition of a rule with its values is one part, true or false for a request. A verdict is what the parts
come to; asking again with one part the other way round says whether that part decided.

Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/, .../conditions/ and
https://istio.io/latest/docs/ops/configuration/security/security-policy-examples/
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

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


def read(documents: Sequence[Json], mesh: Mesh) -> list[Policy]:
    """Policies as parts."""
    return [_policy(each, mesh) for each in documents]


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


# -- documents to parts -------------------------------------------------------------------------------------------


Test: TypeAlias = Callable[[str, Request], bool]
"""Whether one value of a field fits a request."""


def _policy(document: Json, mesh: Mesh) -> Policy:
    metadata, spec = document["metadata"], document["spec"]
    return Policy(
        spec.get("action", "ALLOW"),
        spec.get("provider", {}).get("name", ""),
        metadata.get("annotations", {}).get("istio.io/dry-run") == "true",
        _attached(metadata["namespace"], spec, mesh),
        [_rule(rule, metadata["namespace"], mesh) for rule in spec.get("rules", ())],
    )


def _attached(namespace: str, spec: Json, mesh: Mesh) -> Part:
    if "targetRefs" in spec:
        return Part("targetRefs", lambda _: False)  # they mean gateways
    wanted = spec.get("selector", {}).get("matchLabels", {})
    here = namespace in (mesh.namespace, ROOT)
    fits = all(mesh.labels.get(name) == value for name, value in wanted.items())
    where = {mesh.namespace: "own namespace", ROOT: "root namespace"}.get(namespace, "other namespace")
    return Part("selector" if here and wanted else where, lambda _: here and fits)


def _rule(rule: Json, namespace: str, mesh: Mesh) -> Rule:
    callers = [list(_source(each["source"], namespace, mesh)) for each in rule.get("from", ())]
    targets = [list(_operation(each["operation"], mesh)) for each in rule.get("to", ())]
    conditions = [part for each in rule.get("when", ()) for part in _condition(each, namespace, mesh)]
    return Rule(callers, targets, conditions)


def _one_of(values: Sequence[str], test: Test) -> Callable[[Request], bool]:
    return lambda request: any(test(each, request) for each in values)


def _none_of(values: Sequence[str], test: Test) -> Callable[[Request], bool]:
    return lambda request: not any(test(each, request) for each in values)


REQUEST_SOURCES = ("requestPrincipals",)
REQUEST_OPERATIONS = ("hosts", "methods", "paths")
SOURCES = (
    "principals",
    "requestPrincipals",
    "namespaces",
    "serviceAccounts",
    "trustDomains",
    "ipBlocks",
    "remoteIpBlocks",
)
OPERATIONS = ("hosts", "ports", "methods", "paths")


def negative(name: str) -> str:
    """`notHosts` for `hosts`."""
    return f"not{name[0].upper()}{name[1:]}"


def _source(source: Json, namespace: str, mesh: Mesh) -> Iterator[Part]:
    tests: dict[str, Test] = {
        "principals": lambda said, request: _principal(said, mesh, request),
        "requestPrincipals": _request_principal,
        "namespaces": _namespace,
        "serviceAccounts": lambda said, request: _service_account(said, namespace, request),
        "trustDomains": lambda said, request: _trust_domain(said, mesh, request),
        "ipBlocks": lambda said, request: _within(said, request.source),
        "remoteIpBlocks": lambda said, request: _within(said, _client(request)),
    }
    for name in SOURCES:
        yield from _both(f"source.{name}", name, source, tests[name], of_request=name in REQUEST_SOURCES)


def _operation(operation: Json, mesh: Mesh) -> Iterator[Part]:
    tests: dict[str, Test] = {
        "hosts": lambda said, request: like(said.lower(), request.host.lower()),
        "ports": lambda said, request: int(said) == request.port,
        "methods": lambda said, request: like(said, request.method),
        "paths": lambda said, request: _path(said, normalised(request.path.partition("?")[0], mesh.normalization)),
    }
    for name in OPERATIONS:
        yield from _both(f"operation.{name}", name, operation, tests[name], of_request=name in REQUEST_OPERATIONS)


def _both(label: str, name: str, said: Json, test: Test, *, of_request: bool) -> Iterator[Part]:
    if values := said.get(name):
        yield Part(label, _one_of(values, test), of_request)
    if values := said.get(negative(name)):
        yield Part(negative(label.partition(".")[2]), _none_of(values, test), of_request)


KEYS = (
    "source.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "remote.ip",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims",
    "request.auth.claims nested",
    "request.headers",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "experimental",
)
APPLICATION = "10.88.0.5"


def _condition(condition: Json, namespace: str, mesh: Mesh) -> Iterator[Part]:
    key = str(condition["key"])
    name, _, rest = key.partition("[")
    steps = rest.removesuffix("]").split("][") if rest else []
    tests: dict[str, Test] = {
        "source.ip": lambda said, request: _within(said, request.source),
        "source.namespace": _namespace,
        "source.principal": lambda said, request: _principal(said, mesh, request),
        "source.serviceAccount": lambda said, request: _service_account(said, namespace, request),
        "source.trustDomain": lambda said, request: _trust_domain(said, mesh, request),
        "remote.ip": lambda said, request: _within(said, _client(request)),
        "request.auth.principal": _request_principal,
        "request.auth.audiences": lambda said, request: _claim(said, request.claims, ["aud"]),
        "request.auth.presenter": lambda said, request: _claim(said, request.claims, ["azp"]),
        "request.auth.claims": lambda said, request: _claim(said, request.claims, steps),
        "request.headers": lambda said, request: any(like(said, each) for each in request.values(steps[0])),
        "destination.ip": lambda said, _: _within(said, APPLICATION),
        "destination.port": lambda said, request: int(said) == request.port,
        "connection.sni": lambda said, request: like(said, request.sni),
        # the tests' own filter leaves the header x-kind there
        "experimental.envoy.filters.http.header_to_metadata": lambda said, request: like(
            said, request.header("x-kind")
        ),
    }
    label = "experimental" if name.startswith("experimental") else name + (" nested" if len(steps) > 1 else "")
    of_request = name.startswith(("request.", "experimental.envoy.filters.http."))
    if values := condition.get("values"):
        yield Part(f"{label} values", _one_of(values, tests[name]), of_request)
    if values := condition.get("notValues"):
        yield Part(f"{label} notValues", _none_of(values, tests[name]), of_request)


# -- single comparisons --------------------------------------------------------------------------------------------


def like(said: str, text: str | None) -> bool:
    """Exact, prefix (`abc*`), suffix (`*abc`) or presence (`*`)."""
    if text is None:
        return False
    if said == "*":
        return text != ""
    if said.startswith("*"):
        return text.endswith(said[1:])
    return text.startswith(said[:-1]) if said.endswith("*") else said == text


def _within(said: str, address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(said, strict=False)


def _namespace(said: str, request: Request) -> bool:
    return request.caller is not None and like(said, request.caller.namespace)


def _client(request: Request) -> str:
    """The last address of x-forwarded-for, since a sidecar trusts its peer."""
    said = request.header("x-forwarded-for") if not request.tcp else None
    return said.rpartition(",")[2].strip() if said else request.source


def _principal(said: str, mesh: Mesh, request: Request) -> bool:
    """The mesh's trust domain, its aliases and `cluster.local` are one trust domain."""
    caller = request.caller
    if caller is None:
        return False
    rest = f"/ns/{caller.namespace}/sa/{caller.account}"
    if like(said, caller.domain + rest):
        return True
    domain, slash, _ = said.partition("/")
    names = (*mesh.domains, "cluster.local")
    if not slash or domain == "*" or caller.domain not in mesh.domains or not any(like(domain, each) for each in names):
        return False
    return like(said[len(domain) :], rest)


def _trust_domain(said: str, mesh: Mesh, request: Request) -> bool:
    caller = request.caller
    if caller is None:
        return False
    names = (*mesh.domains, "cluster.local")
    return like(said, caller.domain) or (caller.domain in mesh.domains and said in names)


def _service_account(said: str, namespace: str, request: Request) -> bool:
    wanted = said if "/" in said else f"{namespace}/{said}"
    return request.caller is not None and wanted == f"{request.caller.namespace}/{request.caller.account}"


def _request_principal(said: str, request: Request) -> bool:
    if request.claims is None:
        return False
    return like(said, f"{request.claims['iss']}/{request.claims['sub']}")


def _claim(said: str, claims: Json | None, steps: list[str]) -> bool:
    found: Any = claims
    for step in steps:
        found = cast("Json", found).get(step) if isinstance(found, dict) else None
    if steps == ["scope"] and isinstance(found, str):
        found = found.split(" ")
    texts = cast("list[Any]", found) if isinstance(found, list) else [found]
    return any(isinstance(each, str) and like(said, each) for each in texts)


def _path(said: str, path: str) -> bool:
    """As any text, or a template: `{*}` is one segment, `{**}` at the end whatever follows."""
    if "{" not in said:
        return like(said, path)
    pattern = re.escape(said).replace(r"\{\*\*\}", ".*").replace(r"\{\*\}", "[^/]+")
    return re.fullmatch(pattern, path) is not None


def normalised(path: str, how: str) -> str:
    """A path as it is compared, by `pathNormalization` of the mesh."""
    if how == "NONE":
        return path
    if how == "DECODE_AND_MERGE_SLASHES":
        path = re.sub("%2f", "/", path, flags=re.IGNORECASE)
        path = re.sub("%5c", r"\\", path, flags=re.IGNORECASE)
    path = path.replace("\\", "/")
    path = re.sub(r"%([0-9A-Fa-f]{2})", _unreserved, path)
    if how != "BASE":
        path = re.sub("//+", "/", path)
    kept: list[str] = []
    segments = path.split("/")[1:]
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
        if last and segment in (".", ".."):
            kept.append("")
    return "/" + "/".join(kept)


def _unreserved(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if re.fullmatch(r"[A-Za-z0-9\-._~]", character) else found[0]
