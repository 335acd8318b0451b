"""Volumes of a Pod (core v1). Storage that only a cluster can give is kept as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lateen.api.core.container import ObjectFieldSelector, ResourceFieldSelector
from lateen.api.core.selectors import LabelSelector
from lateen.api.struct import NonEmpty, Struct, field
from lateen.lib.quantities import Quantity


class KeyToPath(Struct, frozen=True):
    """The file that a key becomes."""

    key: str
    path: str
    mode: int | None = None


class ConfigMapVolumeSource(Struct, frozen=True):
    """The keys of a ConfigMap as files."""

    default_mode: int | None = None
    items: tuple[KeyToPath, ...] = ()
    name: str = ""
    optional: bool | None = None


class SecretVolumeSource(Struct, frozen=True):
    """The keys of a Secret as files."""

    default_mode: int | None = None
    items: tuple[KeyToPath, ...] = ()
    optional: bool | None = None
    secret_name: str = ""


class EmptyDirVolumeSource(Struct, frozen=True):
    """A directory that lives as long as the Pod."""

    medium: str | None = None
    size_limit: Quantity | None = None


class HostPathVolumeSource(Struct, frozen=True):
    """A path of the machine."""

    path: str
    type: str | None = None


class DownwardAPIVolumeFile(Struct, frozen=True):
    """A file with a field of the Pod."""

    path: str
    field_ref: ObjectFieldSelector | None = None
    mode: int | None = None
    resource_field_ref: ResourceFieldSelector | None = None


class DownwardAPIVolumeSource(Struct, frozen=True):
    """Files with fields of the Pod."""

    default_mode: int | None = None
    items: tuple[DownwardAPIVolumeFile, ...] = ()


class SecretProjection(Struct, frozen=True):
    """A Secret in a projected volume."""

    items: tuple[KeyToPath, ...] = ()
    name: str = ""
    optional: bool | None = None


class ConfigMapProjection(Struct, frozen=True):
    """A ConfigMap in a projected volume."""

    items: tuple[KeyToPath, ...] = ()
    name: str = ""
    optional: bool | None = None


class DownwardAPIProjection(Struct, frozen=True):
    """Fields of the Pod in a projected volume."""

    items: tuple[DownwardAPIVolumeFile, ...] = ()


class ServiceAccountTokenProjection(Struct, frozen=True):
    """A token of the Pod's ServiceAccount in a projected volume."""

    path: str
    audience: str | None = None
    expiration_seconds: int | None = None


class ClusterTrustBundleProjection(Struct, frozen=True):
    """Trust anchors in a projected volume."""

    path: str
    label_selector: LabelSelector | None = None
    name: str | None = None
    optional: bool | None = None
    signer_name: str | None = None


class VolumeProjection(Struct, frozen=True):
    """One source of a projected volume."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("clusterTrustBundle", "configMap", "downwardAPI", "podCertificate", "secret", "serviceAccountToken"),
    )

    cluster_trust_bundle: ClusterTrustBundleProjection | None = None
    config_map: ConfigMapProjection | None = None
    downward_api: DownwardAPIProjection | None = field(default=None, name="downwardAPI")
    pod_certificate: Mapping[str, Any] | None = None
    secret: SecretProjection | None = None
    service_account_token: ServiceAccountTokenProjection | None = None


class ProjectedVolumeSource(Struct, frozen=True):
    """Several sources in one directory."""

    default_mode: int | None = None
    sources: tuple[VolumeProjection, ...] = ()


class PersistentVolumeClaimVolumeSource(Struct, frozen=True):
    """A claim of storage that outlives the Pod."""

    claim_name: str
    read_only: bool | None = None


class Volume(Struct, frozen=True):
    """A directory that containers of the Pod can mount."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (
        (
            "configMap",
            "csi",
            "downwardAPI",
            "emptyDir",
            "ephemeral",
            "hostPath",
            "image",
            "iscsi",
            "nfs",
            "persistentVolumeClaim",
            "projected",
            "secret",
        ),
    )

    name: NonEmpty
    config_map: ConfigMapVolumeSource | None = None
    csi: Mapping[str, Any] | None = None
    downward_api: DownwardAPIVolumeSource | None = field(default=None, name="downwardAPI")
    empty_dir: EmptyDirVolumeSource | None = None
    ephemeral: Mapping[str, Any] | None = None
    host_path: HostPathVolumeSource | None = None
    image: Mapping[str, Any] | None = None
    iscsi: Mapping[str, Any] | None = None
    nfs: Mapping[str, Any] | None = None
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    projected: ProjectedVolumeSource | None = None
    secret: SecretVolumeSource | None = None
