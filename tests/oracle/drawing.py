"""Random policies and random requests over small alphabets, so that they meet."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, TypeAlias

from tests.oracle.reading import KEYS, OPERATIONS, SOURCES, negative
from tests.oracle.semantics import Caller, Json, Request

DOMAINS: Final = ("mesh.example", "old.example")
CALLERS: Final = tuple(
    Caller(domain, *each)
    for domain in DOMAINS
    for each in (("a", "alice"), ("aa", "bob"), ("b", "alice"), ("default", "bob"))
)
ADDRESSES: Final = ("10.88.1.1", "10.88.1.9", "10.88.2.1", "127.0.0.1")
HTTP_PORTS: Final = (9080, 9081, 9083, 9084, 9085, 9086, 9087, 9088)
TCP_PORTS: Final = (9000, 9001, 9002, 9003, 9004, 9005)
PATHS: Final = (
    *("/", "/a", "/a/", "/a/b", "/a/b/c", "/a/x|y/c", "/b", "/x/b", "/a?q=/b", "/a;v=1", "/a/b;v=1/c"),
    *("//a", "/./a", "/x/../a", "/%61", "/%2e/a", "/x/%2E%2e/a", "/x%2f..%2fa", "/a%2fb", "/a%5cb", "/a//b", "/a/b/"),
)
ISSUER: Final = "https://one.test"
CLAIMS: Final[tuple[Json, ...]] = (
    {"iss": ISSUER, "sub": "alice", "aud": "web", "azp": "app", "team": "blue", "deep": {"level": "one"}},
    {"iss": ISSUER, "sub": "bob", "aud": ["web", "api"], "azp": "tool", "team": ["red", "blue"], "scope": "read write"},
    {"iss": ISSUER, "sub": "eve/x", "aud": "api", "team": "red", "deep": {"level": ["two", "one"]}, "scope": "read"},
)
_NETWORKS = ("10.88.1.0/24", "10.88.1.1", "10.88.0.0/15", "127.0.0.0/8", "10.88.2.1/32", "fd00::/8")
_CLIENT_NETWORKS = (*_NETWORKS, "10.99.0.0/16", "10.99.0.7")
_PRINCIPALS = (
    *("mesh.example/ns/a/sa/alice", "old.example/ns/b/sa/alice", "cluster.local/ns/aa/sa/bob", "*", "*/sa/bob"),
    *("mesh.example/ns/a*", "cluster.local/ns/b/*", "third.example/ns/a/sa/alice", "*.example/ns/default/sa/bob"),
)
_REQUEST_PRINCIPALS = (f"{ISSUER}/alice", f"{ISSUER}/*", "*/bob", "*", f"{ISSUER}/eve/x", "https://two.test/alice")
_NAMESPACES = ("a", "aa", "b", "a*", "*a", "*", "default")
_ACCOUNTS = ("a/alice", "aa/bob", "b/alice", "bob", "default/bob")
_TRUST_DOMAINS = ("mesh.example", "old.example", "cluster.local", "third.example", "*.example", "old*", "*")
_PORTS = tuple(map(str, (*HTTP_PORTS, *TCP_PORTS)))
VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "principals": _PRINCIPALS,
    "requestPrincipals": _REQUEST_PRINCIPALS,
    "namespaces": _NAMESPACES,
    "serviceAccounts": _ACCOUNTS,
    "trustDomains": _TRUST_DOMAINS,
    "ipBlocks": _NETWORKS,
    "remoteIpBlocks": _CLIENT_NETWORKS,
    "hosts": ("app", "App", "app.example", "*.Example", "app*", "app:*", "*"),
    "ports": _PORTS,
    "methods": ("GET", "POST", "P*", "*T", "*"),
    "paths": ("/a", "/a/", "/a*", "/a/*", "*/b", "/a/{*}/c", "/a/{**}", "*", "/b", "/{*}", "/x/../a", "/a/b;v=1/c"),
    "source.ip": _NETWORKS,
    "source.namespace": _NAMESPACES,
    "source.principal": _PRINCIPALS,
    "source.serviceAccount": _ACCOUNTS,
    "source.trustDomain": _TRUST_DOMAINS,
    "remote.ip": _CLIENT_NETWORKS,
    "request.auth.principal": _REQUEST_PRINCIPALS,
    "request.auth.audiences": ("web", "api", "w*", "*"),
    "request.auth.presenter": ("app", "tool", "*ool"),
    "request.auth.claims[team]": ("blue", "red", "b*", "*d", "*"),
    "request.auth.claims[scope]": ("read", "write", "read write"),
    "request.auth.claims[deep][level]": ("one", "two", "t*"),
    "request.headers[X-Role]": ("admin", "user", "ad*", "*r", "*"),
    "destination.ip": ("10.88.0.5", "10.88.0.0/16", "10.89.0.0/16", "127.0.0.1"),
    "destination.port": _PORTS,
    "connection.sni": ("app.example", "*.example", "other*", "*"),
    "experimental.envoy.filters.http.header_to_metadata[kind]": ("one", "t*", "*"),
}
_SPELLED: Mapping[str, tuple[str, ...]] = {
    "request.auth.claims": ("request.auth.claims[team]", "request.auth.claims[scope]"),
    "request.auth.claims nested": ("request.auth.claims[deep][level]",),
    "request.headers": ("request.headers[X-Role]",),
    "experimental": ("experimental.envoy.filters.http.header_to_metadata[kind]",),
}
Field: TypeAlias = tuple[str, str, bool]
"""Where a field stands (source, operation, when), its name, and whether it is the negative form."""
LABELS: Final[tuple[Field, ...]] = tuple(
    (where, name, is_not)
    for is_not in (False, True)
    for where, names in (("source", SOURCES), ("operation", OPERATIONS), ("when", KEYS))
    for name in names
)
ENFORCED: Final = ("ALLOW", "DENY", "CUSTOM")
ACTIONS: Final = (*ENFORCED, "AUDIT")
PROVIDERS: Final = ("first", "second", "over-grpc", "nobody")
NORMALIZATIONS: Final = ("BASE", "BASE", "NONE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES")


@dataclass(frozen=True)
class Drawn:
    """A policy; with a port it is about connections to that port alone, so elsewhere it matches nothing."""

    document: Json
    port: int = 0

    def at(self, port: int) -> Json:
        """The policy as it is for requests to a port: without rules where none of them can match."""
        if self.port in (0, port):
            return self.document
        return {**self.document, "spec": {**self.document["spec"], "rules": []}}


def policies(by: Random, turn: int) -> list[Drawn]:
    """Policies, most of them in force for the workload under test.

    Every fourth turn a handful about anything. In other turns each port has a policy about one field with one action
    (turns go through all of them), one of AUDIT, and one that lets everything else pass: much is asked in one
    configuration that does not get in each other's way.
    """
    if turn % 4 == 3:
        return _handful(by)
    found: list[Drawn] = []
    for ports in (HTTP_PORTS, TCP_PORTS):
        for index, port in enumerate(ports):
            round_, place = divmod((turn - turn // 4) * len(ports) + index, len(LABELS))
            watched = LABELS[(place * 7 + round_) % len(LABELS)]
            found += _at_port(by, port, LABELS[place], ENFORCED[(round_ + place) % 3], watched)
    return _named(found)


def policies_about(by: Random, missing: Sequence[tuple[str, str]]) -> list[Drawn]:
    """Policies about fields, as cells name them, with an action each: what nothing has decided so far."""
    fields = {_label(each)[0]: each for each in LABELS}
    wanted = [(fields[label], action) for label, action in missing if label in fields]
    places = [each for each in missing if each[0] in _PLACES]
    if places and (not wanted or by.random() < 0.3):  # where a policy stands decides most with few others
        place, action = by.choice(sorted(places))
        beside = [Drawn(_policy(by, action, by.choice(LABELS))) for _ in range(by.randint(0, 1))]
        return _named([Drawn(_policy(by, action, by.choice(LABELS), place=place)), *beside])
    watched = itertools.cycle([field for field, action in wanted if action == "AUDIT"] or LABELS)
    others = [each for each in wanted if each[1] in ENFORCED] or [(by.choice(LABELS), by.choice(ENFORCED))]
    by.shuffle(others)
    cards = itertools.cycle(others)
    return _named(
        [each for port in (*HTTP_PORTS, *TCP_PORTS) for each in _at_port(by, port, *next(cards), next(watched))]
    )


def _handful(by: Random) -> list[Drawn]:
    return _named([Drawn(_policy(by, by.choice(ACTIONS), by.choice(LABELS))) for _ in range(by.randint(1, 5))])


def _named(found: list[Drawn]) -> list[Drawn]:
    for index, each in enumerate(found):
        each.document["metadata"]["name"] = f"p{index}"
    return found


def _at_port(by: Random, port: int, about: Field, action: str, watched: Field) -> list[Drawn]:
    found = [_policy(by, action, about, port), _policy(by, "AUDIT", watched, port)]
    if action != "ALLOW":
        rule: Json = {"to": [{"operation": {"ports": [str(port)]}}]}
        found.append(_document({"namespace": "default"}, {"action": "ALLOW", "rules": [rule]}))
    return [Drawn(each, port) for each in found]


def _policy(by: Random, action: str, about: Field, port: int = 0, place: str = "") -> Json:
    """With a port the policy is about connections to it only; `place` is where it stands, by chance unless said."""
    anywhere = by.choice(("default",) * 9 + ("istio-system",) * 2 + ("elsewhere",))
    said = {"own namespace": "default", "root namespace": "istio-system", "other namespace": "elsewhere"}
    metadata: Json = {"namespace": said.get(place, anywhere)}
    if by.random() < 0.06:
        metadata["annotations"] = {"istio.io/dry-run": "true"}
    spec: Json = {"action": action}
    if action == "CUSTOM":
        spec["provider"] = {"name": by.choice(PROVIDERS)}
    placed = 1.0 if place in said else by.random()
    if placed < 0.25:
        spec["selector"] = {"matchLabels": {"app": by.choice(("app", "app", "app", "other"))}}
    elif placed < 0.3:
        target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
        spec["targetRefs"] = [target]
    if by.random() < 0.98:
        more = 1 if by.random() < 0.3 else 0
        rules = [_rule(by, about), *(_rule(by, by.choice(LABELS)) for _ in range(more))]
        if port:
            if about[1] in ("ports", "destination.port"):
                rules = [_near(rules[0], str(port), by), *rules[1:]]
            for each in rules:
                each.setdefault("when", []).append({"key": "destination.port", "values": [str(port)]})
        spec["rules"] = rules
    return _document(metadata, spec)


def _document(metadata: Json, spec: Json) -> Json:
    return {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec}


def _near(rule: Json, port: str, by: Random) -> Json:
    """The rule with the port itself in place of the first of the ports it names, half of the time."""
    if by.random() < 0.5:
        return rule
    places = [each["operation"] for each in rule.get("to", ())] + rule.get("when", [])
    for place in places:
        if place.get("key", "destination.port") == "destination.port":
            for name in ("ports", "notPorts", "values", "notValues"):
                if name in place:
                    place[name] = [port, *place[name][1:]]
    return rule


def _rule(by: Random, about: Field) -> Json:
    rule: Json = {}
    chosen = [about, *(by.choice(LABELS) for _ in range(by.choice((0, 0, 0, 1, 2))))]
    for kind, key in (("source", "from"), ("operation", "to")):
        own = [each for each in chosen if each[0] == kind]
        if own:
            alternatives = [_fields(by, own)]
            if by.random() < 0.2:
                alternatives.append(_fields(by, [by.choice([each for each in LABELS if each[0] == kind])]))
            rule[key] = [{kind: each} for each in alternatives]
    conditions = [_condition(by, each) for each in chosen if each[0] == "when"]
    return rule | ({"when": conditions} if conditions else {})


def _fields(by: Random, fields: Sequence[Field]) -> Json:
    made: Json = {}
    for _, name, is_not in fields:
        beside = {"principals", "notPrincipals", "namespaces", "notNamespaces", "serviceAccounts", "notServiceAccounts"}
        if made.keys() & beside and name in ("serviceAccounts", "principals", "namespaces"):
            continue  # some of them exclude each other
        both = by.random() < 0.15
        made |= {name: _values(by, name)} if both or not is_not else {}
        made |= {negative(name): _values(by, name)} if both or is_not else {}
    return made


def _condition(by: Random, field: Field) -> Json:
    _, name, is_not = field
    key = by.choice(_SPELLED.get(name, (name,)))
    both = by.random() < 0.15
    made: Json = {"key": key}
    made |= {"values": _values(by, key)} if both or not is_not else {}
    return made | ({"notValues": _values(by, key)} if both or is_not else {})


def _values(by: Random, name: str) -> list[str]:
    return by.sample(VALUES[name], by.choice((1, 1, 2)))


def requests(by: Random, per_port: int) -> list[Request]:
    """Requests and connections of all sorts, so many to each port; those of one caller share a connection."""
    found: list[Request] = []
    for port in HTTP_PORTS:
        callers = [_who(by) for _ in range(max(6, per_port // 4))]
        found += [_request(by, port, by.choice(callers)) for _ in range(per_port)]
    return [*found, *(Request(tcp=True, port=port, **_who(by)) for port in TCP_PORTS for _ in range(per_port))]


def _who(by: Random) -> Json:
    caller = by.choice((*CALLERS, None, None))
    sni = by.choice(("", "app.example", "other.test")) if caller is not None else ""
    return {"caller": caller, "source": by.choice(ADDRESSES), "sni": sni}


def _request(by: Random, port: int, who: Json) -> Request:
    headers: list[tuple[str, str]] = []
    if by.random() < 0.5:
        headers.append(("x-role", by.choice(("admin", "user"))))
        if by.random() < 0.1:
            headers.append(("X-ROLE", "user"))
    if by.random() < 0.3:
        headers.append(("x-forwarded-for", by.choice(("10.99.0.7", "10.99.0.7, 10.88.1.1", "10.88.1.1,10.99.1.1"))))
    if by.random() < 0.3:
        headers.append(("x-kind", by.choice(("one", "two"))))
    headers += [(f"x-{each}", "allow") for each in ("first", "second", "ext-authz") if by.random() < 0.5]
    more: dict[str, Any] = {
        "port": port,
        "host": by.choice(("app", "APP", "app.example", "app:80", "shop.example")),
        "method": by.choice(("GET", "POST", "PUT")),
        "path": by.choice(PATHS),
        "claims": by.choice((None, None, *CLAIMS)),
    }
    return Request(headers=tuple(headers), **who, **more)


def expected_cells() -> set[tuple[str, str, str, str]]:
    """Everything that must have decided: (transport, field, action, outcome)."""
    answers = ("allowed", "denied")
    labels = dict(map(_label, LABELS))
    found = {
        ("http", label, action, outcome)
        for label in labels
        for action in ("ALLOW", "DENY", "CUSTOM")
        for outcome in answers
    }
    found |= {("http", label, "AUDIT", outcome) for label in labels for outcome in ("matched", "unmatched")}
    of_connections = [label for label, of_request in labels.items() if not of_request]
    found |= set(itertools.product(("tcp",), of_connections, ("ALLOW", "DENY", "CUSTOM"), answers))
    of_requests = [label for label, of_request in labels.items() if of_request]
    found |= set(itertools.product(("tcp",), of_requests, ("ALLOW", "DENY", "CUSTOM"), ("denied",)))
    trials = [f"dry-run {action}" for action in ("ALLOW", "DENY", "CUSTOM")]
    found |= set(itertools.product(("http",), ("any field",), trials, ("passes", "refuses")))
    found |= set(itertools.product(("http", "tcp"), _PLACES, ("ALLOW",), answers))
    for place, outcomes in _PLACES.items():
        found |= set(itertools.product(("http", "tcp"), (place,), ("DENY", "CUSTOM"), outcomes))
    return found


_PLACES = {
    "own namespace": ("denied",),
    "root namespace": ("denied",),
    "other namespace": ("allowed",),
    "targetRefs": ("allowed",),
    "selector": ("allowed", "denied"),
}
"""Where policies stand, and what one that restricts can decide by standing there."""


def _label(field: Field) -> tuple[str, bool]:
    """A field as cells name it, and whether it is about requests."""
    where, name, is_not = field
    if where == "when":
        return f"{name} {'notValues' if is_not else 'values'}", name.startswith(("request.", "experimental"))
    label = negative(name) if is_not else f"{where}.{name}"
    return label, name in ("requestPrincipals", "hosts", "methods", "paths")
