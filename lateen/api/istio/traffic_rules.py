"""Rules of routing: what retries, faults, headers and weights may say.

Sources: istio.io/latest/docs/reference/config/networking/virtual-service, and for retry conditions and header
formats envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter and .../http_conn_man/headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

from lateen.api import rules
from lateen.api.istio.substitutions import PLAIN, WITH_ARGUMENT
from lateen.api.problems import Problem, at, warning
from lateen.lib.names import is_label, is_subdomain

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE")
RETRY_ON: Final = frozenset(
    {
        "5xx",
        "cancelled",
        "connect-failure",
        "deadline-exceeded",
        "envoy-ratelimited",
        "gateway-error",
        "http3-post-connect-failure",
        "internal",
        "refused-stream",
        "reset",
        "reset-before-request",
        "resource-exhausted",
        "retriable-4xx",
        "retriable-headers",
        "retriable-status-codes",
        "unavailable",
    }
)
GRPC_STATUSES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
HEADER_MAX: Final = 16384
"""Bytes of a header value that Envoy takes in its configuration."""
WEIGHTS_MAX: Final = 2**32 - 1
"""What weights may add up to."""
BODY_MAX: Final = 1024 * 1024
"""Bytes of a direct response; Envoy holds them in every route."""
BODY_LARGE: Final = 100 * 1024
"""Bytes from which a direct response is worth a word."""

_SUBSET: Final = re.compile(r"[a-zA-Z0-9]([-_.a-zA-Z0-9]{0,251}[a-zA-Z0-9])?", re.ASCII)
_STAT_PREFIX: Final = re.compile(r"[-_.a-zA-Z0-9]{1,253}", re.ASCII)
_COMMAND: Final = re.compile(r"%%|%([A-Z][A-Z0-9_]*)(\([^)%]*\))?(?::[0-9]+)?%")
_FORMAT: Final = re.compile(r"(?:[^%]|%%|%[A-Z][A-Z0-9_]*(?:\([^)%]*\))?(?::[0-9]+)?%)*", re.DOTALL)


class ClientMatch(Protocol):
    """What the matches of HTTP, TLS and TCP rules say about who asks."""

    @property
    def gateways(self) -> tuple[str, ...]: ...
    @property
    def port(self) -> int | None: ...
    @property
    def source_labels(self) -> Mapping[str, str]: ...
    @property
    def source_namespace(self) -> str | None: ...


def subset(path: str, name: str) -> Iterator[Problem]:
    """The name of a subset; it becomes part of cluster names."""
    if not _SUBSET.fullmatch(name):
        yield Problem(path, f'"{name[:80]}" cannot be the name of a subset', "use letters, digits, '-', '_' and '.'")


def stat_prefix(path: str, text: str) -> Iterator[Problem]:
    """A part of the names of metrics."""
    if not _STAT_PREFIX.fullmatch(text):
        yield Problem(path, f'"{text[:80]}" cannot be part of a metric', "use letters, digits, '-', '_' and '.'")


def grpc_status(path: str, text: str) -> Iterator[Problem]:
    """A gRPC status by name or number."""
    known = text.upper() in GRPC_STATUSES or (
        text.isascii() and text.isdecimal() and int(text[:3]) < len(GRPC_STATUSES)
    )
    if not known:
        yield Problem(path, f'"{text[:40]}" is not a gRPC status', "write it like UNAVAILABLE")


def http_status(path: str, status: int | None) -> Iterator[Problem]:
    """A final status of an answer, when there is one."""
    if status is not None and not 200 <= status <= 599:
        yield Problem(path, f"{status} is not the status of an answer", "use 200 to 599")


def format_problem(text: str) -> str | None:
    """What is wrong with a header value, in which `%...%` are commands of Envoy."""
    if any(character in text for character in "\r\n\0"):
        return "a header value has no line breaks"
    if len(text.encode()) > HEADER_MAX:
        return f"the value has {len(text.encode())} bytes, at most {HEADER_MAX} are allowed"
    if not _FORMAT.fullmatch(text):
        return "a % begins a command like %REQ(:path)% and this is none"
    for found in _COMMAND.finditer(text):
        if found[1] in WITH_ARGUMENT and not found[2]:
            return f"%{found[1]}% needs something in parentheses"
        if found[1] and found[1] not in PLAIN | WITH_ARGUMENT:
            return f"Envoy has no command %{found[1][:40]}%"
    return None


def one_line(path: str, text: str | None) -> Iterator[Problem]:
    """A text that becomes part of a request or an answer, when there is one."""
    if text is not None and any(character in text for character in "\r\n\0"):
        yield Problem(path, "it has a line break", "take it out")


def gateways(field: str, names: Sequence[str]) -> Iterator[Problem]:
    """Gateways by `name` or `namespace/name`, and `mesh`."""
    for index, name in enumerate(names):
        namespace, slash, own = name.rpartition("/")
        if slash and ((not is_label(namespace) and namespace != ".") or not is_subdomain(own)):
            yield Problem(at(field, index), f'"{name[:80]}" is no gateway', "write namespace/name")
        elif not slash and not is_subdomain(name):
            yield Problem(at(field, index), f'"{name[:80]}" is no gateway', "write name or namespace/name")
        elif not slash and "." in name:
            first, second, *_ = name.split(".")
            message = f"{name} is an old way to write the Gateway {first} of namespace {second}"
            yield warning(at(field, index), message, f"write {second}/{first}")


def weights(values: Sequence[int | None]) -> Iterator[Problem]:
    """The shares of a route's destinations. They count relative to their sum."""
    if len(values) < 2:
        return
    if not any(values):
        yield Problem("route", "no destination has a weight, so none gets anything", "give each a weight")
        return
    total = sum(value or 0 for value in values)
    if total > WEIGHTS_MAX:
        yield Problem("route", f"the weights make {total}", f"they may make {WEIGHTS_MAX}; only their ratio counts")
    for index, value in enumerate(values):
        if value is None:
            yield warning(at("route", index), "it gets nothing: beside others it needs a weight", "set weight")


def source_namespace(path: str, name: str | None) -> Iterator[Problem]:
    """The namespace of clients, when there is one."""
    if name and not is_label(name):
        yield Problem(path, f'"{name[:80]}" is no namespace', "write the name of a namespace")


def l4_match(
    subnets: Sequence[str], port: int | None, labels: Mapping[str, str], names: Sequence[str]
) -> Iterator[Problem]:
    """What TLS and TCP matches have in common."""
    for index, text in enumerate(subnets):
        yield from rules.network(at("destinationSubnets", index), text)
    yield from rules.port("port", port)
    yield from rules.labels(("sourceLabels",), labels)
    yield from gateways("gateways", names)


def covers(pattern: str, name: str) -> bool:
    """True when every name that `name` stands for is covered by a host or wildcard."""
    pattern, name = pattern.lower(), name.lower()
    return pattern == name or (pattern.startswith("*") and name.endswith(pattern[1:]))
