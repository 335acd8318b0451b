"""From a Pod's document to the PodSandbox that the local platform runs.

A container needs a `command`: there are no images here, so nothing says what to run otherwise. The one exception is
the image `auto` of a Pod with the annotation `inject.istio.io/templates: gateway`, whose container is the proxy.

Programs find the interpreter and tools of lateen's own environment first on PATH. A `workingDir` of this machine is
made visible to the container, as are hostPath volumes; nothing else of the user's files is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from lateen.api.struct import Json
from lateen.lib.quantities import parse_quantity
from lateen.platform.controllers import documents as d
from lateen.platform.environment import ConfigError, Source, expand, variables, volume
from lateen.platform.pod import (
    Container,
    Exec,
    HttpGet,
    Limits,
    Mount,
    PodSandbox,
    Probe,
    Proxy,
    Redirect,
    Restart,
    Sleep,
    TcpSocket,
)
from lateen.platform.view import PATH

PROXY_CONTAINER = "istio-proxy"
GRACE_S = 30
EAGER_PERIOD_S = 0.1
NEVER = 1 << 30


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """Which proxy a Pod gets: `kind` sidecar or router; `ports` are those a router offers to the machine."""

    kind: str
    redirect: Redirect | None = None
    ports: tuple[int, ...] = ()


def injection(pod: Json) -> Injection | None:
    """The proxy for this Pod, None when its label or annotation declines one."""
    labels, annotations = d.labels(pod), d.annotations_of(pod)
    if is_gateway(pod):
        ports = {
            port["containerPort"]
            for container in d.parts(d.spec(pod), "containers")
            for port in d.parts(container, "ports")
            if port.get("protocol", "TCP") == "TCP"
        }
        return Injection(kind="router", ports=tuple(sorted(ports)))
    asked = labels.get("sidecar.istio.io/inject") or annotations.get("sidecar.istio.io/inject") or "true"
    if asked.lower() == "false" or d.spec(pod).get("hostNetwork"):
        return None
    prefix = "traffic.sidecar.istio.io/"
    return Injection(
        kind="sidecar",
        redirect=Redirect(
            exclude_inbound_ports=_ports(annotations.get(f"{prefix}excludeInboundPorts")),
            exclude_outbound_ports=_ports(annotations.get(f"{prefix}excludeOutboundPorts")),
            exclude_outbound_ranges=_words(annotations.get(f"{prefix}excludeOutboundIPRanges")),
        ),
    )


def is_gateway(pod: Json) -> bool:
    """Whether the Pod asks for the gateway template."""
    return "gateway" in _words(d.annotations_of(pod).get("inject.istio.io/templates"))


def programs(pod: Json) -> list[Json]:
    """The containers to run as programs: not the one of a gateway that stands for the proxy."""
    return [each for each in d.parts(d.spec(pod), "containers") if not _stands_for_proxy(pod, each)]


def _stands_for_proxy(pod: Json, container: Json) -> bool:
    return is_gateway(pod) and (container["name"] == PROXY_CONTAINER or container.get("image") == "auto")


def sandbox(pod: Json, *, source: Source, ip: str, proxy: Proxy | None, log_dir: str) -> PodSandbox:
    """The Pod as the platform runs it, at that address. ConfigError when it can't be run as written."""
    spec, given = d.spec(pod), injection(pod)
    if spec.get("hostNetwork"):
        raise ConfigError("hostNetwork is not available: every Pod has a network of its own")
    initial = [_container(pod, each, source, ip, init=True) for each in d.parts(spec, "initContainers")]
    running = [_container(pod, each, source, ip, init=False) for each in programs(pod)]
    written = [*d.parts(spec, "initContainers"), *programs(pod)]
    return PodSandbox(
        uid=d.uid(pod),
        namespace=d.namespace(pod),
        name=d.name(pod),
        containers=(*initial, *running),
        log_dir=log_dir,
        proxy=proxy,
        redirect=given.redirect if given and proxy else None,
        ip=ip,
        hostname=spec.get("hostname") or d.name(pod)[:63].rstrip(".-"),
        host_aliases=tuple((each["ip"], tuple(each.get("hostnames") or ())) for each in d.parts(spec, "hostAliases")),
        resolv_conf=_resolv_conf(spec),
        volumes={each["name"]: volume(pod, each, source, ip) for each in d.parts(spec, "volumes")},
        visible=tuple(
            sorted({each["workingDir"] for each in written if Path(each.get("workingDir") or "/x").is_dir()})
        ),
        grace_s=grace_s(pod),
    )


def grace_s(pod: Json) -> float:
    """How long the Pod's programs get to end by themselves, seconds."""
    asked = pod["metadata"].get("deletionGracePeriodSeconds")
    return d.spec(pod).get("terminationGracePeriodSeconds", GRACE_S) if asked is None else asked


def path_variable() -> str:
    """PATH of every container: lateen's own environment first, then the system's."""
    return f"{Path(sys.prefix) / 'bin'}:{PATH}"


def _container(pod: Json, container: Json, source: Source, ip: str, *, init: bool) -> Container:
    name = container["name"]
    command = container.get("command") or ()
    if not command:
        message = f"container {name} has no command, and there are no images here to take one from"
        raise ConfigError(message, reason="NoCommand")
    env = {"PATH": path_variable()} | variables(pod, container, source, ip)
    security = d.part(d.spec(pod), "securityContext") | d.part(container, "securityContext")
    restart: Restart = d.spec(pod).get("restartPolicy", "Always")
    return Container(
        name=name,
        argv=tuple(expand(each, env) for each in (*command, *(container.get("args") or ()))),
        env=env,
        cwd=container.get("workingDir") or "/",
        mounts=tuple(
            Mount(
                volume=each["name"],
                path=each["mountPath"],
                sub_path=expand(each.get("subPathExpr") or each.get("subPath") or "", env),
                read_only=bool(each.get("readOnly")),
            )
            for each in d.parts(container, "volumeMounts")
        ),
        init=init,
        restart=("OnFailure" if restart == "Always" else restart) if init else restart,
        run_as=security.get("runAsUser"),
        startup=_startup(container),
        readiness=_probe(container, "readinessProbe"),
        liveness=_probe(container, "livenessProbe"),
        pre_stop=_handler(container, d.part(d.part(container, "lifecycle"), "preStop")),
        limits=_limits(container),
    )


def _startup(container: Json) -> Probe | None:
    """The startup probe; without one, and without a liveness probe that would have to wait for it, readiness is asked
    for often until it is first there: a whole period would be most of a small program's way to its first request."""
    written, readiness = _probe(container, "startupProbe"), _probe(container, "readinessProbe")
    if written is not None or readiness is None or "livenessProbe" in container:
        return written
    period_s = min(readiness.period_s, EAGER_PERIOD_S)
    return msgspec.structs.replace(readiness, period_s=period_s, success_threshold=1, failure_threshold=NEVER)


def _probe(container: Json, field: str) -> Probe | None:
    written = container.get(field)
    if not written:
        return None
    handler = _handler(container, written)
    if handler is None or isinstance(handler, Sleep):
        raise ConfigError(f"the {field} of container {container['name']} has no handler that is available here")
    grace = written.get("terminationGracePeriodSeconds")
    return Probe(
        handler=handler,
        initial_delay_s=written.get("initialDelaySeconds", 0),
        period_s=written.get("periodSeconds", 10),
        timeout_s=written.get("timeoutSeconds", 1),
        success_threshold=written.get("successThreshold", 1),
        failure_threshold=written.get("failureThreshold", 3),
        termination_grace_s=grace,
    )


def _handler(container: Json, written: Json) -> Exec | HttpGet | TcpSocket | Sleep | None:
    if "exec" in written:
        return Exec(tuple(d.part(written, "exec").get("command") or ()))
    if "httpGet" in written:
        get = written["httpGet"]
        return HttpGet(
            port=_port(container, get["port"]),
            path=get.get("path") or "/",
            scheme="HTTPS" if get.get("scheme") == "HTTPS" else "HTTP",
            host=get.get("host") or "",
            headers=tuple((each["name"], each["value"]) for each in d.parts(get, "httpHeaders")),
        )
    if "tcpSocket" in written:
        return TcpSocket(_port(container, written["tcpSocket"]["port"]), written["tcpSocket"].get("host") or "")
    if "sleep" in written:
        return Sleep(written["sleep"]["seconds"])
    return None


def _port(container: Json, port: int | str) -> int:
    """A port given by number or by the name of a container port."""
    if isinstance(port, int):
        return port
    if port.isdecimal():
        return int(port)
    found = next((each["containerPort"] for each in d.parts(container, "ports") if each.get("name") == port), None)
    if found is None:
        raise ConfigError(f"container {container['name']} has no port named {port}")
    return found


def _limits(container: Json) -> Limits:
    limits = d.part(d.part(container, "resources"), "limits")
    memory, cpu = limits.get("memory"), limits.get("cpu")
    return Limits(
        memory_bytes=None if memory is None else int(parse_quantity(memory).value),
        cpus=None if cpu is None else float(parse_quantity(cpu).value),
    )


def _resolv_conf(spec: Json) -> str:
    """A resolv.conf of the Pod's own with dnsPolicy None; empty: the cluster's."""
    if spec.get("dnsPolicy") != "None":
        return ""
    config = d.part(spec, "dnsConfig")
    lines = [f"nameserver {each}" for each in config.get("nameservers") or ()]
    if config.get("searches"):
        lines.append(f"search {' '.join(config['searches'])}")
    options = [_option(each) for each in d.parts(config, "options")]
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines)


def _option(option: dict[str, Any]) -> str:
    return f"{option['name']}:{option['value']}" if option.get("value") else str(option["name"])


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(each.strip() for each in (text or "").split(",") if each.strip())


def _ports(text: str | None) -> tuple[int, ...]:
    return tuple(int(each) for each in _words(text) if each.isdecimal())
