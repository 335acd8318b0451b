"""Conditions on a connection or request, as authorization rules make them: small values, combined by and, or, not.

Two writers read them: Envoy's RBAC filter (`lateen.envoy.rbac`) and the gate that decides about TCP connections
before a byte flows (`lateen.envoy.gate`). Each test knows whether it is about requests: such a test has no meaning
for plain TCP.

A pattern follows Istio's rule for values: `*` alone asks for presence, a leading `*` for an end, a trailing `*` for
a beginning; anything else is the whole value.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import TypeAlias

import msgspec


class Form(enum.StrEnum):
    """How a pattern compares."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    PRESENT = "present"
    REGEX = "regex"


class Pattern(msgspec.Struct, frozen=True):
    """A comparison of a text. REGEX is RE2 and compares the whole text; PRESENT wants at least one character."""

    form: Form
    value: str = ""
    ignore_case: bool = False


def pattern(said: str, before: str = "", *, ignore_case: bool = False) -> Pattern:
    """The pattern a rule's value means; `before` is put in front of a value that says how the text begins."""
    if said == "*":
        return Pattern(Form.PRESENT)
    if said.startswith("*"):
        return Pattern(Form.SUFFIX, said[1:], ignore_case)
    if said.endswith("*"):
        return Pattern(Form.PREFIX, before + said[:-1], ignore_case)
    return Pattern(Form.EXACT, before + said, ignore_case)


def expression(said: str, anything: str = ".*") -> str:
    """A value with wildcards at its ends as an RE2 expression; `anything` is what the wildcard stands for."""
    if said == "*":
        return anything.replace("*", "+")
    inner = said.removeprefix("*") if said.startswith("*") else said.removesuffix("*")
    escaped = re.escape(inner)
    if said.startswith("*"):
        return anything + escaped
    return escaped + anything if said.endswith("*") else escaped


class Side(enum.StrEnum):
    """Whose address: the direct peer's, the same as a PROXY header tells it, the client's as trusted proxies tell
    it, or the one that was called."""

    PEER = "peer"
    ANNOUNCED = "announced"
    CLIENT = "client"
    DESTINATION = "destination"


class All(msgspec.Struct, frozen=True):
    """Every item holds; without items always."""

    items: tuple[Predicate, ...] = ()


class Some(msgspec.Struct, frozen=True):
    """At least one item holds; without items never."""

    items: tuple[Predicate, ...] = ()


class Not(msgspec.Struct, frozen=True):
    """The item does not hold."""

    item: Predicate


class Peer(msgspec.Struct, frozen=True):
    """The caller's certificate has a URI name like this; never without a certificate."""

    name: Pattern


class Address(msgspec.Struct, frozen=True):
    """An address is in a network (`10.0.0.0/8`)."""

    side: Side
    network: str


class Port(msgspec.Struct, frozen=True):
    """The port that was called."""

    number: int


class ServerName(msgspec.Struct, frozen=True):
    """The name in the TLS ClientHello."""

    name: Pattern


class Header(msgspec.Struct, frozen=True):
    """A header of the request, pseudo-headers included; its name in lower case."""

    name: str
    value: Pattern


class Path(msgspec.Struct, frozen=True):
    """The request's path without query."""

    value: Pattern


class Metadata(msgspec.Struct, frozen=True):
    """A value that an earlier filter left under a path of keys; `lists`: a list that has such an item counts too.

    `request`: the filter works on requests.
    """

    filter: str
    path: tuple[str, ...]
    value: Pattern
    lists: bool = True
    scalar: bool = True
    request: bool = True


Test: TypeAlias = Peer | Address | Port | ServerName | Header | Path | Metadata
Predicate: TypeAlias = All | Some | Not | Test


def of_request(predicate: Predicate) -> bool:
    """True when a test of the predicate is about requests, so plain TCP cannot answer it."""
    match predicate:
        case All(items) | Some(items):
            return any(of_request(each) for each in items)
        case Not(item):
            return of_request(item)
        case Metadata():
            return predicate.request
        case Header() | Path():
            return True
        case _:
            return False


def conjunction(items: Iterable[Predicate]) -> Predicate:
    """All of them, without needless nesting."""
    found = tuple(items)
    return found[0] if len(found) == 1 else All(found)


def disjunction(items: Iterable[Predicate]) -> Predicate:
    """Any of them, without needless nesting."""
    found = tuple(items)
    return found[0] if len(found) == 1 else Some(found)


def behind_socket(predicate: Predicate, port: int) -> Predicate:
    """The predicate for connections to a Unix socket that stands for a port: the port is known beforehand, and the
    peer is who the PROXY header says."""
    match predicate:
        case All(items):
            return All(tuple(behind_socket(each, port) for each in items))
        case Some(items):
            return Some(tuple(behind_socket(each, port) for each in items))
        case Not(item):
            return Not(behind_socket(item, port))
        case Port(number):
            return All() if number == port else Some()
        case Address(side, network) if side is Side.PEER:
            return Address(Side.ANNOUNCED, network)
        case _:
            return predicate
