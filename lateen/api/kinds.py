"""The registry of kinds: what a document's `apiVersion` and `kind`, or a word on the command line, stand for.

Adding a kind is adding a type and one row here. `UNSUPPORTED` names kinds that exist elsewhere and that people
will try, so that the answer to them is better than "unknown".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType

import msgspec

from lateen.api.core.access import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from lateen.api.core.config_map import ConfigMap
from lateen.api.core.cron_job import CronJob
from lateen.api.core.custom_resource_definition import CustomResourceDefinition
from lateen.api.core.daemon_set import DaemonSet
from lateen.api.core.deployment import Deployment
from lateen.api.core.endpoint_slice import EndpointSlice
from lateen.api.core.event import Event
from lateen.api.core.event_v1 import EventV1
from lateen.api.core.horizontal_pod_autoscaler import HorizontalPodAutoscaler
from lateen.api.core.horizontal_pod_autoscaler_v1 import HorizontalPodAutoscalerV1
from lateen.api.core.job import Job
from lateen.api.core.lease import Lease
from lateen.api.core.namespace import Namespace
from lateen.api.core.node import Node
from lateen.api.core.pod import Pod
from lateen.api.core.replica_set import ReplicaSet
from lateen.api.core.secret import Secret
from lateen.api.core.service import Service
from lateen.api.core.service_account import ServiceAccount
from lateen.api.core.stateful_set import StatefulSet
from lateen.api.core.webhook_configuration import MutatingWebhookConfiguration, ValidatingWebhookConfiguration
from lateen.api.istio.authorization_policy import AuthorizationPolicy
from lateen.api.istio.destination_rule import DestinationRule
from lateen.api.istio.envoy_filter import EnvoyFilter
from lateen.api.istio.gateway import Gateway
from lateen.api.istio.peer_authentication import PeerAuthentication
from lateen.api.istio.proxy_config import ProxyConfig
from lateen.api.istio.request_authentication import RequestAuthentication
from lateen.api.istio.service_entry import ServiceEntry
from lateen.api.istio.sidecar import Sidecar
from lateen.api.istio.telemetry import Telemetry
from lateen.api.istio.traffic_extension import TrafficExtension
from lateen.api.istio.virtual_service import VirtualService
from lateen.api.istio.wasm_plugin import WasmPlugin
from lateen.api.istio.workload_entry import WorkloadEntry
from lateen.api.istio.workload_group import WorkloadGroup
from lateen.api.struct import Object


class Kind(msgspec.Struct, frozen=True):
    """One kind. `versions` are all that are read, the stored one first; an empty group is core. `status` and `scale`
    are the parts that have paths of their own in the API; `categories` are words for several kinds at once."""

    type: type[Object]
    versions: tuple[str, ...]
    plural: str
    short_names: tuple[str, ...] = ()
    namespaced: bool = True
    status: bool = True
    scale: bool = False
    categories: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        return self.type.GROUP

    @property
    def kind(self) -> str:
        return self.type.KIND

    @property
    def singular(self) -> str:
        return self.type.KIND.lower()

    @property
    def api_version(self) -> str:
        """The stored version as documents write it: `networking.istio.io/v1`, `v1` for core."""
        return self.api_versions[0]

    @property
    def api_versions(self) -> tuple[str, ...]:
        return tuple(f"{self.group}/{version}" if self.group else version for version in self.versions)


_V1 = ("v1", "v1beta1", "v1alpha3")
_SECURITY = ("v1", "v1beta1")

KINDS: tuple[Kind, ...] = (
    Kind(Namespace, ("v1",), "namespaces", ("ns",), namespaced=False),
    Kind(Node, ("v1",), "nodes", ("no",), namespaced=False),
    Kind(ServiceAccount, ("v1",), "serviceaccounts", ("sa",), status=False),
    Kind(ConfigMap, ("v1",), "configmaps", ("cm",), status=False),
    Kind(Secret, ("v1",), "secrets", status=False),
    Kind(Service, ("v1",), "services", ("svc",), categories=("all",)),
    Kind(EndpointSlice, ("v1",), "endpointslices", status=False),
    Kind(Pod, ("v1",), "pods", ("po",), categories=("all",)),
    Kind(Event, ("v1",), "events", ("ev",), status=False),
    Kind(Deployment, ("v1",), "deployments", ("deploy",), categories=("all",), scale=True),
    Kind(ReplicaSet, ("v1",), "replicasets", ("rs",), categories=("all",), scale=True),
    Kind(StatefulSet, ("v1",), "statefulsets", ("sts",), categories=("all",), scale=True),
    Kind(DaemonSet, ("v1",), "daemonsets", ("ds",), categories=("all",)),
    Kind(Job, ("v1",), "jobs", categories=("all",)),
    Kind(CronJob, ("v1",), "cronjobs", ("cj",), categories=("all",)),
    Kind(HorizontalPodAutoscaler, ("v2",), "horizontalpodautoscalers", ("hpa",), categories=("all",)),
    Kind(Lease, ("v1",), "leases", status=False),
    Kind(Role, ("v1",), "roles", status=False),
    Kind(ClusterRole, ("v1",), "clusterroles", namespaced=False, status=False),
    Kind(RoleBinding, ("v1",), "rolebindings", status=False),
    Kind(ClusterRoleBinding, ("v1",), "clusterrolebindings", namespaced=False, status=False),
    Kind(CustomResourceDefinition, ("v1",), "customresourcedefinitions", ("crd", "crds"), namespaced=False),
    Kind(MutatingWebhookConfiguration, ("v1",), "mutatingwebhookconfigurations", namespaced=False, status=False),
    Kind(ValidatingWebhookConfiguration, ("v1",), "validatingwebhookconfigurations", namespaced=False, status=False),
    Kind(VirtualService, _V1, "virtualservices", ("vs",)),
    Kind(DestinationRule, _V1, "destinationrules", ("dr",)),
    Kind(Gateway, _V1, "gateways", ("gw",)),
    Kind(ServiceEntry, _V1, "serviceentries", ("se",)),
    Kind(WorkloadEntry, _V1, "workloadentries", ("we",)),
    Kind(WorkloadGroup, _V1, "workloadgroups", ("wg",)),
    Kind(Sidecar, _V1, "sidecars"),
    Kind(EnvoyFilter, ("v1alpha3",), "envoyfilters"),
    Kind(ProxyConfig, ("v1beta1",), "proxyconfigs"),
    Kind(PeerAuthentication, _SECURITY, "peerauthentications", ("pa",)),
    Kind(RequestAuthentication, _SECURITY, "requestauthentications", ("ra",)),
    Kind(AuthorizationPolicy, _SECURITY, "authorizationpolicies", ("ap",)),
    Kind(Telemetry, ("v1alpha1", "v1"), "telemetries", ("telemetry",)),
    Kind(WasmPlugin, ("v1alpha1",), "wasmplugins"),
    Kind(TrafficExtension, ("v1alpha1",), "trafficextensions"),
)

VIEWS: tuple[Kind, ...] = (
    Kind(HorizontalPodAutoscalerV1, ("v1",), "horizontalpodautoscalers", ("hpa",), categories=("all",)),
    Kind(EventV1, ("v1",), "events", ("ev",), status=False),
)
"""Versions with a shape of their own, of kinds that are stored as one above."""

UNSUPPORTED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "": (
            "Binding",
            "Endpoints",
            "LimitRange",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "PodTemplate",
            "ReplicationController",
            "ResourceQuota",
        ),
        "apps": ("ControllerRevision",),
        "policy": ("PodDisruptionBudget",),
        "networking.k8s.io": ("Ingress", "IngressClass", "NetworkPolicy"),
        "admissionregistration.k8s.io": ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
        "gateway.networking.k8s.io": (
            "BackendTLSPolicy",
            "Gateway",
            "GatewayClass",
            "GRPCRoute",
            "HTTPRoute",
            "ListenerSet",
            "ReferenceGrant",
            "TCPRoute",
            "TLSRoute",
            "UDPRoute",
        ),
        "gateway.networking.x-k8s.io": ("XBackend", "XBackendTrafficPolicy", "XListenerSet", "XMesh"),
        "install.istio.io": ("IstioOperator",),
    }
)
"""Kinds by group that lateen knows of and does not take."""


def by_api(api_version: str, kind: str) -> Kind | None:
    """The kind of a document's `apiVersion` and `kind`, None when there is no such kind or version."""
    return _by_api().get((api_version, kind))


def by_group(group: str, kind: str) -> Kind | None:
    """The kind of a group, whatever the version."""
    return _by_group().get((group, kind))


def by_name(name: str) -> Kind | None:
    """The kind a person means: `vs`, `virtualservice`, `VirtualServices`, `virtualservices.networking.istio.io`."""
    return _by_name().get(name.lower())


def names(kind: Kind) -> Iterator[str]:
    """Every word that stands for a kind."""
    for word in (kind.plural, kind.singular, *kind.short_names):
        yield word
        if kind.group:
            yield f"{word}.{kind.group}"


@cache
def _by_api() -> dict[tuple[str, str], Kind]:
    return {(version, kind.kind): kind for kind in (*KINDS, *VIEWS) for version in kind.api_versions}


@cache
def _by_group() -> dict[tuple[str, str], Kind]:
    return {(kind.group, kind.kind): kind for kind in KINDS}


@cache
def _by_name() -> dict[str, Kind]:
    return {name: kind for kind in KINDS for name in names(kind)}
