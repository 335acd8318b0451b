"""Reading Kubernetes documents.

Controllers work on the raw JSON and not on the typed view: what they write must carry over a Pod template whole,
with every field it has. What they read of it are the few well-known fields below. Documents in the API have
passed its checks, so a field that is there has the right type.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from lateen.api.struct import Json

Key = tuple[str, str]
"""Namespace (empty for cluster-scoped kinds) and name."""

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Letters of generated names: no vowels, so no words, and none that are mistaken for another."""


def name(document: Json) -> str:
    """metadata.name."""
    return document["metadata"].get("name", "")


def namespace(document: Json) -> str:
    """metadata.namespace, empty for cluster-scoped kinds."""
    return document["metadata"].get("namespace", "")


def key(document: Json) -> Key:
    """Namespace and name."""
    return namespace(document), name(document)


def uid(document: Json) -> str:
    """metadata.uid."""
    return document["metadata"].get("uid", "")


def labels(document: Json) -> Mapping[str, str]:
    """metadata.labels."""
    return document["metadata"].get("labels") or {}


def annotations_of(document: Json) -> Mapping[str, str]:
    """metadata.annotations."""
    return document["metadata"].get("annotations") or {}


def spec(document: Json) -> Json:
    """spec, empty when there is none."""
    return document.get("spec") or {}


def status(document: Json) -> Json:
    """status, empty when there is none."""
    return document.get("status") or {}


def terminating(document: Json) -> bool:
    """Whether the object is on its way out."""
    return bool(document["metadata"].get("deletionTimestamp"))


def part(of: Json, name: str) -> Json:
    """An object inside a document, empty when it is not there."""
    return of.get(name) or {}


def parts(of: Json, name: str) -> list[Json]:
    """A list of objects inside a document, empty when it is not there."""
    return of.get(name) or []


def owner(document: Json) -> Json | None:
    """The owner reference of the controller, if there is one."""
    return next((each for each in parts(document["metadata"], "ownerReferences") if each.get("controller")), None)


def owned_by(document: Json, owner_document: Json) -> bool:
    """Whether that very object (by uid) controls this one."""
    reference = owner(document)
    return reference is not None and reference.get("uid") == uid(owner_document)


def owner_reference(owner_document: Json) -> Json:
    """The reference by which this object controls another."""
    return {
        "apiVersion": owner_document["apiVersion"],
        "kind": owner_document["kind"],
        "name": name(owner_document),
        "uid": uid(owner_document),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def phase(pod: Json) -> str:
    """status.phase of a Pod; Pending before anybody has looked at it."""
    return status(pod).get("phase") or "Pending"


def finished(pod: Json) -> bool:
    """Whether none of the Pod's containers will run again."""
    return phase(pod) in ("Succeeded", "Failed")


def active(pod: Json) -> bool:
    """Whether the Pod counts as a replica: neither finished nor on its way out."""
    return not finished(pod) and not terminating(pod)


def condition(document: Json, kind: str) -> Json | None:
    """The status condition of that type."""
    return next((each for each in parts(status(document), "conditions") if each.get("type") == kind), None)


def ready(pod: Json) -> bool:
    """Whether the Pod's Ready condition is true."""
    found = condition(pod, "Ready")
    return found is not None and found.get("status") == "True"


def available_in_s(pod: Json, min_ready_s: float, now: float) -> float | None:
    """Seconds until the Pod will have been ready for `min_ready_s` (0: it has been), None when it isn't ready."""
    found = condition(pod, "Ready")
    if found is None or found.get("status") != "True":
        return None
    since = seconds(found.get("lastTransitionTime") or "")
    return 0.0 if since is None else max(0.0, since + min_ready_s - now)


def matches(selector: Json | None, of: Mapping[str, str]) -> bool:
    """Whether a label selector (matchLabels and matchExpressions) selects these labels. No selector: nothing."""
    if not selector:
        return False
    if any(of.get(label) != value for label, value in part(selector, "matchLabels").items()):
        return False
    return all(_expression(each, of) for each in parts(selector, "matchExpressions"))


def _expression(expression: Json, of: Mapping[str, str]) -> bool:
    value, values = of.get(expression["key"]), expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:  # DoesNotExist
            return value is None


def conditions(old: Iterable[Json], new: Iterable[Json], now: float) -> list[Json]:
    """New conditions, each with the time its status last changed; that of an unchanged status is kept."""
    before = {each["type"]: each for each in old}
    out: list[Json] = []
    for each in new:
        previous = before.get(each["type"])
        same = previous is not None and previous.get("status") == each["status"]
        since = previous.get("lastTransitionTime") if same and previous else None
        out.append({**each, "lastTransitionTime": since or timestamp(now)})
    return out


def timestamp(now: float) -> str:
    """Seconds since the epoch as Kubernetes writes times: RFC 3339, UTC, whole seconds."""
    return datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> float | None:
    """The inverse of `timestamp`, with or without fractions; None for an empty or unreadable text."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def digest(value: Any, length: int = 10) -> str:
    """A short name for a JSON value, the same for equal values."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    number = int.from_bytes(hashlib.sha256(canonical).digest(), "big")
    letters: list[str] = []
    for _ in range(length):
        number, rest = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[rest])
    return "".join(letters)
