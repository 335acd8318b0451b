"""The fields of routing and security, from the schemas: every leaf, and every value where a schema lists values.

A path is written as in `lateen.api.coverage`: `spec.http[].match[].uri.exact`, `spec.selector{}`. A value of an
enumeration is a line of its own: `spec.servers[].tls.mode=SIMPLE`.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

from tests.paths import shared

KINDS = (
    *("VirtualService", "DestinationRule", "Gateway", "Sidecar", "ServiceEntry", "WorkloadEntry", "WorkloadGroup"),
    *("ProxyConfig", "PeerAuthentication", "RequestAuthentication", "AuthorizationPolicy"),
    *("EnvoyFilter", "WasmPlugin", "TrafficExtension"),
)
Json = dict[str, Any]


@cache
def fields() -> tuple[tuple[str, str], ...]:
    """(kind, path) of every leaf and listed value, in the order of the schemas."""
    found: list[tuple[str, str]] = []
    for document in yaml.safe_load_all(shared("crds/istio.yaml").read_text()):
        if document and document.get("kind") == "CustomResourceDefinition":
            kind = str(document["spec"]["names"]["kind"])
            if kind in KINDS:
                versions = document["spec"]["versions"]
                version = next((each for each in versions if each["name"] == "v1"), versions[0])
                spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
                found += [(kind, path) for path in _leaves(spec, "spec")]
    return tuple(found)


def _leaves(schema: Json, path: str) -> Iterator[str]:
    if schema.get("properties"):
        for name, inner in schema["properties"].items():
            yield from _leaves(inner, f"{path}.{name}")
    elif schema.get("type") == "array":
        yield from _leaves(schema["items"], f"{path}[]")
    elif isinstance(schema.get("additionalProperties"), dict):
        yield from _leaves(schema["additionalProperties"], f"{path}{{}}")
    elif schema.get("enum"):
        yield from (f"{path}={value}" for value in schema["enum"])
    else:
        yield path


_STEP = re.compile(r"\.?([^.\[\]{}]+)|\[(\d+)\]|\{([^}]*)\}")


def general(path: str) -> str:
    """A place in a document as the field it is of: `spec.http[0].headers{x}` is `spec.http[].headers{}`."""
    return re.sub(r"\{[^}]*\}", "{}", re.sub(r"\[\d+\]", "[]", path))


def with_value(document: Json, path: str, value: Any) -> Json:
    """A copy of a document with that value at a place; what is missing on the way is made. None takes it away."""
    made = copy.deepcopy(document)
    steps: list[str | int] = [int(found[2]) if found[2] else found[1] or found[3] for found in _STEP.finditer(path)]
    at: Any = made
    for step, following in itertools.pairwise(steps):
        empty: Any = [] if isinstance(following, int) else {}
        if isinstance(step, int):
            while len(at) <= step:
                at.append(empty)
            at = at[step]
        else:
            at = at.setdefault(step, empty)
    last = steps[-1]
    if value is None:
        del at[last]
    elif isinstance(last, int) and last == len(at):
        at.append(value)
    else:
        at[last] = value
    return made


def value_at(document: Json, path: str) -> Any:
    """What stands at a place, None for nothing."""
    at: Any = document
    for found in _STEP.finditer(path):
        step = int(found[2]) if found[2] else found[1] or found[3]
        try:
            at = at[step]
        except (KeyError, IndexError):
            return None
    return at
