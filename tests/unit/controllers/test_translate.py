"""Pods as the platform runs them: programs, variables, volumes, probes, proxies, and what can't be run."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.environment import ConfigError, expand
from lateen.platform.pod import EmptyDir, Exec, Files, HostPath, HttpGet, PodSandbox, Redirect, Sleep, TcpSocket
from lateen.platform.translate import injection, path_variable, sandbox

CONFIG: Json = {
    "kind": "ConfigMap",
    "metadata": {"name": "settings", "namespace": "shop"},
    "data": {"LEVEL": "info", "file.txt": "text"},
    "binaryData": {"raw": base64.b64encode(b"\x00\xff").decode()},
}
SECRET: Json = {
    "kind": "Secret",
    "metadata": {"name": "keys", "namespace": "shop"},
    "data": {"token": base64.b64encode(b"hidden").decode()},
}


class Objects:
    def __init__(self, *documents: Json) -> None:
        self._documents = {(each["kind"], d.key(each)): each for each in documents}

    def get(self, kind: str, key: d.Key) -> Json | None:
        return self._documents.get((kind, key))


def pod(container: Json | None = None, metadata: Json | None = None, **spec: Any) -> Json:
    return {
        "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "u-1", "labels": {"app": "web"}, **(metadata or {})},
        "spec": {"containers": [{"name": "web", "command": ["web"], **(container or {})}], **spec},
    }


def made(document: Json, *objects: Json) -> PodSandbox:
    return sandbox(document, source=Objects(*objects), ip="10.88.0.9", proxy=None, log_dir="/logs")


def env(container: Json, *objects: Json, **spec: Any) -> dict[str, str]:
    found = dict(made(pod(container, **spec), *objects).containers[0].env)
    assert found.pop("PATH") == path_variable()
    return found


def test_variables_come_from_values_maps_secrets_and_fields() -> None:
    container = {
        "envFrom": [{"prefix": "C_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "keys"}}],
        "env": [
            {"name": "PLAIN", "value": "a"},
            {"name": "JOINED", "value": "$(PLAIN)-$(C_LEVEL)-$$(PLAIN)-$(MISSING)"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
            {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "LEVEL"}}},
            {"name": "ABSENT", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "x", "optional": True}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MB", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "EMPTY"},
        ],
        "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}},
    }
    assert env(container, CONFIG, SECRET) == {
        "C_LEVEL": "info",
        "C_file.txt": "text",
        "token": "hidden",
        "PLAIN": "a",
        "JOINED": "a-info-$(PLAIN)-$(MISSING)",
        "TOKEN": "hidden",
        "LEVEL": "info",
        "IP": "10.88.0.9",
        "APP": "web",
        "CPU": "2",
        "MB": "64",
        "EMPTY": "",
    }


def test_arguments_are_expanded_and_the_environment_may_replace_path() -> None:
    found = made(pod({"args": ["--level=$(LEVEL)", "$$x"], "env": [{"name": "LEVEL", "value": "1"}]}))
    assert found.containers[0].argv == ("web", "--level=1", "$x")
    assert found.containers[0].env["PATH"].startswith("/")
    own = {"env": [{"name": "PATH", "value": "/mine"}]}
    assert made(pod(own)).containers[0].env["PATH"] == "/mine"
    assert expand("$(A)$(B)", {"A": "1"}) == "1$(B)"


def test_volumes_are_files_directories_and_memory(tmp_path: Path) -> None:
    volumes: list[Json] = [
        {"name": "config", "configMap": {"name": "settings", "items": [{"key": "LEVEL", "path": "etc/level"}]}},
        {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {"name": "none", "configMap": {"name": "no", "optional": True}},
        {"name": "memory", "emptyDir": {"sizeLimit": "1Mi"}},
        {"name": "here", "hostPath": {"path": str(tmp_path)}},
        {"name": "self", "downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"name": "all", "projected": {"sources": [{"configMap": {"name": "settings"}}, {"secret": {"name": "keys"}}]}},
    ]
    mounts = [{"name": "config", "mountPath": "/etc/x", "subPath": "etc", "readOnly": True}]
    found = made(pod({"volumeMounts": mounts, "workingDir": str(tmp_path)}, volumes=volumes), CONFIG, SECRET)
    assert found.volumes == {
        "config": Files({"etc/level": b"info"}),
        "keys": Files({"token": b"hidden"}, 0o400),
        "none": Files({}),
        "memory": EmptyDir(1 << 20),
        "here": HostPath(str(tmp_path)),
        "self": Files({"n": b"web-1"}),
        "all": Files({"LEVEL": b"info", "file.txt": b"text", "raw": b"\x00\xff", "token": b"hidden"}),
    }
    (mount,) = found.containers[0].mounts
    assert (mount.volume, mount.path, mount.sub_path, mount.read_only) == ("config", "/etc/x", "etc", True)
    assert found.visible == (str(tmp_path),)
    assert found.containers[0].cwd == str(tmp_path)


@pytest.mark.parametrize(
    ("container", "spec", "said"),
    [
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k"}}}]}, {}, "Secret shop/no"),
        ({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "k"}}}]}, {}, "key k"),
        ({"envFrom": [{"configMapRef": {"name": "no"}}]}, {}, "ConfigMap shop/no does not exist"),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}, {}, "spec.x"),
        ({}, {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}, "persistentVolumeClaim"),
        ({}, {"hostNetwork": True}, "hostNetwork"),
        ({"readinessProbe": {"httpGet": {"port": "web"}}}, {}, "no port named web"),
        ({"livenessProbe": {"grpc": {"port": 1}}}, {}, "livenessProbe"),
    ],
)
def test_what_is_missing_or_not_available_is_said(container: Json, spec: Json, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        made(pod(container, **spec), CONFIG)
    assert caught.value.reason == "CreateContainerConfigError"


def test_a_container_without_a_command_cannot_run() -> None:
    with pytest.raises(ConfigError, match="container web has no command") as caught:
        made(pod({"command": []}))
    assert caught.value.reason == "NoCommand"


def test_probes_and_the_stop_hook_find_ports_by_name() -> None:
    container: Json = {
        "ports": [{"name": "http", "containerPort": 9080}],
        "startupProbe": {"exec": {"command": ["test", "-f", "/tmp/up"]}, "periodSeconds": 1},
        "readinessProbe": {
            "httpGet": {"port": "http", "path": "/ok", "httpHeaders": [{"name": "X", "value": "1"}]},
            "failureThreshold": 1,
        },
        "livenessProbe": {"tcpSocket": {"port": 9080}, "initialDelaySeconds": 5, "timeoutSeconds": 2},
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
    }
    found = made(pod(container)).containers[0]
    assert found.startup is not None
    assert found.readiness is not None
    assert found.liveness is not None
    assert found.startup.handler == Exec(("test", "-f", "/tmp/up"))
    assert found.readiness.handler == HttpGet(port=9080, path="/ok", headers=(("X", "1"),))
    assert (found.readiness.period_s, found.readiness.failure_threshold) == (10, 1)
    assert found.liveness.handler == TcpSocket(9080)
    assert (found.liveness.initial_delay_s, found.liveness.timeout_s) == (5, 2)
    assert found.pre_stop == Sleep(3)


def test_readiness_alone_is_asked_for_often_at_first() -> None:
    readiness: Json = {"readinessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 7}}
    found = made(pod(readiness)).containers[0]
    assert found.startup is not None
    assert found.readiness is not None
    assert found.startup.period_s < 1
    assert found.startup.failure_threshold > 1_000_000
    assert found.readiness.period_s == 7
    assert made(pod({**readiness, "livenessProbe": {"tcpSocket": {"port": 1}}})).containers[0].startup is None


def test_init_containers_come_first_and_restart_like_the_pod() -> None:
    document = pod(initContainers=[{"name": "prepare", "command": ["p"]}], restartPolicy="Never")
    first, second = made(document).containers
    assert (first.name, first.init, first.restart) == ("prepare", True, "Never")
    assert (second.name, second.init, second.restart) == ("web", False, "Never")
    assert made(pod(initContainers=[{"name": "p", "command": ["p"]}])).containers[0].restart == "OnFailure"


def test_limits_user_names_and_grace() -> None:
    found = made(
        pod(
            {"resources": {"limits": {"memory": "64Mi", "cpu": "250m"}}, "securityContext": {"runAsUser": 7}},
            terminationGracePeriodSeconds=3,
            hostname="host",
            hostAliases=[{"ip": "10.0.0.1", "hostnames": ["a", "b"]}],
            dnsPolicy="None",
            dnsConfig={"nameservers": ["10.0.0.2"], "searches": ["x.y"], "options": [{"name": "ndots", "value": "2"}]},
        )
    )
    container = found.containers[0]
    assert (container.limits.memory_bytes, container.limits.cpus, container.run_as) == (64 << 20, 0.25, 7)
    assert (found.grace_s, found.hostname, found.host_aliases) == (3, "host", (("10.0.0.1", ("a", "b")),))
    assert found.resolv_conf == "nameserver 10.0.0.2\nsearch x.y\noptions ndots:2\n"


def test_every_pod_gets_a_sidecar_unless_it_declines() -> None:
    given = injection(pod())
    assert given is not None
    assert (given.kind, given.redirect) == ("sidecar", Redirect())
    for where in ("labels", "annotations"):
        assert injection(pod(metadata={where: {"sidecar.istio.io/inject": "false"}})) is None
    annotations = {
        "traffic.sidecar.istio.io/excludeInboundPorts": "80, 81",
        "traffic.sidecar.istio.io/excludeOutboundPorts": "5432",
        "traffic.sidecar.istio.io/excludeOutboundIPRanges": "10.1.0.0/16",
    }
    given = injection(pod(metadata={"annotations": annotations}))
    assert given is not None
    assert given.redirect == Redirect(
        exclude_inbound_ports=(80, 81), exclude_outbound_ports=(5432,), exclude_outbound_ranges=("10.1.0.0/16",)
    )


def test_a_gateways_container_is_the_proxy() -> None:
    container: Json = {"name": "istio-proxy", "image": "auto", "command": [], "ports": [{"containerPort": 8080}]}
    gateway = pod(container, metadata={"annotations": {"inject.istio.io/templates": "gateway"}})
    given = injection(gateway)
    assert given is not None
    assert (given.kind, given.redirect, given.ports) == ("router", None, (8080,))
    assert made(gateway).containers == ()
