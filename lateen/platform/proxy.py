"""The Envoy of a Pod on the local platform: its bootstrap, and the program that the Pod's init runs."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from lateen.api.struct import Json
from lateen.lib.layout import Layout
from lateen.model.proxy_config import ProxySettings
from lateen.node import bootstrap as envoy
from lateen.platform.controllers import documents as d
from lateen.platform.pod import Proxy
from lateen.platform.process import open_files
from lateen.platform.settings import PlatformSettings
from lateen.platform.translate import Injection

DRAIN_S = 5
"""How long a proxy drains when nobody says otherwise: connections of listeners that were replaced, and at its end."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What every Pod's proxy is told of the mesh. `drain_s`: between leaving the endpoints and SIGTERM."""

    node_name: str
    layout: Layout
    envoy_binary: Path
    platform: PlatformSettings = PlatformSettings()
    trust_domain: str = "cluster.local"
    drain_s: float = 1.0


def envoy_of(facts: Facts, pod: Json, injected: Injection, address: str, settings: ProxySettings) -> Proxy:
    """The proxy of a Pod at an address; its bootstrap is written to the Pod's directory."""
    directory = facts.layout.pod(d.uid(pod))
    owner = d.owner(pod)
    spec = envoy.BootstrapSpec(
        pod=d.name(pod),
        namespace=d.namespace(pod),
        ip=address,
        xds=envoy.XdsAddress(path=str(facts.layout.xds_socket)),
        sds_path=str(directory / "sds.sock"),
        admin_path=str(directory / "admin.sock"),
        kind=injected.kind,
        service_account=d.spec(pod).get("serviceAccountName") or "default",
        labels=d.labels(pod),
        annotations=d.annotations_of(pod),
        workload=owner["name"] if owner else d.name(pod),
        node_name=facts.node_name,
        locality=envoy.labelled_locality(d.labels(pod)),
        trust_domain=facts.trust_domain,
        domain=facts.platform.cluster_domain,
        host_sockets={port: str(directory / f"gw-{port}.sock") for port in injected.ports},
        resolver=f"{facts.platform.gateway}:{facts.platform.proxy_dns_port}",
        open_files=open_files(),
        concurrency=(os.cpu_count() or 1) if settings.concurrency == 0 else settings.concurrency or 1,
        drain_s=DRAIN_S if settings.drain_s is None else round(settings.drain_s),
        metadata=settings.metadata,
    )
    config = directory / "envoy.json"
    envoy.write_bootstrap(spec, config)
    return Proxy(
        argv=tuple(envoy.argv(spec, facts.envoy_binary, config)),
        env=dict(settings.environment),
        paths=(str(directory), str(facts.layout.xds_socket.parent)),
        admin_socket=spec.admin_path,
        drain_s=DRAIN_S if settings.termination_drain_s is None else settings.termination_drain_s,
    )
