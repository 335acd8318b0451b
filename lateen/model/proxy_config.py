"""Settings of a proxy itself, from the widest to the narrowest source: the mesh's `defaultConfig`, the ProxyConfig of
the root namespace, that of the namespace, that of the workload, the annotation `proxy.istio.io/config`.

Each field is decided by itself: what a narrower source leaves out, a wider one says. Environment variables and
`proxyMetadata` are one mapping, merged name by name. Of several ProxyConfigs of one rank the oldest counts.

Source: https://istio.io/latest/docs/reference/config/networking/proxy-config/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import yaml

from lateen.api.codec import DecodeError, decode_as
from lateen.api.istio.proxy_config import ProxyConfig, is_variable
from lateen.api.mesh.config import MeshProxyConfig
from lateen.api.objects import get, in_namespace, selects
from lateen.engine import Q
from lateen.lib.ids import Ref
from lateen.model.mesh import default_proxy_config, root_namespace
from lateen.model.policy_attachment import oldest_first
from lateen.model.workloads import Labels

ANNOTATION = "proxy.istio.io/config"
METADATA_PREFIX = "ISTIO_META_"
"""A variable of this prefix is a field of the proxy's node metadata too, by the rest of its name."""


class ProxySettings(msgspec.Struct, frozen=True):
    """One proxy's settings. None: the platform's own. `concurrency` 0 means a thread for each processor."""

    concurrency: int | None = None
    environment: tuple[tuple[str, str], ...] = ()
    drain_s: float | None = None
    termination_drain_s: float | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """The fields of node metadata that variables stand for."""
        return {
            name.removeprefix(METADATA_PREFIX): value
            for name, value in self.environment
            if name.startswith(METADATA_PREFIX) and name != METADATA_PREFIX
        }


def proxy_settings(q: Q, namespace: str, labels: Labels, annotation: str) -> ProxySettings:
    """The settings of a proxy of those labels; `annotation` is the text of its Pod's, may be empty or no good."""
    mesh = q(default_proxy_config)
    found = [_of_config(mesh)]
    for ref in q(proxy_configs, namespace, labels):
        each = get(q, ProxyConfig, ref.namespace, ref.name)
        if each is not None:
            variables = tuple(each.spec.environment_variables.items())
            found.append(ProxySettings(each.spec.concurrency, variables))
    found.append(_of_config(annotated(annotation).config))
    return _merged(found)


def proxy_configs(q: Q, namespace: str, labels: Labels) -> tuple[Ref, ...]:
    """The ProxyConfigs that apply to a workload, the widest first: at most one of each rank."""
    root = q(root_namespace)
    have = dict(labels)
    found: list[Ref] = []
    if namespace != root:
        found += [ref for ref, selector in q(_ranked, root) if not selector][:1]
    own = q(_ranked, namespace)
    found += [ref for ref, selector in own if not selector][:1]
    found += [ref for ref, selector in own if selector and selects(dict(selector), have)][:1]
    return tuple(found)


class Annotated(msgspec.Struct, frozen=True):
    """What a Pod's annotation says: its fields by name, and what is wrong with it (then it says nothing)."""

    config: MeshProxyConfig = MeshProxyConfig()
    fields: tuple[str, ...] = ()
    problem: str = ""


def annotated(text: str) -> Annotated:
    """The annotation as read."""
    try:
        raw: Any = yaml.load(text, yaml.CSafeLoader) or {}
        return Annotated(decode_as(raw, MeshProxyConfig), tuple(raw))
    except yaml.YAMLError as error:
        return Annotated(problem=" ".join(str(error).split())[:200])
    except DecodeError as error:
        return Annotated(problem=str(error)[:200])


def _of_config(config: MeshProxyConfig) -> ProxySettings:
    return ProxySettings(
        config.concurrency,
        tuple(config.proxy_metadata.items()),
        config.drain_duration.seconds if config.drain_duration is not None else None,
        config.termination_drain_duration.seconds if config.termination_drain_duration is not None else None,
    )


def _merged(settings: Iterable[ProxySettings]) -> ProxySettings:
    concurrency: int | None = None
    environment: dict[str, str] = {}
    drain_s = termination_drain_s = None
    for each in settings:
        concurrency = each.concurrency if each.concurrency is not None else concurrency
        environment |= {name: value for name, value in each.environment if is_variable(name)}
        drain_s = each.drain_s if each.drain_s is not None else drain_s
        termination_drain_s = each.termination_drain_s if each.termination_drain_s is not None else termination_drain_s
    return ProxySettings(concurrency, tuple(sorted(environment.items())), drain_s, termination_drain_s)


def _ranked(q: Q, namespace: str) -> tuple[tuple[Ref, Labels], ...]:
    return tuple((each.ref, _selector(each)) for each in oldest_first(in_namespace(q, ProxyConfig, namespace)))


def _selector(each: ProxyConfig) -> Labels:
    labels: Mapping[str, str] = each.spec.selector.match_labels if each.spec.selector is not None else {}
    return tuple(sorted(labels.items()))
