"""Coverage: Kubernetes' core kinds, as far as the local platform runs them."""

from collections.abc import Mapping
from typing import Final

_NO_IMAGES: Final = "there are no container images here; `command` says what is run"
_NO_CLUSTER: Final = "there is one machine to place Pods on"
_NOT_HERE: Final = "applications run without rights and with the state of the mesh hidden, whatever is asked for"

_HANDLERS: Final = ("exec.**", "httpGet.**", "tcpSocket.**")
_PROBE_TIMES: Final = (
    "failureThreshold",
    "initialDelaySeconds",
    "periodSeconds",
    "successThreshold",
    "terminationGracePeriodSeconds",
    "timeoutSeconds",
)
_CONTAINER: Final = (
    "name",
    "args.**",
    "command.**",
    "env[].name",
    "env[].value",
    "env[].valueFrom.configMapKeyRef.**",
    "env[].valueFrom.fieldRef.**",
    "env[].valueFrom.resourceFieldRef.**",
    "env[].valueFrom.secretKeyRef.**",
    "envFrom[].**",
    *(f"lifecycle.preStop.{handler}" for handler in (*_HANDLERS, "sleep.**")),
    *(
        f"{probe}.{part}"
        for probe in ("livenessProbe", "readinessProbe", "startupProbe")
        for part in (*_HANDLERS, *_PROBE_TIMES)
    ),
    "ports[].containerPort",
    "ports[].name",
    "ports[].protocol",
    "resources.limits.**",
    "resources.requests.**",
    "securityContext.runAsUser",
    "volumeMounts[].mountPath",
    "volumeMounts[].name",
    "volumeMounts[].readOnly",
    "volumeMounts[].subPath",
    "volumeMounts[].subPathExpr",
    "workingDir",
)
_POD: Final = (
    *(f"{place}[].{part}" for place in ("containers", "initContainers") for part in _CONTAINER),
    "activeDeadlineSeconds",
    "dnsConfig.**",
    "dnsPolicy=ClusterFirst|None",
    "hostAliases[].**",
    "hostname",
    "nodeName",
    "restartPolicy",
    "securityContext.runAsUser",
    "serviceAccount",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "volumes[].name",
    "volumes[].configMap.**",
    "volumes[].downwardAPI.**",
    "volumes[].emptyDir.**",
    "volumes[].hostPath.**",
    "volumes[].projected.**",
    "volumes[].secret.**",
)
_CONTAINER_NO_EFFECT: Final = {
    "image": _NO_IMAGES,
    "imagePullPolicy": _NO_IMAGES,
    "ports[].hostIP": "ports of Pods are reached through a gateway",
    "ports[].hostPort": "ports of Pods are reached through a gateway",
    "securityContext.allowPrivilegeEscalation": _NOT_HERE,
    "securityContext.capabilities": _NOT_HERE,
    "securityContext.privileged": _NOT_HERE,
    "securityContext.readOnlyRootFilesystem": _NOT_HERE,
    "securityContext.runAsGroup": "the group goes with the user",
    "securityContext.runAsNonRoot": _NOT_HERE,
    "securityContext.seccompProfile": _NOT_HERE,
    "terminationMessagePath": "the log says it",
    "terminationMessagePolicy": "the log says it",
}
_POD_NO_EFFECT: Final = {
    **{
        f"{place}[].{part}": reason
        for place in ("containers", "initContainers")
        for part, reason in _CONTAINER_NO_EFFECT.items()
    },
    "affinity": _NO_CLUSTER,
    "automountServiceAccountToken": "applications never get a token of the API",
    "enableServiceLinks": "services are found by name",
    "imagePullSecrets": _NO_IMAGES,
    "nodeSelector": _NO_CLUSTER,
    "preemptionPolicy": _NO_CLUSTER,
    "priority": _NO_CLUSTER,
    "priorityClassName": _NO_CLUSTER,
    "runtimeClassName": _NO_IMAGES,
    "schedulerName": _NO_CLUSTER,
    "securityContext.fsGroup": _NOT_HERE,
    "securityContext.runAsGroup": "the group goes with the user",
    "securityContext.runAsNonRoot": _NOT_HERE,
    "securityContext.seccompProfile": _NOT_HERE,
    "tolerations": _NO_CLUSTER,
    "topologySpreadConstraints": _NO_CLUSTER,
}


def _under(prefix: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{prefix}.{path}" for path in paths)


def _reasons(prefix: str) -> dict[str, str]:
    return {f"{prefix}.{path}": reason for path, reason in _POD_NO_EFFECT.items()}


_TEMPLATE: Final = ("spec.template.metadata.**", *_under("spec.template.spec", _POD))

IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "Namespace": ("spec",),
    "Node": ("spec.podCIDR", "spec.unschedulable"),
    "ServiceAccount": (),
    "ConfigMap": ("data.**", "binaryData.**", "immutable"),
    "Secret": ("data.**", "stringData.**", "type", "immutable"),
    "EndpointSlice": ("addressType=IPv4|IPv6", "endpoints[].**", "ports[].**"),
    "Service": (
        "spec.clusterIP",
        "spec.clusterIPs",
        "spec.externalName",
        "spec.internalTrafficPolicy",
        "spec.ports[].**",
        "spec.publishNotReadyAddresses",
        "spec.selector.**",
        "spec.sessionAffinity",
        "spec.trafficDistribution",
        "spec.type",
    ),
    "Pod": _under("spec", _POD),
    "Deployment": (
        "spec.minReadySeconds",
        "spec.paused",
        "spec.progressDeadlineSeconds",
        "spec.replicas",
        "spec.revisionHistoryLimit",
        "spec.selector.**",
        "spec.strategy.**",
        *_TEMPLATE,
    ),
    "ReplicaSet": ("spec.minReadySeconds", "spec.replicas", "spec.selector.**", *_TEMPLATE),
    "StatefulSet": (
        "spec.minReadySeconds",
        "spec.ordinals.**",
        "spec.podManagementPolicy",
        "spec.replicas",
        "spec.selector.**",
        "spec.serviceName",
        "spec.updateStrategy.rollingUpdate.partition",
        "spec.updateStrategy.type",
        *_TEMPLATE,
    ),
    "DaemonSet": ("spec.minReadySeconds", "spec.selector.**", "spec.updateStrategy.type", *_TEMPLATE),
    "CronJob": (
        "spec.concurrencyPolicy",
        "spec.failedJobsHistoryLimit",
        "spec.jobTemplate.metadata.**",
        "spec.jobTemplate.spec.**",
        "spec.schedule",
        "spec.startingDeadlineSeconds",
        "spec.successfulJobsHistoryLimit",
        "spec.suspend",
        "spec.timeZone",
    ),
    "HorizontalPodAutoscaler": (
        "spec.behavior.**",
        "spec.maxReplicas",
        "spec.metrics[].containerResource.**",
        "spec.metrics[].resource.**",
        "spec.metrics[].type=ContainerResource|Resource",
        "spec.minReplicas",
        "spec.scaleTargetRef.**",
    ),
    "Event": (
        "action",
        "count",
        "eventTime",
        "firstTimestamp",
        "involvedObject.**",
        "lastTimestamp",
        "message",
        "reason",
        "related.**",
        "reportingComponent",
        "reportingInstance",
        "series.**",
        "source.**",
        "type",
    ),
    "Lease": ("spec.**",),
    "Role": ("rules[].**",),
    "ClusterRole": ("rules[].**",),
    "RoleBinding": ("roleRef.**", "subjects[].**"),
    "ClusterRoleBinding": ("roleRef.**", "subjects[].**"),
    "CustomResourceDefinition": ("spec.**",),
    "MutatingWebhookConfiguration": ("webhooks[].**",),
    "ValidatingWebhookConfiguration": ("webhooks[].**",),
    "Job": (
        "spec.activeDeadlineSeconds",
        "spec.backoffLimit",
        "spec.completionMode",
        "spec.completions",
        "spec.parallelism",
        "spec.selector.**",
        "spec.suspend",
        "spec.ttlSecondsAfterFinished",
        *_TEMPLATE,
    ),
}

MISSING: Final[Mapping[str, tuple[str, ...]]] = {
    "EndpointSlice": ("endpoints[].hints",),
}

NO_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {
    "Namespace": {"spec.finalizers": "a namespace is gone when what is in it is"},
    "Node": {
        f"spec.{name}": "there is one machine, and the settings of the mesh say its addresses"
        for name in ("externalID", "podCIDRs", "providerID", "taints")
    },
    "ServiceAccount": {
        "automountServiceAccountToken": "applications never get a token of the API",
        "imagePullSecrets": _NO_IMAGES,
        "secrets": "tokens are short-lived and bound to a Pod",
    },
    "EndpointSlice": {"endpoints[].deprecatedTopology": "`zone` and the node's labels say it"},
    "Service": {
        "spec.allocateLoadBalancerNodePorts": "ports are opened on this machine by the settings of the mesh",
        "spec.externalTrafficPolicy": "ports are opened on this machine by the settings of the mesh",
        "spec.healthCheckNodePort": "ports are opened on this machine by the settings of the mesh",
        "spec.ipFamilies": "addresses are IPv4 here",
        "spec.ipFamilyPolicy": "addresses are IPv4 here",
        "spec.loadBalancerClass": "ports are opened on this machine by the settings of the mesh",
        "spec.loadBalancerIP": "ports are opened on this machine by the settings of the mesh",
        "spec.sessionAffinityConfig": "a client stays with its endpoint as long as the endpoints stay the same",
        "spec.ports[].nodePort": "ports are opened on this machine by the settings of the mesh",
    },
    "HorizontalPodAutoscaler": {
        f"spec.metrics[].{part}": "only what Pods use of the processor and of memory is measured here"
        for part in ("external", "object", "pods")
    },
    "Pod": _reasons("spec"),
    "Deployment": _reasons("spec.template.spec"),
    "ReplicaSet": _reasons("spec.template.spec"),
    "StatefulSet": {
        "spec.persistentVolumeClaimRetentionPolicy": "there are no claims of volumes here",
        "spec.revisionHistoryLimit": "former templates are in the history of the object",
        **_reasons("spec.template.spec"),
    },
    "DaemonSet": {
        "spec.revisionHistoryLimit": "former templates are in the history of the object",
        "spec.updateStrategy.rollingUpdate": _NO_CLUSTER,
        **_reasons("spec.template.spec"),
    },
    "Job": _reasons("spec.template.spec"),
}
