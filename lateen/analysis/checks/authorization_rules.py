"""Checks of the rules of AuthorizationPolicies: what can never match, or means something else on TCP ports."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Iterator

import msgspec

from lateen.analysis.check import Said, check
from lateen.analysis.lookup import key, selected, selected_anywhere
from lateen.api.istio.authorization_policy import AuthorizationPolicy, Condition, Operation, Rule, Source
from lateen.api.problems import at
from lateen.engine import Q
from lateen.intent.authorization import LOCAL_TRUST_DOMAIN
from lateen.intent.inbound import inbound_ports
from lateen.intent.scope import ProxyKind, Scope
from lateen.lib.findings import Level
from lateen.lib.suggest import did_you_mean
from lateen.model.mesh import mesh_config, path_normalization, root_namespace, trust_domains
from lateen.model.policy_attachment import GATEWAY_NAME_LABEL

_ADDRESS_KEYS = ("source.ip", "remote.ip", "destination.ip")
_OF_REQUESTS = ("request.", "experimental.envoy.filters.http.")


@check("LTN0310", Level.WARNING, "A rule can never match", AuthorizationPolicy)
def never_matches(q: Q, subject: AuthorizationPolicy) -> Iterator[Said]:
    """No request can be what a rule asks for: every value is excluded again by its negative form, two conditions
    contradict each other, or a value is spelled as no request ever is. Such a rule of ALLOW lets nobody through, one
    of DENY refuses nobody.

        to: [{operation: {paths: ["admin"]}}]                                  # paths begin with a slash
        from: [{source: {principals: ["spiffe://cluster.local/ns/a/sa/b"]}}]   # without spiffe://

    Write the value that the finding names.
    """
    how = q(path_normalization)
    for path, rule in _rules(subject):
        for place, said in _fields(rule):
            yield from _contradictions(f"{path}.{place}", said)
            yield from _misspelt(f"{path}.{place}", said, how)
        yield from _contradicting(path, rule)


@check("LTN0311", Level.WARNING, "A rule names an unknown trust domain", AuthorizationPolicy)
def unknown_trust_domain(q: Q, subject: AuthorizationPolicy) -> Iterator[Said]:
    """A principal or trust domain is neither the mesh's own, nor one of its aliases, nor one whose certificates the
    mesh trusts. No caller ever has it.

    Write `cluster.local`, which always means the mesh's own, or declare the other one in the mesh configuration
    (`trustDomainAliases`, `caCertificates`).
    """
    others = (domain for each in q(mesh_config).ca_certificates for domain in each.trust_domains)
    known = (*q(trust_domains), LOCAL_TRUST_DOMAIN, *others)
    for path, rule in _rules(subject):
        for place, name, values in _named_domains(rule):
            for index, each in enumerate(values):
                domain, slash, _ = each.partition("/") if name == "principals" else (each, "/", "")
                if slash and "*" not in domain and domain not in known and not domain.endswith(":"):
                    remedy = did_you_mean(domain, known)
                    yield Said(f"{path}.{place}[{index}]", f"nobody is of trust domain {domain}", remedy)


@check("LTN0312", Level.WARNING, "A rule about requests is for TCP ports too", AuthorizationPolicy)
def requests_on_tcp(q: Q, subject: AuthorizationPolicy) -> Iterator[Said]:
    """A rule asks for something of requests (paths, methods, hosts, headers, tokens), and a workload that the policy
    selects has a port that carries plain TCP. There a rule of ALLOW never matches, so connections are refused, and a
    rule of DENY or CUSTOM goes without what it cannot know, so it means more connections.

        rules: [{to: [{operation: {methods: [GET], ports: ["8080"]}}]}]

    Name the HTTP ports in the rule, and write another rule for the TCP ports.
    """
    rules = [(path, rule, names) for path, rule in _rules(subject) if (names := _of_requests(rule))]
    if not rules or subject.spec.action == "AUDIT" or subject.spec.target_ref or subject.spec.target_refs:
        return
    tcp = q(_tcp_ports, subject.namespace, key(subject.spec.selector.match_labels if subject.spec.selector else {}))
    restricts = subject.spec.action in ("DENY", "CUSTOM")
    for path, rule, names in rules:
        limits = _ports(rule)
        ports = [each for each in tcp if limits is None or each in limits]
        if not ports:
            continue
        shown = ", ".join(map(str, ports[:5]))
        what = (
            f"goes without {names[0]} and means every connection that fits otherwise" if restricts else "never matches"
        )
        yield Said(
            path, f"on TCP port {shown} it {what}", f'name the HTTP ports in it: ports: ["..."], without {shown}'
        )


@check("LTN0313", Level.WARNING, "A policy's target is not there", AuthorizationPolicy)
def no_such_target(q: Q, subject: AuthorizationPolicy) -> Iterator[Said]:
    """`targetRefs` names a Gateway (gateway.networking.k8s.io), and no workload of the namespace has its label
    `gateway.networking.k8s.io/gateway-name`. The policy protects nothing.

    Correct the name, or use a selector.
    """
    single = subject.spec.target_ref
    named = [("spec.targetRef.name", single)] if single is not None else []
    named += [(at("spec", "targetRefs", index, "name"), each) for index, each in enumerate(subject.spec.target_refs)]
    for path, target in named:
        if target.kind == "Gateway" and not q(selected, subject.namespace, ((GATEWAY_NAME_LABEL, target.name),)):
            message = f"no workload of {subject.namespace} stands for the Gateway {target.name}"
            yield Said(path, message, "correct the name, or put the policy into the namespace of the Gateway")


@check("LTN0314", Level.INFO, "A denial means one spelling of a path", AuthorizationPolicy)
def one_spelling(_: Q, subject: AuthorizationPolicy) -> Iterator[Said]:
    """A rule denies a path, and the same path with a slash or a parameter after it (`/admin/`, `/admin;v=1`) is another
    one. Many applications take them for the same.

        paths: ["/admin", "/admin/*", "/admin;*"]

    Name them too, or say what is allowed instead of what is not.
    """
    restricts = subject.spec.action in ("DENY", "CUSTOM")
    for path, rule in _rules(subject):
        for place, field in _fields(rule):
            values = (field.values if restricts else field.not_values) if field.name == "paths" else ()
            name = "paths" if restricts else "notPaths"
            for index, each in enumerate(values):
                others = (f"{each.rstrip('/')}/", f"{each};v=1")
                plain = each.startswith("/") and each != "/" and "*" not in each
                if plain and not all(any(_covers(wide, other) for wide in values) for other in others):
                    remedy = f'write "{each}", "{each}/*" and "{each};*"'
                    yield Said(f"{path}.{place}.{name}[{index}]", f"{each}/ and {each};v=1 are other paths", remedy)


# -- parts of rules ------------------------------------------------------------------------------------------------


class Field(msgspec.Struct, frozen=True):
    """Values of one field or condition, and those it must not have."""

    name: str
    values: tuple[str, ...]
    not_name: str
    not_values: tuple[str, ...]


_SOURCE: tuple[tuple[str, Callable[[Source], tuple[tuple[str, ...], tuple[str, ...]]]], ...] = (
    ("principals", lambda said: (said.principals, said.not_principals)),
    ("requestPrincipals", lambda said: (said.request_principals, said.not_request_principals)),
    ("namespaces", lambda said: (said.namespaces, said.not_namespaces)),
    ("serviceAccounts", lambda said: (said.service_accounts, said.not_service_accounts)),
    ("trustDomains", lambda said: (said.trust_domains, said.not_trust_domains)),
    ("ipBlocks", lambda said: (said.ip_blocks, said.not_ip_blocks)),
    ("remoteIpBlocks", lambda said: (said.remote_ip_blocks, said.not_remote_ip_blocks)),
)
_OPERATION: tuple[tuple[str, Callable[[Operation], tuple[tuple[str, ...], tuple[str, ...]]]], ...] = (
    ("hosts", lambda said: (said.hosts, said.not_hosts)),
    ("ports", lambda said: (said.ports, said.not_ports)),
    ("methods", lambda said: (said.methods, said.not_methods)),
    ("paths", lambda said: (said.paths, said.not_paths)),
)


def _rules(subject: AuthorizationPolicy) -> Iterator[tuple[str, Rule]]:
    return ((at("spec", "rules", index), rule) for index, rule in enumerate(subject.spec.rules))


def _fields(rule: Rule) -> Iterator[tuple[str, Field]]:
    """Each field with the place of what it stands in."""
    for index, each in enumerate(rule.from_):
        if each.source is not None:
            for name, values in _SOURCE:
                yield (
                    at("from", index, "source"),
                    Field(name, values(each.source)[0], _not(name), values(each.source)[1]),
                )
    for index, each in enumerate(rule.to):
        if each.operation is not None:
            for name, values in _OPERATION:
                found = values(each.operation)
                yield at("to", index, "operation"), Field(name, found[0], _not(name), found[1])
    for index, each in enumerate(rule.when):
        yield at("when", index), Field("values", each.values, "notValues", each.not_values)


def _not(name: str) -> str:
    return f"not{name[0].upper()}{name[1:]}"


def _named_domains(rule: Rule) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Fields with trust domains: place, what their values are, values."""
    for place, field in _fields(rule):
        if field.name in ("principals", "trustDomains"):
            yield f"{place}.{field.name}", field.name, field.values
    for index, each in enumerate(rule.when):
        kind = {"source.principal": "principals", "source.trustDomain": "trustDomains"}.get(each.key)
        if kind is not None:
            yield at("when", index, "values"), kind, each.values


def _of_requests(rule: Rule) -> list[str]:
    """The names of what a rule asks of requests."""
    names = [
        field.name if field.values else field.not_name
        for _, field in _fields(rule)
        if field.name in ("requestPrincipals", "hosts", "methods", "paths") and (field.values or field.not_values)
    ]
    return [*names, *(each.key for each in rule.when if each.key.startswith(_OF_REQUESTS))]


def _ports(rule: Rule) -> set[int] | None:
    """The ports that a rule is limited to; None for any."""
    limits = [
        {int(port) for port in each.values} for each in rule.when if each.key == "destination.port" and each.values
    ]
    operations = [each.operation for each in rule.to if each.operation is not None]
    if operations and all(each.ports for each in operations):
        limits.append({int(port) for each in operations for port in each.ports})
    return functools.reduce(lambda one, other: one & other, limits) if limits else None


def _tcp_ports(q: Q, namespace: str, selector: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
    """The TCP ports of the workloads that a policy of a namespace selects."""
    everywhere = namespace == q(root_namespace)
    groups = q(selected_anywhere, selector) if everywhere else q(selected, namespace, selector)
    found = {
        port.port
        for each in groups
        for port in q(
            inbound_ports, Scope(ProxyKind.SIDECAR, each.namespace, each.labels, ports=tuple(sorted(each.ports)))
        )
        if port.protocol.is_tcp
    }
    return tuple(sorted(found))


# -- what cannot be -------------------------------------------------------------------------------------------------


def _contradictions(path: str, field: Field) -> Iterator[Said]:
    if field.values and all(any(_covers(no, yes) for no in field.not_values) for yes in field.values):
        yield Said(
            f"{path}.{field.name}", f"{field.not_name} excludes all of them", f"take some of {field.not_name} away"
        )


def _contradicting(path: str, rule: Rule) -> Iterator[Said]:
    """Conditions on one attribute without a value that fits both."""
    for index, each in enumerate(rule.when):
        for before in rule.when[:index]:
            if each.key == before.key and each.values and before.values and not _compatible(each, before):
                yield Said(f"{path}.{at('when', index)}", f"another condition wants other values of {each.key}")
    if rule.to and _ports(rule) == set():
        yield Said(path, "its conditions and operations name different ports")


def _compatible(one: Condition, other: Condition) -> bool:
    many = one.key.startswith(("request.auth.", "request.headers"))  # lists, or a header that is there twice
    return many or any(_covers(a, b) or _covers(b, a) or "*" in a + b for a in one.values for b in other.values)


def _covers(wide: str, narrow: str) -> bool:
    """Whether everything that fits `narrow` fits `wide`; False when in doubt."""
    if wide in (narrow, "*"):
        return True
    if "/" in wide and wide.rpartition("/")[2].isdecimal():
        return _within(wide, narrow)
    if wide.endswith("*"):
        return not narrow.startswith("*") and narrow.removesuffix("*").startswith(wide[:-1])
    return wide.startswith("*") and not narrow.endswith("*") and narrow.removeprefix("*").endswith(wide[1:])


def _within(wide: str, narrow: str) -> bool:
    try:
        networks = ipaddress.ip_network(wide, strict=False), ipaddress.ip_network(narrow, strict=False)
    except ValueError:
        return False
    outer, inner = networks
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _misspelt(path: str, field: Field, normalization: str) -> Iterator[Said]:
    spelled = {"paths": _path, "methods": _method, "hosts": _host, "principals": _principal}.get(field.name)
    if spelled is None:
        return
    for name, values in ((field.name, field.values), (field.not_name, field.not_values)):
        for index, each in enumerate(values):
            if (wrong := spelled(each, normalization)) is not None:
                yield Said(f"{path}.{name}[{index}]", *wrong)


def _path(said: str, normalization: str) -> tuple[str, str] | None:
    if not said.startswith(("/", "*")):
        return f'no path is like "{said[:80]}": paths begin with a slash', f'write "/{said[:80]}"'
    if "?" in said:
        return "paths are compared without the query, so none has a question mark", f'write "{said.partition("?")[0]}"'
    segments = said.split("/")
    if normalization != "NONE" and ("\\" in said or "." in segments or ".." in segments):
        return "no path is like this once it is normalised", "write it without backslashes, . and .. segments"
    if normalization not in ("NONE", "BASE") and "//" in said:
        return "no path is like this once its slashes are merged", "write single slashes"
    return None


def _method(said: str, _: str) -> tuple[str, str] | None:
    if said != said.upper():
        return f"methods are in upper case, so none is {said[:40]}", f'write "{said.upper()[:40]}"'
    return None


def _host(said: str, _: str) -> tuple[str, str] | None:
    if "/" in said:
        host = said.partition("://")[2].partition("/")[0] or said.partition("/")[0]
        return f'no host is like "{said[:80]}": hosts have no scheme and no path', f'write "{host[:80]}"'
    return None


def _principal(said: str, _: str) -> tuple[str, str] | None:
    if said.startswith("spiffe://"):
        return "principals are written without spiffe://", f'write "{said.removeprefix("spiffe://")[:120]}"'
    if "*" not in said and said.split("/")[1::2] != ["ns", "sa"]:
        return f'no principal is like "{said[:80]}"', 'write "cluster.local/ns/NAMESPACE/sa/ACCOUNT"'
    return None


CHECKS = (never_matches, unknown_trust_domain, requests_on_tcp, no_such_target, one_spelling)
