"""What is wrong with the mesh configuration, which is text inside of a ConfigMap.

Wrong types and values are errors: the mesh would fall back to its defaults. A field that lateen does not know is
only pointed out, because Istio's has many more; a field it knows and does nothing with as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import msgspec

from lateen.api.codec import decode_as
from lateen.api.core.config_map import ConfigMap
from lateen.api.mesh.config import MESH_CONFIG_NAME, ROOT_NAMESPACE, MeshConfig, TrafficPolicyMode
from lateen.api.mesh.security import security_problems
from lateen.api.problems import Problem, at, warning
from lateen.api.shape import Faults, check_struct
from lateen.lib.yaml import Path, YamlError, format_path, value

KEY: Final = "mesh"
NOT_THERE: Final = "LTN0001"

PROXY_FIELDS: Final = ("concurrency", "drainDuration", "proxyMetadata", "terminationDrainDuration")
"""Fields of `defaultConfig` that the annotation of a Pod may set too."""
IMPLEMENTED: Final = frozenset(
    {
        "accessLogEncoding",
        "accessLogFile",
        "accessLogFormat",
        "caCertificates",
        "clusterDomain",
        "countRequests",
        "discovery",
        "connectTimeout",
        "defaultConfig.gatewayTopology",
        *(f"defaultConfig.{each}" for each in PROXY_FIELDS),
        "defaultDestinationRuleExportTo",
        "defaultHttpRetryPolicy",
        "defaultServiceExportTo",
        "defaultTrafficPolicy",
        "defaultVirtualServiceExportTo",
        "dnsRefreshRate",
        "enableAutoMtls",
        "h2UpgradePolicy",
        "localityLbSetting",
        "meshMTLS",
        "outboundTrafficPolicy",
        "pathNormalization",
        "protocolDetectionTimeout",
        "rootNamespace",
        "tcpKeepalive",
        "tlsDefaults",
        "trustDomain",
        "trustDomainAliases",
        "zoneAwareLbSetting",
    }
)
"""Fields that lateen does something with; a dot leads inside of one."""


def is_mesh_config(namespace: str, name: str) -> bool:
    """True for the ConfigMap that holds the mesh configuration."""
    return (namespace, name) == (ROOT_NAMESPACE, MESH_CONFIG_NAME)


def mesh_problems(subject: ConfigMap) -> Iterator[Problem]:
    """What is wrong with the configuration in key `mesh`; the places inside are named in the messages."""
    text = subject.data.get(KEY)
    if text is None:
        return
    place = at("data", KEY)
    try:
        raw = value(text).raw
    except YamlError as error:
        found = error.findings[0]
        where = f"line {found.position.line}: " if found.position else ""
        yield Problem(place, f"{where}{found.message}", found.remedy)
        return
    if raw is None:
        return
    if not isinstance(raw, dict):
        yield Problem(place, "the configuration must be a mapping of fields", "write field: value")
        return
    faults: Faults = []
    check_struct(MeshConfig, raw, (), faults)
    for fault in faults:
        message = f"{format_path(fault.path)}: {fault.message}"
        if fault.unknown:
            yield warning(place, message, fault.remedy, NOT_THERE)
        else:
            yield Problem(place, message, fault.remedy)
    if all(fault.unknown for fault in faults):
        config = decode_as(raw, MeshConfig)
        for each in (*security_problems(config), *_outbound_problems(config.outbound_traffic_policy)):
            yield msgspec.structs.replace(each, path=place, message=f"{each.path}: {each.message}")
    unknown = {fault.path for fault in faults}
    for path in _without_effect(cast("dict[str, Any]", raw), ()):
        if path not in unknown:
            yield warning(place, f"{format_path(path)} is not implemented yet and has no effect", code=NOT_THERE)


def _outbound_problems(policy: TrafficPolicyMode) -> Iterator[Problem]:
    tls, place = policy.tls, "outboundTrafficPolicy.tls"
    if tls is None:
        return
    if policy.mode != "ALLOW_ANY_DYNAMIC_DNS":
        yield Problem(place, f"mode {policy.mode} leaves traffic as it is", "set mode: ALLOW_ANY_DYNAMIC_DNS")
    if tls.mode not in ("SIMPLE", "MUTUAL"):
        yield Problem(f"{place}.mode", "hosts outside of the mesh have no certificate of it", "use SIMPLE or MUTUAL")
    if tls.credential_name:
        yield Problem(f"{place}.credentialName", "sidecars get no Secrets by the mesh's word", "use files")


def _without_effect(raw: Mapping[str, Any], base: Path) -> Iterator[Path]:
    for name, inner in raw.items():
        path = (*base, name)
        dotted = ".".join(map(str, path))
        if dotted in IMPLEMENTED:
            continue
        if isinstance(inner, dict) and any(each.startswith(f"{dotted}.") for each in IMPLEMENTED):
            yield from _without_effect(cast("dict[str, Any]", inner), path)
        else:
            yield path
