"""Host names as Istio's configuration uses them: short names, full names, and wildcards with one leading `*`.

A short name (no dot) means a service in the namespace of the object that says it. A wildcard covers every name
that ends with what follows its `*`. When several patterns cover a name the most specific one counts: an exact
name before any wildcard, a longer wildcard before a shorter one.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#VirtualService-hosts
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

import msgspec

DOMAIN = "cluster.local"
"""The cluster domain: services are `<name>.<namespace>.svc.<domain>`."""


class HostSet(msgspec.Struct, frozen=True, cache_hash=True):
    """Some hosts: exact ones, all that wildcards cover, or simply all (`whole`)."""

    exact: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()
    whole: bool = False

    def __contains__(self, host: str) -> bool:
        return self.whole or host in self.exact or any(covers(each, host) for each in self.patterns)

    @property
    def empty(self) -> bool:
        """True when no host is in it."""
        return not (self.whole or self.exact or self.patterns)


def host_set(hosts: Iterable[str]) -> HostSet:
    """Hosts and wildcards as a set."""
    said = frozenset(hosts)
    patterns = tuple(sorted(filter(is_wildcard, said)))
    return HostSet(said.difference(patterns), patterns)


def resolve(host: str, namespace: str, domain: str = DOMAIN) -> str:
    """The full name of a host said by an object in `namespace`; a name with a dot, `*` and addresses stay."""
    host = host.lower()
    if not host or "." in host or ":" in host or host.startswith("*"):
        return host
    return f"{host}.{namespace}.svc.{domain}"


def service_host(name: str, namespace: str, domain: str = DOMAIN) -> str:
    """The full name of a Kubernetes Service."""
    return f"{name}.{namespace}.svc.{domain}"


def parse_service_host(host: str, domain: str = DOMAIN) -> tuple[str, str] | None:
    """Name and namespace of a Kubernetes Service from its full name, or None for any other host."""
    parts = host.removesuffix(f".svc.{domain}").split(".")
    if len(parts) != 2 or not host.endswith(f".svc.{domain}") or not all(parts) or parts[0] == "*":
        return None
    return parts[0], parts[1]


def is_wildcard(host: str) -> bool:
    """True for `*` and `*.suffix`."""
    return host.startswith("*")


def covers(pattern: str, host: str) -> bool:
    """True when every name that `host` stands for is covered by `pattern`; both may be wildcards."""
    if not is_wildcard(pattern):
        return pattern == host
    suffix = pattern[1:]
    return host[1:].endswith(suffix) if is_wildcard(host) else host.endswith(suffix) and host != suffix


def wildcards_over(host: str) -> Iterator[str]:
    """The wildcards that cover a name, the most specific first, `*` last."""
    rest = host
    while "." in rest:
        rest = rest.partition(".")[2]
        if rest:
            yield f"*.{rest}"
    yield "*"


def overlap(first: str, second: str) -> bool:
    """True when some name is covered by both."""
    return covers(first, second) or covers(second, first)


def specificity(pattern: str) -> tuple[bool, int, str]:
    """A sort key: exact names first, then wildcards from the longest to the shortest."""
    return (is_wildcard(pattern), -len(pattern), pattern)


def most_specific(host: str, patterns: Iterable[str]) -> str | None:
    """The pattern that counts for a host, or None when none covers it."""
    return min((each for each in patterns if covers(each, host)), key=specificity, default=None)


def is_address(host: str) -> bool:
    """True for an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
