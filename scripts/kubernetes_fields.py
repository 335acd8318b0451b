"""Writes lateen/apiserver/kubernetes_fields.json: the protobuf field numbers of Kubernetes' built-in kinds.

    python scripts/kubernetes_fields.py MODULES

MODULES is a Go module cache that has k8s.io/api, apimachinery and apiextensions-apiserver (`scripts/kube/build.sh`
fills one). Numbers and types come from the .proto files; whether an unset field can be told from a zero (a pointer)
from the Go structs, whose tags have the same numbers.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOTS = {
    "core/v1": "Namespace Node ServiceAccount ConfigMap Secret Service Pod Event",
    "apps/v1": "Deployment ReplicaSet StatefulSet DaemonSet",
    "batch/v1": "Job CronJob",
    "autoscaling/v2": "HorizontalPodAutoscaler",
    "autoscaling/v1": "Scale",
    "policy/v1": "Eviction",
    "coordination/v1": "Lease",
    "discovery/v1": "EndpointSlice",
    "rbac/v1": "Role ClusterRole RoleBinding ClusterRoleBinding",
    "authorization/v1": "SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview LocalSubjectAccessReview",
    "authentication/v1": "SelfSubjectReview TokenReview TokenRequest",
    "admissionregistration/v1": "MutatingWebhookConfiguration ValidatingWebhookConfiguration",
    "pkg/apis/apiextensions/v1": "CustomResourceDefinition",
    "pkg/apis/meta/v1": "DeleteOptions",
}
AMBIGUOUS = {"autoscaling/v1/HorizontalPodAutoscaler": "autoscaling/v1", "events.k8s.io/v1/Event": "events/v1"}
"""Kinds that another version or group has too."""
MESSAGE = re.compile(r"^message (\w+) \{(.*?)^\}", re.M | re.S)
FIELD = re.compile(r"^\s*(?:(optional|repeated)\s+)?(map<\s*\w+\s*,\s*[\w.]+>|[\w.]+)\s+(\w+)\s*=\s*(\d+)", re.M)
STRUCT = re.compile(r"^type (\w+) struct \{(.*?)^\}", re.M | re.S)
GO_FIELD = re.compile(r"^\s*(?:\w+\s+)?(\*?)[\w.\[\]*]+\s+`json:\"([^\"]*)\"\s+protobuf:\"\w+,(\d+)", re.M)


def main(modules: Path) -> None:
    messages: dict[str, dict[int, list[object]]] = {}
    for proto in sorted(modules.glob("k8s.io/*/**/generated.proto")):
        text = proto.read_text()
        package = re.search(r"^package ([\w.]+);", text, re.M)
        if package is None or "/vendor/" in str(proto):
            continue
        unset, inline = _of_structs(proto.parent)
        for name, body in MESSAGE.findall(text):
            full = f"{package[1]}.{name}"
            fields: dict[int, list[object]] = {}
            for label, kind, field, number in FIELD.findall(re.sub(r"//.*", "", body)):
                entry = re.match(r"map<\s*\w+\s*,\s*([\w.]+)>", kind)
                shape = "map" if entry else "list" if label == "repeated" else ""
                shape = "inline" if (name, int(number)) in inline else shape
                kind = entry[1] if entry else kind
                if kind[0].isupper():
                    kind = f"{package[1]}.{kind}"
                fields[int(number)] = [field, kind.lstrip("."), shape, int((name, int(number)) in unset)]
            messages[full] = fields
    kept: dict[str, dict[int, list[object]]] = {}
    kinds: dict[str, str] = {}
    for place, names in ROOTS.items():
        prefix = _package(messages, place)
        for name in names.split():
            kinds[name] = f"{prefix}.{name}"
            _keep(f"{prefix}.{name}", messages, kept)
    for kind, place in AMBIGUOUS.items():
        name = f"{_package(messages, place)}.{kind.rpartition('/')[2]}"
        kinds[kind] = name
        _keep(name, messages, kept)
    target = Path(__file__).parent.parent / "lateen/apiserver/kubernetes_fields.json"
    content = {"kinds": kinds, "messages": {name: kept[name] for name in sorted(kept)}}
    target.write_text(json.dumps(content, separators=(",", ":")).replace('},"', '},\n"') + "\n")


def _of_structs(directory: Path) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
    """Struct and number of fields whose zero is left out of JSON because it means unset, and of those whose own fields
    stand in their place."""
    unset: set[tuple[str, int]] = set()
    inline: set[tuple[str, int]] = set()
    for source in directory.glob("*.go"):
        for name, body in STRUCT.findall(source.read_text()):
            for pointer, tag, number in GO_FIELD.findall(body):
                if not pointer and ("omitempty" in tag or "omitzero" in tag):
                    unset.add((name, int(number)))
                if not tag.partition(",")[0]:
                    inline.add((name, int(number)))
    return unset, inline


def _package(messages: dict[str, dict[int, list[object]]], place: str) -> str:
    ending = "." + place.removeprefix("pkg/").replace("/", ".") + "."
    for full in messages:
        if ending in full:
            return full.rpartition(".")[0]
    raise SystemExit(f"no package {place}")


def _keep(name: str, messages: dict[str, dict[int, list[object]]], kept: dict[str, dict[int, list[object]]]) -> None:
    if name in kept or name not in messages:
        return
    kept[name] = messages[name]
    for _, kind, _, _ in messages[name].values():
        _keep(str(kind), messages, kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
