"""Documents as parts: what each field of a policy means for one request, plainly.

Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/ and .../conditions/
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

from tests.oracle.semantics import ROOT, Json, Mesh, Part, Policy, Request, Rule


def read(documents: Sequence[Json], mesh: Mesh) -> list[Policy]:
    """Policies as parts."""
    return [_policy(each, mesh) for each in documents]


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
