"""Rules that several kinds share, each a generator of problems: hosts, ports, shares, expressions, labels.

`path` is where the value is, relative to the struct whose rules are asked.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from lateen.api.problems import Problem, at
from lateen.lib.names import (
    is_address,
    is_header_name,
    is_host,
    is_host_pattern,
    is_label,
    is_label_key,
    is_label_value,
    is_network,
)
from lateen.lib.regex import regex_problem

PROTOCOLS: Final = ("HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "REDIS", "MYSQL", "TCP", "TLS")
TLS_PROTOCOLS: Final = ("HTTPS", "TLS")
HTTP_PROTOCOLS: Final = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB")

_FORWARD_SECRET: Final = (
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "CHACHA20-POLY1305",
    "AES128-SHA",
    "AES256-SHA",
)
CIPHER_SUITES: Final = (
    *(f"ECDHE-{key}-{cipher}" for key in ("ECDSA", "RSA") for cipher in _FORWARD_SECRET),
    *("AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA"),
)
"""What Envoy can be told to choose from for TLS 1.2 and older; TLS 1.3 has no such choice."""


def host(path: str, text: str) -> Iterator[Problem]:
    """A host name without wildcard."""
    if not text:
        yield Problem(path, "the host is empty", "name a host")
    elif not is_host(text):
        what = "a wildcard" if text.startswith("*") else "an address" if is_address(text) else "no host name"
        yield Problem(path, f'"{text[:80]}" is {what}', "write a host name, such as reviews or reviews.default")


def host_pattern(path: str, text: str, *, addresses: bool = False) -> Iterator[Problem]:
    """A host name, a wildcard like `*.example.com`, or `*`."""
    if not is_host_pattern(text) and not (addresses and is_address(text)):
        yield Problem(
            path, f'"{text[:80]}" is not a host', "write a host name, or a wildcard with one * at the beginning"
        )


def port(path: str, number: int | None) -> Iterator[Problem]:
    """A port number, when there is one."""
    if number is not None and not 1 <= number <= 65535:
        yield Problem(path, f"{number} is not a port", "ports are 1 to 65535")


def share(path: str, value: float | None) -> Iterator[Problem]:
    """A percentage, when there is one."""
    if value is not None and not 0 <= value <= 100:
        yield Problem(path, f"{value:g} is not a percentage", "percentages are 0 to 100")


def not_negative(path: str, value: int | None) -> Iterator[Problem]:
    """A count, when there is one."""
    if value is not None and value < 0:
        yield Problem(path, f"{value} is negative", "counts are 0 or more")


def regex(path: str, pattern: str) -> Iterator[Problem]:
    """An RE2 expression."""
    if reason := regex_problem(pattern):
        yield Problem(path, f"the expression is not RE2: {reason}", "see github.com/google/re2/wiki/Syntax")


def network(path: str, text: str) -> Iterator[Problem]:
    """An address or a network in CIDR form."""
    if not is_network(text):
        yield Problem(path, f'"{text[:80]}" is no address or network', "write it like 10.1.2.3 or 10.1.0.0/16")


def header_name(path: str, text: str) -> Iterator[Problem]:
    """A name of an HTTP header; pseudo-headers are none."""
    if not is_header_name(text):
        yield Problem(path, f'"{text[:80]}" is not the name of a header', "use letters, digits and '-'")


def labels(path: Sequence[str | int], values: Mapping[str, str], *, wildcards: str = "") -> Iterator[Problem]:
    """Labels that are looked for. `wildcards` is the remedy that tells of the rule against `*`."""
    for key, value in values.items():
        place = at(*path, key)
        if "*" in key or "*" in value:
            yield Problem(place, "a selector has no wildcards", wildcards or "write the whole key and value")
        elif not is_label_key(key):
            yield Problem(place, f'"{key[:80]}" cannot be the key of a label', "use [prefix/]name")
        elif not is_label_value(value):
            yield Problem(place, f'"{value[:80]}" cannot be the value of a label', "no label can have it")


def no_duplicates(
    path: Sequence[str | int], values: Iterable[Hashable], what: str, leaf: str = ""
) -> Iterator[Problem]:
    """Values of which each must be there once; `leaf` is the field of each item that has the value."""
    seen: dict[Hashable, int] = {}
    for index, value in enumerate(values):
        if value in seen:
            place = at(*path, index, *leaf.split(".")) if leaf else at(*path, index)
            yield Problem(place, f"{what} {value} is there twice", f"the first is [{seen[value]}]; keep one")
        seen.setdefault(value, index)


def export_to(values: Sequence[str], *, nobody: bool = False) -> Iterator[Problem]:
    """The field `exportTo`: `.`, `*`, names of namespaces, and `~` for nobody where that is allowed."""
    for index, each in enumerate(values):
        if each == "~" and not nobody:
            yield Problem(at("exportTo", index), "~ (nobody) is not possible here", "use . for the own namespace")
        elif each not in (".", "*", "~") and not is_label(each):
            yield Problem(at("exportTo", index), f'"{each[:80]}" is no namespace', "use . or * or names of namespaces")
    yield from no_duplicates(("exportTo",), values, "namespace")
    for index, each in enumerate(values):
        if each in ("*", "~") and len(set(values)) > 1:
            yield Problem(at("exportTo", index), f"{each} says it all", "leave the other values out")


def protocol(path: str, text: str, known: Sequence[str] = PROTOCOLS) -> Iterator[Problem]:
    """A protocol of a port."""
    if text.upper() not in known:
        yield Problem(path, f'"{text[:40]}" is not a protocol', f"use one of {', '.join(known)}")


def one_selector(selector: object, target_ref: object, target_refs: Sequence[object]) -> Iterator[Problem]:
    """Policies are attached by labels or by reference, not by both."""
    given = [
        name
        for name, value in (("selector", selector), ("targetRef", target_ref), ("targetRefs", target_refs))
        if value not in (None, ())
    ]
    if len(given) > 1:
        yield Problem(given[-1], f"{' and '.join(given)} exclude each other", "keep one of them")


def url(path: str, text: str, schemes: Sequence[str]) -> Iterator[Problem]:
    """A URL of one of some schemes."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in schemes or not rest:
        yield Problem(path, f'"{text[:80]}" is not a URL of {" or ".join(schemes)}', f"write {schemes[0]}://HOST/PATH")
