"""The syntax of names: DNS labels and names, host patterns, label keys and values, header names.

Sources: RFC 1035, RFC 1123, RFC 9110 (field names), and Kubernetes' "Object Names and IDs" and "Labels and
Selectors".
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

UNIX_PREFIX: Final = "unix://"
"""Before the path of a Unix socket, or before `@` and the name of an abstract one."""

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_LABEL_1035: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_HOST_LABEL: Final = re.compile(r"[a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?", re.ASCII)
_WILDCARD_LABEL: Final = re.compile(r"\*(-?[a-zA-Z0-9]([-a-zA-Z0-9]{0,59}[a-zA-Z0-9])?)?", re.ASCII)
_QUALIFIED: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", re.ASCII)
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_PORT_NAME: Final = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?", re.ASCII)


def is_label(text: str) -> bool:
    """A DNS label in lower case: what names of namespaces, containers and subsets are."""
    return bool(_LABEL.fullmatch(text))


def is_service_name(text: str) -> bool:
    """A DNS label that starts with a letter, as a Service's name must."""
    return bool(_LABEL_1035.fullmatch(text))


def is_subdomain(text: str) -> bool:
    """DNS labels in lower case with dots between, at most 253 characters: what names of objects are."""
    return len(text) <= 253 and all(is_label(each) for each in text.split("."))


def is_host(text: str) -> bool:
    """A host name, short or full, without wildcard; not an address. A trailing dot is allowed."""
    labels = text.removesuffix(".").split(".")
    return len(text) <= 255 and all(_HOST_LABEL.fullmatch(each) for each in labels) and not labels[-1].isdigit()


def is_host_pattern(text: str) -> bool:
    """A host name whose first label may be `*`, `*-x` or `*x`; or `*` alone."""
    first, dot, rest = text.partition(".")
    if "*" not in first:
        return is_host(text)
    return bool(_WILDCARD_LABEL.fullmatch(first)) and (is_host(rest) if dot else first == "*")


def is_address(text: str) -> bool:
    """An IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_network(text: str) -> bool:
    """An address, or a network as `address/bits`; bits beyond the mask may be set, as in Istio."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def is_label_key(text: str) -> bool:
    """A key of a label or annotation: `name` or `prefix/name`."""
    prefix, slash, name = text.rpartition("/")
    return bool(_QUALIFIED.fullmatch(name)) and (not slash or is_subdomain(prefix))


def is_label_value(text: str) -> bool:
    """A value of a label: empty, or at most 63 characters."""
    return not text or bool(_QUALIFIED.fullmatch(text))


def is_header_name(text: str) -> bool:
    """An HTTP field name. Pseudo-headers (`:path`) are none."""
    return bool(_TOKEN.fullmatch(text))


def is_port_name(text: str) -> bool:
    """A name a port may have in Kubernetes: at most 15 characters, a letter among them, no two dashes in a row."""
    return bool(_PORT_NAME.fullmatch(text)) and "--" not in text
