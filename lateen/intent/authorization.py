"""What the rules of an AuthorizationPolicy mean: conditions on the caller, and on what is called.

Fields of one source or operation must all hold, values of one field are alternatives, sources (and operations) of
a rule are alternatives, and conditions (`when`) hold besides. Envoy keeps callers and targets apart, so a rule has
two predicates, joined by "and".

For plain TCP a test of requests cannot be answered. A rule that allows (or audits) then means nothing at all; one
that denies (or asks an external authorizer) goes without the test and so means more. Both err on the safe side.

Trust domains are interchangeable with their aliases: a principal of one is a principal of all.

Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/ and .../conditions/
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from lateen.api.istio.authorization_policy import Condition, Operation, Rule, Source
from lateen.intent.predicate import (
    Address,
    All,
    Form,
    Header,
    Metadata,
    Not,
    Path,
    Pattern,
    Peer,
    Port,
    Predicate,
    ServerName,
    Side,
    conjunction,
    disjunction,
    expression,
    of_request,
    pattern,
)
from lateen.lib.ids import Ref

JWT_FILTER = "envoy.filters.http.jwt_authn"
JWT_PAYLOAD = "payload"
"""Where the verified token's claims are: the filter's metadata under this key."""

LOCAL_TRUST_DOMAIN = "cluster.local"
"""In policies it stands for the mesh's own trust domain, whatever that is called."""

_SPIFFE = "spiffe://"
_SEGMENT = "[^/]*"
_VARIABLES = re.compile(r"(\{\*\*?\})")


class Meaning(msgspec.Struct, frozen=True):
    """A rule as two predicates that must both hold."""

    caller: Predicate
    target: Predicate


class NamedRule(msgspec.Struct, frozen=True):
    """A rule with the name it has in Envoy."""

    name: str
    meaning: Meaning


def rule_name(policy: Ref, index: int) -> str:
    """The name of a rule in Envoy, as Istio writes it."""
    return f"ns[{policy.namespace}]-policy[{policy.name}]-rule[{index}]"


class Context(msgspec.Struct, frozen=True):
    """What a rule is read with: the policy's namespace, and the mesh's trust domains, its own first."""

    namespace: str
    trust_domains: tuple[str, ...] = (LOCAL_TRUST_DOMAIN,)


def rule_meaning(rule: Rule, context: Context, *, tcp: bool = False, restricts: bool = False) -> Meaning | None:
    """What a rule means; None when it can never match. `restricts`: matching it is to the caller's disadvantage
    (DENY, CUSTOM)."""
    conditions = [(each, *_condition(each, context)) for each in rule.when]
    callers = [[*_source(each.source, context)] if each.source is not None else [] for each in rule.from_] or [[]]
    targets = [[*_operation(each.operation)] if each.operation is not None else [] for each in rule.to] or [[]]
    for _, of_caller, predicates in conditions:
        for each in callers if of_caller else targets:
            each += predicates
    if tcp:
        if not restricts and any(of_request(each) for group in (*callers, *targets) for each in group):
            return None
        callers, targets = _of_connection(callers), _of_connection(targets)
    return Meaning(_alternatives(callers), _alternatives(targets))


def _of_connection(groups: Sequence[Sequence[Predicate]]) -> list[list[Predicate]]:
    return [[each for each in group if not of_request(each)] for group in groups]


def _alternatives(groups: Sequence[Sequence[Predicate]]) -> Predicate:
    if any(not group for group in groups):
        return All()
    return disjunction(conjunction(group) for group in groups)


def _source(source: Source, context: Context) -> Iterator[Predicate]:
    fields: tuple[tuple[Sequence[str], Sequence[str], Callable[[str], Predicate]], ...] = (
        (source.principals, source.not_principals, lambda said: _principal(said, context)),
        (source.request_principals, source.not_request_principals, request_principal),
        (source.namespaces, source.not_namespaces, _namespace),
        (source.service_accounts, source.not_service_accounts, lambda said: _service_account(said, context)),
        (source.trust_domains, source.not_trust_domains, lambda said: _trust_domain(said, context)),
        (source.ip_blocks, source.not_ip_blocks, lambda said: _address(Side.PEER, said)),
        (source.remote_ip_blocks, source.not_remote_ip_blocks, lambda said: _address(Side.CLIENT, said)),
    )
    for values, not_values, test in fields:
        yield from _values(values, not_values, test)


def _operation(operation: Operation) -> Iterator[Predicate]:
    fields: tuple[tuple[Sequence[str], Sequence[str], Callable[[str], Predicate]], ...] = (
        (operation.hosts, operation.not_hosts, lambda said: Header(":authority", pattern(said, ignore_case=True))),
        (operation.ports, operation.not_ports, lambda said: Port(int(said))),
        (operation.methods, operation.not_methods, lambda said: Header(":method", pattern(said))),
        (operation.paths, operation.not_paths, _path),
    )
    for values, not_values, test in fields:
        yield from _values(values, not_values, test)


def _values(values: Iterable[str], not_values: Iterable[str], test: Callable[[str], Predicate]) -> Iterator[Predicate]:
    wanted = [test(each) for each in values]
    unwanted = [test(each) for each in not_values]
    if wanted:
        yield disjunction(wanted)
    if unwanted:
        yield Not(disjunction(unwanted))


def _condition(condition: Condition, context: Context) -> tuple[bool, list[Predicate]]:
    """Whether it is about the caller (else about the target), and what must hold."""
    of_caller, test = _attribute(condition.key, context)
    return of_caller, list(_values(condition.values, condition.not_values, test))


def _attribute(key: str, context: Context) -> tuple[bool, Callable[[str], Predicate]]:
    found = _attributes(context).get(key)
    if found is not None:
        return found
    name, *steps = _steps(key)
    if name == "request.headers" and steps:
        return True, lambda said: Header(steps[0].lower(), pattern(said))
    if name == "request.auth.claims" and steps:
        return True, lambda said: claim(steps, pattern(said))
    if name.startswith("experimental.envoy.filters.") and steps:
        return False, lambda said: _of_filter(name.removeprefix("experimental."), tuple(steps), said)
    raise ValueError(f"{key!r} is not an attribute")  # the check of the object refuses it


def _attributes(context: Context) -> dict[str, tuple[bool, Callable[[str], Predicate]]]:
    return {
        "source.ip": (True, lambda said: _address(Side.PEER, said)),
        "remote.ip": (True, lambda said: _address(Side.CLIENT, said)),
        "source.namespace": (True, _namespace),
        "source.principal": (True, lambda said: _principal(said, context)),
        "source.serviceAccount": (True, lambda said: _service_account(said, context)),
        "source.trustDomain": (True, lambda said: _trust_domain(said, context)),
        "request.auth.principal": (True, request_principal),
        "request.auth.audiences": (True, lambda said: claim(["aud"], pattern(said))),
        "request.auth.presenter": (True, lambda said: claim(["azp"], pattern(said))),
        "destination.ip": (False, lambda said: _address(Side.DESTINATION, said)),
        "destination.port": (False, lambda said: Port(int(said))),
        "connection.sni": (False, lambda said: ServerName(pattern(said))),
    }


def _steps(key: str) -> list[str]:
    """`request.auth.claims[a][b]` as its name and its keys."""
    name, bracket, rest = key.partition("[")
    return [name, *rest.removesuffix("]").split("][")] if bracket else [name]


def _principal(said: str, context: Context) -> Predicate:
    return disjunction(Peer(pattern(each, _SPIFFE)) for each in _in_all_trust_domains(said, context))


def _in_all_trust_domains(said: str, context: Context) -> tuple[str, ...]:
    """A principal, and the same one of every other name of its trust domain."""
    domain, slash, rest = said.partition("/")
    known = dict.fromkeys((*context.trust_domains, LOCAL_TRUST_DOMAIN))
    if not slash or domain == "*" or not any(_like(domain, each) for each in known):
        return (said,)
    others = [f"{each}/{rest}" for each in context.trust_domains]
    return tuple(dict.fromkeys((said, *others) if domain.startswith("*") else others))


def _like(said: str, text: str) -> bool:
    return text.endswith(said[1:]) if said.startswith("*") else said == text


def _namespace(said: str) -> Predicate:
    return _peer(rf"[^/]*/ns/{expression(said, _SEGMENT)}/sa/[^/]*")


def _service_account(said: str, context: Context) -> Predicate:
    namespace, slash, name = said.rpartition("/")
    namespace = namespace if slash else context.namespace
    return _peer(rf"[^/]*/ns/{re.escape(namespace)}/sa/{re.escape(name)}")


def _trust_domain(said: str, context: Context) -> Predicate:
    known = (*context.trust_domains, LOCAL_TRUST_DOMAIN)
    names = [said]
    if not said.endswith("*") and any(_like(said, each) for each in known):
        names += [each for each in context.trust_domains if each != said]
        if said == LOCAL_TRUST_DOMAIN and said not in context.trust_domains:
            names.remove(said)
    return disjunction(_peer(rf"{expression(each, _SEGMENT)}/ns/[^/]*/sa/[^/]*") for each in names)


def _peer(rest: str) -> Peer:
    return Peer(Pattern(Form.REGEX, f"spiffe://{rest}"))


def _address(side: Side, said: str) -> Predicate:
    return Address(side, str(ipaddress.ip_network(said, strict=False)))


def _path(said: str) -> Predicate:
    """A template becomes an expression: Envoy's own matcher of templates takes a segment with an unusual character
    (`|`, `"`) for none, so a rule of DENY would let it pass."""
    if "{*}" in said or "{**}" in said:
        parts = {"{**}": ".*", "{*}": f"{_SEGMENT[:-1]}+"}
        return Path(Pattern(Form.REGEX, "".join(parts.get(each) or re.escape(each) for each in _VARIABLES.split(said))))
    return Path(pattern(said))


def claim(path: Sequence[str], value: Pattern) -> Predicate:
    """A claim of the verified token is that text, or a list with it."""
    return Metadata(JWT_FILTER, (JWT_PAYLOAD, *path), value)


def request_principal(said: str) -> Predicate:
    """Issuer and subject of the verified token, joined by a slash, compare like this.

    Both may have slashes themselves, so every place where they may have been joined counts.
    """

    def joined(issuer: Pattern, subject: Pattern) -> Predicate:
        return All((_text_claim("iss", issuer), _text_claim("sub", subject)))

    wanted = pattern(said)
    slashes = [index for index, character in enumerate(wanted.value) if character == "/"]
    anything = Pattern(Form.PRESENT)
    if wanted.form is Form.PRESENT:
        return joined(anything, anything)
    found: list[Predicate] = []
    for each in slashes:
        issuer, subject = wanted.value[:each], wanted.value[each + 1 :]
        first = _part(Form.SUFFIX if wanted.form is Form.SUFFIX else Form.EXACT, issuer)
        second = _part(Form.PREFIX if wanted.form is Form.PREFIX else Form.EXACT, subject)
        if first is not None and second is not None:
            found.append(joined(first, second))
    if wanted.form is Form.PREFIX:
        found.append(joined(wanted, anything))
    if wanted.form is Form.SUFFIX:
        found.append(joined(anything, wanted))
    return disjunction(found)


def _part(form: Form, value: str) -> Pattern | None:
    """One half of a joined text; None when it would have to be empty."""
    if value:
        return Pattern(form, value)
    return None if form is Form.EXACT else Pattern(Form.PRESENT)


def _text_claim(name: str, value: Pattern) -> Predicate:
    return Metadata(JWT_FILTER, (JWT_PAYLOAD, name), value, lists=False)


def _of_filter(name: str, path: tuple[str, ...], said: str) -> Predicate:
    """What an experimental attribute compares: `[x]` an item of a list, anything else a text."""
    request = name.startswith("envoy.filters.http.")
    if said.startswith("[") and said.endswith("]"):
        return Metadata(name, path, pattern(said[1:-1]), scalar=False, request=request)
    return Metadata(name, path, pattern(said), lists=False, request=request)
