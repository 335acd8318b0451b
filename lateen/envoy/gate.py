"""The gate of TCP connections: who is refused gets not a byte of the application, who is allowed does not wait.

Envoy's network RBAC filter looks at a connection when the client's first byte arrives. An application that speaks
first has said something by then. So where rules depend on nothing but the connection itself (certificate, addresses,
port, server name) they are also written as one CEL expression that is evaluated once, right after the handshake. Its
answer decides where the TCP proxy dials: the application, or an address that no machine has. The proxy dials after
the handshake only, so a refused peer never causes a connection to the application at all.

It fails closed: the unreachable address is set first, and only the expression's "yes" replaces it. What it cannot
say (networks of IPv6, marks of other filters, external authorizers) makes the proxy wait for the client's first byte
instead, after which the RBAC filter has decided: nothing leaks there either, but a server that speaks first is
heard only after the client has spoken. `docs/decisions/0010-security-policies.md` has the experiment.

Source: https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import msgspec

from lateen.intent.authorization import NamedRule
from lateen.intent.predicate import (
    Address,
    All,
    Form,
    Not,
    Pattern,
    Peer,
    Port,
    Predicate,
    ServerName,
    Side,
    Some,
    conjunction,
)
from lateen.intent.security import ALLOW, DENY, Security

NOWHERE: Final = "255.255.255.255:1"
"""Nothing can be dialled there: the kernel refuses at once."""

_PEER_NAME = "connection.uri_san_peer_certificate"
_SERVER_NAME = "connection.requested_server_name"
_ADDRESSES = {
    Side.PEER: "source.address",
    Side.ANNOUNCED: "source.address",
    Side.CLIENT: "source.address",
    Side.DESTINATION: "destination.address",
}

Formula: TypeAlias = bool | str | None
"""What a predicate comes to: known beforehand, a CEL expression, or (None) nothing that CEL can say."""


class Gate(msgspec.Struct, frozen=True):
    """How connections wait for their permission. `expression`: it is true for those that are allowed; `reason`: one
    that is the name of the rule that refuses, `none` when no rule allows, and empty for those that are allowed. Both
    are empty with `waits`: the client's first byte is waited for."""

    expression: str = ""
    reason: str = ""
    waits: bool = False


def tcp_gate(security: Security, *, tls: bool, settable: bool = True) -> Gate | None:
    """The gate that some policies need; None when nothing can be refused. `tls`: the peer shows a certificate.
    `settable`: the cluster behind takes the address that the gate sets."""
    asks = any(each.settings is not None and each.settings.grpc is not None for each in security.authorizers)
    verdict = None if asks else _formula(_allowed(security), tls)
    if verdict is True:
        return None
    if verdict is None or not settable:
        return Gate(waits=True)
    expression = "false" if verdict is False else verdict
    return Gate(expression=expression, reason=_reason(security, expression, tls))


def destination(gate: Gate) -> str:
    """The format string of the filter state that the TCP proxy dials by: where the client wanted to go, if it may."""
    return f"%CEL({gate.expression} ? destination.address : '')%"


def reason(gate: Gate) -> str:
    """The format string of the filter state that says why a connection is refused."""
    return f"%CEL({gate.reason})%"


def _reason(security: Security, expression: str, tls: bool) -> str:
    rules = [(each.name, _formula(_whole(each), tls)) for each in security.rules(security.of(DENY), tcp=True)]
    refusing = ((name, "true" if formula is True else formula) for name, formula in rules if formula)
    named = "".join(f"{formula} ? {quoted(name)} : " for name, formula in refusing)
    return f"{named}'none'" if expression == "false" else f"({expression}) ? '' : {named}'none'"


def _allowed(security: Security) -> Predicate:
    denied = [_whole(each) for each in security.rules(security.of(DENY), tcp=True)]
    conditions: list[Predicate] = [Not(Some(tuple(denied)))]
    if allowing := security.of(ALLOW):
        conditions.append(Some(tuple(_whole(each) for each in security.rules(allowing, tcp=True))))
    unknown = [each for each in security.authorizers if each.settings is None]
    for each in unknown:
        refused = tuple(_whole(rule) for rule in security.rules(each.policies, tcp=True))
        conditions.append(Not(Some(refused)))
    return conjunction(conditions)


def _whole(rule: NamedRule) -> Predicate:
    return All((rule.meaning.caller, rule.meaning.target))


def _formula(predicate: Predicate, tls: bool) -> Formula:
    match predicate:
        case All(items):
            return _joined((_formula(each, tls) for each in items), " && ", neutral=True)
        case Some(items):
            return _joined((_formula(each, tls) for each in items), " || ", neutral=False)
        case Not(item):
            inner = _formula(item, tls)
            return f"!({inner})" if isinstance(inner, str) else None if inner is None else not inner
        case Peer(name):
            return _text(_PEER_NAME, name) if tls else False
        case Address(side, network):
            return _in_network(_ADDRESSES[side], network)
        case Port(number):
            return f"destination.port == {number}"
        case ServerName(name):
            return _text(_SERVER_NAME, name)
        case _:
            return None


def _joined(found: Iterable[Formula], operator: str, *, neutral: bool) -> Formula:
    parts: list[str] = []
    unknown = False
    for each in found:
        if each is (not neutral):
            return not neutral
        unknown = unknown or each is None
        if isinstance(each, str):
            parts.append(f"({each})")
    if unknown:
        return None
    return operator.join(parts) if parts else neutral


def _text(attribute: str, value: Pattern) -> str:
    ways: dict[Form, Callable[[str], str]] = {
        Form.EXACT: lambda text: f"{attribute} == {text}",
        Form.PREFIX: lambda text: f"{attribute}.startsWith({text})",
        Form.SUFFIX: lambda text: f"{attribute}.endsWith({text})",
        Form.REGEX: lambda text: f"{attribute}.matches({text})",
        Form.PRESENT: lambda _: f"{attribute} != ''",
    }
    text = f"^(?:{value.value})$" if value.form is Form.REGEX else value.value
    return ways[value.form](quoted(text))


def quoted(text: str) -> str:
    """A CEL string literal. Whatever could end it, or end the format command around it, is written as a number."""
    plain = "/:.-_"
    parts = (each if each.isascii() and (each.isalnum() or each in plain) else _escaped(each) for each in text)
    return f"'{''.join(parts)}'"


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _in_network(attribute: str, network: str) -> Formula:
    """An IPv4 network as an expression about `ADDRESS:PORT`. Other addresses are in none of them."""
    parsed = ipaddress.ip_network(network)
    if parsed.version != 4:
        return None
    octets = parsed.network_address.packed
    whole, bits = divmod(parsed.prefixlen, 8)
    parts = [str(each) for each in octets[:whole]]
    if bits:
        first = octets[whole]
        parts.append(f"(?:{'|'.join(str(each) for each in range(first, first + (1 << (8 - bits))))})")
    parts += ["[0-9]+"] * (4 - len(parts))
    pattern = r"\.".join(parts)
    return f"{attribute}.matches({quoted(f'^{pattern}:[0-9]+$')})"
