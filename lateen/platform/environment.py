"""Environment variables and volumes of a container, from a Pod's document and the ConfigMaps and Secrets it names.

Source: https://kubernetes.io/docs/tasks/inject-data-application/ and the Pod reference.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from typing import Any, Protocol

from lateen.api.struct import Json
from lateen.lib.quantities import parse_quantity
from lateen.platform.controllers import documents as d
from lateen.platform.pod import EmptyDir, Files, HostPath

_VARIABLE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class ConfigError(Exception):
    """A Pod can't be run as it is written; `reason` is the container's waiting reason."""

    def __init__(self, message: str, reason: str = "CreateContainerConfigError") -> None:
        super().__init__(message)
        self.reason = reason


class Source(Protocol):
    """Where the contents of ConfigMaps and Secrets come from."""

    def get(self, kind: str, key: d.Key) -> Json | None:
        """The document, None when there is none."""
        ...


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by its value; unknown names stay as written, `$$` is a dollar sign."""
    return _VARIABLE.sub(lambda m: "$" if m[1] is None else env.get(m[1], m[0]), text)


def variables(pod: Json, container: Json, source: Source, ip: str) -> dict[str, str]:
    """The container's variables, from `envFrom` and then `env`, each able to refer to earlier ones."""
    env: dict[str, str] = {}
    for each in d.parts(container, "envFrom"):
        for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if field in each:
                found = contents(source, kind, d.namespace(pod), each[field])
                prefix = each.get("prefix", "")
                # a variable can't hold a zero byte: binary entries are for volumes
                env |= {
                    prefix + name: value.decode("utf-8", "replace") for name, value in found.items() if 0 not in value
                }
    for each in d.parts(container, "env"):
        if "valueFrom" in each:
            value = _from(pod, container, each["valueFrom"], source, ip)
            if value is not None:
                env[each["name"]] = value
        else:
            env[each["name"]] = expand(each.get("value") or "", env)
    return env


def contents(source: Source, kind: str, namespace: str, reference: Json) -> dict[str, bytes]:
    """All entries of a ConfigMap or Secret; empty when it is missing and the reference is optional."""
    name = reference.get("name") or reference.get("secretName") or ""
    document = source.get(kind, (namespace, name))
    if document is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f"{kind} {namespace}/{name} does not exist")
    if kind == "Secret":
        data = {key: base64.b64decode(value) for key, value in d.part(document, "data").items()}
        return data | {key: value.encode() for key, value in d.part(document, "stringData").items()}
    binary = {key: base64.b64decode(value) for key, value in d.part(document, "binaryData").items()}
    return binary | {key: value.encode() for key, value in d.part(document, "data").items()}


def _from(pod: Json, container: Json, origin: Json, source: Source, ip: str) -> str | None:
    for kind, field in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if field in origin:
            reference = origin[field]
            found = contents(source, kind, d.namespace(pod), reference).get(reference["key"])
            if found is None and not reference.get("optional"):
                raise ConfigError(f"{kind} {d.namespace(pod)}/{reference.get('name')} has no key {reference['key']}")
            return None if found is None else found.decode("utf-8", "replace")
    if "fieldRef" in origin:
        return field_value(pod, origin["fieldRef"]["fieldPath"], ip)
    if "resourceFieldRef" in origin:
        return _resource(container, origin["resourceFieldRef"])
    raise ConfigError(f"a variable of container {container['name']} comes from {', '.join(origin)}, which is not known")


def field_value(pod: Json, path: str, ip: str) -> str:
    """The value of a Pod field as the downward API gives it. ConfigError for one it doesn't have."""
    if found := _FIELD.fullmatch(path):
        return d.part(pod["metadata"], found[1]).get(found[2], "")
    match path:
        case "metadata.name":
            return d.name(pod)
        case "metadata.namespace":
            return d.namespace(pod)
        case "metadata.uid":
            return d.uid(pod)
        case "metadata.labels" | "metadata.annotations":
            pairs = d.part(pod["metadata"], path.partition(".")[2])
            return "\n".join(f'{name}="{value}"' for name, value in sorted(pairs.items()))
        case "spec.nodeName":
            return d.spec(pod).get("nodeName", "")
        case "spec.serviceAccountName":
            return d.spec(pod).get("serviceAccountName") or "default"
        case "status.podIP" | "status.podIPs":
            return ip
        case "status.hostIP" | "status.hostIPs":
            return "127.0.0.1"
        case _:
            raise ConfigError(f"the Pod field {path} is not available to containers")


def _resource(container: Json, reference: Json) -> str:
    kind, _, name = reference["resource"].partition(".")
    written = d.part(d.part(container, "resources"), kind).get(name)
    if written is None:
        return "0"
    divisor = parse_quantity(reference.get("divisor") or 1).value or 1
    return str(math.ceil(parse_quantity(written).value / divisor))


def volume(pod: Json, volume: Json, source: Source, ip: str) -> Files | HostPath | EmptyDir:
    """One volume of the Pod. ConfigError for what is missing and for kinds that can't be had here."""
    namespace = d.namespace(pod)
    if "emptyDir" in volume:
        limit = d.part(volume, "emptyDir").get("sizeLimit")
        return EmptyDir(None if limit is None else int(parse_quantity(limit).value))
    if "hostPath" in volume:
        return HostPath(volume["hostPath"]["path"])
    if "configMap" in volume:
        reference = volume["configMap"]
        found = contents(source, "ConfigMap", namespace, reference)
        return Files(_items(found, reference), _mode(reference))
    if "secret" in volume:
        reference = volume["secret"]
        return Files(_items(contents(source, "Secret", namespace, reference), reference), _mode(reference))
    if "downwardAPI" in volume:
        reference = volume["downwardAPI"]
        return Files(_fields(pod, reference, ip), _mode(reference))
    if "projected" in volume:
        files: dict[str, bytes] = {}
        for each in d.parts(volume["projected"], "sources"):
            files |= _projected(pod, each, source, ip)
        return Files(files, _mode(volume["projected"]))
    kind = next((field for field in volume if field != "name"), "nothing")
    raise ConfigError(f"volume {volume['name']} is of kind {kind}, which a local mesh does not have")


def _projected(pod: Json, each: Json, source: Source, ip: str) -> dict[str, bytes]:
    for kind, field in (("ConfigMap", "configMap"), ("Secret", "secret")):
        if field in each:
            return _items(contents(source, kind, d.namespace(pod), each[field]), each[field])
    if "downwardAPI" in each:
        return _fields(pod, each["downwardAPI"], ip)
    raise ConfigError(f"a projected volume contains {', '.join(each)}, which a local mesh does not have")


def _items(found: Mapping[str, bytes], reference: Json) -> dict[str, bytes]:
    """The entries as files: all under their keys, or those listed under their paths."""
    if "items" not in reference:
        return dict(found)
    missing = [item["key"] for item in reference["items"] if item["key"] not in found]
    if missing and not reference.get("optional"):
        raise ConfigError(f"{reference.get('name') or reference.get('secretName')} has no key {missing[0]}")
    return {item["path"]: found[item["key"]] for item in reference["items"] if item["key"] in found}


def _fields(pod: Json, reference: Json, ip: str) -> dict[str, bytes]:
    return {
        item["path"]: field_value(pod, item["fieldRef"]["fieldPath"], ip).encode()
        for item in d.parts(reference, "items")
        if "fieldRef" in item
    }


def _mode(reference: Mapping[str, Any]) -> int:
    mode = reference.get("defaultMode")
    return mode if isinstance(mode, int) else 0o644
