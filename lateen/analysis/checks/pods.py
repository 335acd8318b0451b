"""Checks of what is to run: Pods, and the templates of Deployments and Jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lateen.analysis.check import Check, Said, check
from lateen.analysis.lookup import config_map_keys, key, secret_keys
from lateen.api.core.container import Container
from lateen.api.core.deployment import Deployment
from lateen.api.core.job import Job
from lateen.api.core.pod import Pod, PodSpec
from lateen.api.istio.proxy_config import is_variable
from lateen.api.mesh.check import PROXY_FIELDS
from lateen.api.problems import at
from lateen.api.struct import Object, ObjectMeta
from lateen.engine import Q
from lateen.intent.route_table import locked
from lateen.lib.findings import Level
from lateen.model.proxy_config import ANNOTATION, annotated
from lateen.model.visibility import client_of

_TEMPLATES = "inject.istio.io/templates"
_INJECT = "sidecar.istio.io/inject"
_EXCLUSIONS = tuple(f"traffic.sidecar.istio.io/exclude{each}" for each in ("OutboundPorts", "OutboundIPRanges"))

Look = tuple[str, str, ObjectMeta, PodSpec]
"""A namespace, the path of a Pod's spec inside of an object, the Pod's metadata and spec."""


def _without_command(q: Q, look: Look) -> Iterator[Said]:
    """The local platform runs containers as processes of this machine. There are no images here, so only `command`
    can say which program that is; a container without one cannot be started, and its Pod stays pending.

        containers:
        - name: web
          image: nginx        # says nothing here
          command: [nginx, -g, "daemon off;"]

    Set `command`. A gateway's own proxy needs none (image `auto` and the annotation
    `inject.istio.io/templates: gateway`).
    """
    base, metadata, spec = look[1:]
    gateway = "gateway" in metadata.annotations.get(_TEMPLATES, "").split(",")
    for path, container in _containers(base, spec):
        proxy = gateway and (container.name == "istio-proxy" or container.image == "auto")
        if not container.command and not proxy:
            yield Said(path, f"container {container.name} has no command, so it cannot run here", "set command")


def _missing_value(q: Q, look: Look) -> Iterator[Said]:
    """A variable or a volume takes its value from a ConfigMap or Secret that is not there, or that lacks the key. The
    container waits until it is.

    Create it in the namespace of the Pod, or mark the reference `optional: true`.
    """
    namespace, base, spec = look[0], look[1], look[3]
    for path, kind, name, entry, optional in _references(base, spec):
        keys = q(secret_keys if kind == "Secret" else config_map_keys, namespace, name)
        if optional or not name:
            continue
        if keys is None:
            yield Said(path, f"there is no {kind} {namespace}/{name}", "create it")
        elif entry and entry not in keys:
            yield Said(path, f"{kind} {namespace}/{name} has no key {entry}", f"it has {', '.join(keys) or 'none'}")


def _around_a_lock(q: Q, look: Look) -> Iterator[Said]:
    """The mesh (or the Sidecar that applies) lets this workload call known hosts only (REGISTRY_ONLY), and the Pod's
    annotations have its sidecar leave some traffic alone. That traffic would go past every rule, so the Pod's own
    network refuses it: nothing but the proxy opens connections that leave the Pod.

        annotations: {traffic.sidecar.istio.io/excludeOutboundPorts: "3306"}

    Remove the annotation, and name what is called in a ServiceEntry.
    """
    namespace, base, metadata, _ = look
    client = q(client_of, namespace, key(metadata.labels), False)
    for name in _EXCLUSIONS if q(locked, client) else ():
        if metadata.annotations.get(name):
            place = base.removesuffix("spec") + at("metadata", "annotations", name)
            remedy = "remove it, and name what is called in a ServiceEntry"
            yield Said(place, "only known hosts may be called from here: what it excludes is refused", remedy)


def _without_a_proxy(q: Q, look: Look) -> Iterator[Said]:
    """The mesh (or the Sidecar that applies) lets this workload call known hosts only (REGISTRY_ONLY), and the Pod has
    no proxy that knows them. Its own network lets it reach nothing outside of the mesh, by any name. The Pods and
    Services of the mesh it does reach, in the clear and unnamed: there the servers decide.

        labels: {sidecar.istio.io/inject: "false"}

    Give it a proxy, or have servers refuse who shows no certificate (PeerAuthentication, mode STRICT).
    """
    namespace, base, metadata, _ = look
    label = metadata.labels.get(_INJECT)
    declined = (label or metadata.annotations.get(_INJECT) or "").lower() == "false"
    gateway = "gateway" in metadata.annotations.get(_TEMPLATES, "").split(",")
    if declined and not gateway and q(locked, q(client_of, namespace, key(metadata.labels), False)):
        place = base.removesuffix("spec") + at("metadata", "labels" if label else "annotations", _INJECT)
        message = "only known hosts may be called from here, and without a proxy it reaches every Pod and Service"
        yield Said(place, message, "give it a proxy, or let servers ask for certificates: PeerAuthentication, STRICT")


def _own_settings(q: Q, look: Look) -> Iterator[Said]:
    """The annotation `proxy.istio.io/config` sets fields of one proxy. What cannot be read has no effect at all; a
    field that lateen does nothing with has none either.

        annotations: {proxy.istio.io/config: "concurrency: 2"}

    The fields are `concurrency`, `proxyMetadata`, `drainDuration` and `terminationDrainDuration`.
    """
    text = look[2].annotations.get(ANNOTATION, "")
    place = look[1].removesuffix("spec") + at("metadata", "annotations", ANNOTATION)
    said = annotated(text)
    if said.problem:
        yield Said(place, f"it has no effect: {said.problem}", "correct it")
    for name in said.fields:
        if name not in PROXY_FIELDS:
            yield Said(place, f"{name} has no effect here", f"fields with an effect: {', '.join(PROXY_FIELDS)}")
    for name in said.config.proxy_metadata:
        if not is_variable(name):
            yield Said(place, f"{name[:80]} cannot be set for a proxy", "use letters, digits and _")


def _containers(base: str, spec: PodSpec) -> Iterator[tuple[str, Container]]:
    for field, containers in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for index, container in enumerate(containers):
            yield f"{base}.{at(field, index)}", container


def _references(base: str, spec: PodSpec) -> Iterator[tuple[str, str, str, str, bool]]:
    """Path, kind, name, key (or nothing) and whether it may be absent, of all references to values."""
    for path, container in _containers(base, spec):
        for index, variable in enumerate(container.env):
            source = variable.value_from
            if source is None:
                continue
            for field, kind, said in (
                ("configMapKeyRef", "ConfigMap", source.config_map_key_ref),
                ("secretKeyRef", "Secret", source.secret_key_ref),
            ):
                if said is not None:
                    place = f"{path}.{at('env', index, 'valueFrom', field)}"
                    yield place, kind, said.name, said.key, bool(said.optional)
        for index, source in enumerate(container.env_from):
            for field, kind, said in (
                ("configMapRef", "ConfigMap", source.config_map_ref),
                ("secretRef", "Secret", source.secret_ref),
            ):
                if said is not None:
                    yield f"{path}.{at('envFrom', index, field)}", kind, said.name, "", bool(said.optional)
    for index, volume in enumerate(spec.volumes):
        if volume.config_map is not None:
            place = f"{base}.{at('volumes', index, 'configMap')}"
            yield place, "ConfigMap", volume.config_map.name, "", bool(volume.config_map.optional)
        if volume.secret is not None:
            place = f"{base}.{at('volumes', index, 'secret')}"
            yield place, "Secret", volume.secret.secret_name, "", bool(volume.secret.optional)


def _of_pod(subject: Pod) -> Look:
    return subject.namespace, "spec", subject.metadata, subject.spec


def _of_template(subject: Deployment | Job) -> Look:
    template = subject.spec.template
    return subject.namespace, "spec.template.spec", template.metadata, template.spec


def _each(code: str, title: str, look_at: Callable[[Q, Look], Iterator[Said]]) -> Iterator[Check]:
    """A check of Pods, Deployments and Jobs. A Pod that something made is checked where it comes from."""

    def of_pod(q: Q, subject: Object) -> Iterator[Said]:
        if isinstance(subject, Pod) and not subject.metadata.owner_references:
            yield from look_at(q, _of_pod(subject))

    def of_template(q: Q, subject: Object) -> Iterator[Said]:
        if isinstance(subject, (Deployment, Job)):
            yield from look_at(q, _of_template(subject))

    for kind, run in ((Pod, of_pod), (Deployment, of_template), (Job, of_template)):
        run.__doc__ = look_at.__doc__
        yield check(code, Level.WARNING, title, kind)(run)


CHECKS: tuple[Check, ...] = (
    *_each("LTN0106", "A container says no program", _without_command),
    *_each("LTN0107", "A value that a container needs is not there", _missing_value),
    *_each("LTN0260", "A sidecar is told to leave traffic alone where only known hosts may be called", _around_a_lock),
    *_each("LTN0271", "A Pod without a proxy where only known hosts may be called", _without_a_proxy),
    *_each("LTN0261", "Settings of a proxy have no effect", _own_settings),
)
