"""Rules of names, labels and annotations. Source: Kubernetes, "Object Names and IDs", "Labels and Selectors"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

from lateen.api.kinds import Kind
from lateen.api.problems import Problem
from lateen.lib.names import is_label, is_label_key, is_label_value, is_service_name, is_subdomain
from lateen.lib.yaml import format_path

_ANNOTATIONS_MAX: Final = 256 * 1024
_LABEL_FORM: Final = "a-z, 0-9 and '-', at most 63 characters, a letter or digit at both ends"
_NAMES: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    "Namespace": (is_label, _LABEL_FORM),
    "Service": (is_service_name, f"{_LABEL_FORM}, the first a letter"),
}
_NAME: Final = (is_subdomain, "a-z, 0-9, '-' and '.', at most 253 characters, a letter or digit at both ends")


def metadata_problems(kind: Kind, raw: Any) -> Iterator[Problem]:
    """What is wrong with the metadata of a document, beyond its shape; paths are relative to `metadata`."""
    if not isinstance(raw, dict):
        if raw is None:
            yield Problem("", '"metadata" is missing', "set metadata.name")
        return
    metadata = cast("dict[str, Any]", raw)
    yield from _name_problems(kind, metadata)
    namespace = metadata.get("namespace")
    if isinstance(namespace, str) and namespace:
        if not kind.namespaced:
            yield Problem("namespace", f"a {kind.kind} is in no namespace", "leave the field out")
        elif not is_label(namespace):
            yield Problem("namespace", f'"{namespace[:80]}" cannot be the name of a namespace', f"use {_LABEL_FORM}")
    yield from label_problems("labels", metadata.get("labels"))
    yield from _annotation_problems(metadata.get("annotations"))


def label_problems(field: str, raw: Any) -> Iterator[Problem]:
    """What is wrong with the keys and values of labels."""
    if not isinstance(raw, Mapping):
        return
    for key, value in cast("Mapping[Any, Any]", raw).items():
        if not isinstance(key, str) or not isinstance(value, str):
            continue  # the shape says so already
        if not is_label_key(key):
            yield Problem(f"{field}{_key(key)}", f'"{key[:80]}" cannot be the key of a label', "use [prefix/]name")
        if not is_label_value(value):
            yield Problem(
                f"{field}{_key(key)}",
                f'"{value[:80]}" cannot be the value of a label',
                "use a-z, A-Z, 0-9, '-', '_' and '.', at most 63 characters, a letter or digit at both ends",
            )


def _key(key: str) -> str:
    path = format_path((key,))
    return path if path.startswith("[") else f".{path}"


def _name_problems(kind: Kind, metadata: Mapping[str, Any]) -> Iterator[Problem]:
    name = metadata.get("name")
    if name is None or name == "":
        if not metadata.get("generateName"):
            yield Problem("", '"name" is missing', "set metadata.name")
        return
    valid, form = _NAMES.get(kind.kind, _NAME)
    if isinstance(name, str) and not valid(name):
        yield Problem("name", f'"{name[:80]}" cannot be the name of a {kind.kind}', f"use {form}")


def _annotation_problems(raw: Any) -> Iterator[Problem]:
    if not isinstance(raw, dict):
        return
    annotations = cast("dict[Any, Any]", raw)
    for key in annotations:
        if isinstance(key, str) and not is_label_key(key):
            yield Problem(
                f"annotations{_key(key)}", f'"{key[:80]}" cannot be the key of an annotation', "use [prefix/]name"
            )
    size = sum(len(text) for pair in annotations.items() for text in pair if isinstance(text, str))
    if size > _ANNOTATIONS_MAX:
        yield Problem(
            "annotations", f"the annotations have {size} characters", f"at most {_ANNOTATIONS_MAX} are allowed"
        )
