"""A real Kubernetes control plane on loopback: etcd, kube-apiserver, and the controller manager for garbage."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from lateen.security.api_access import ApiAccess

READY_S = 120
POLL_S = 0.1


class Cluster:
    """The programs of `programs`, with everything they write in `state`."""

    def __init__(self, programs: Path, state: Path) -> None:
        self._programs = programs
        self._state = state
        self._access = ApiAccess(state / "pki")
        self._port, self._etcd, self._peer = (_free_port() for _ in range(3))
        self._running: list[subprocess.Popen[bytes]] = []
        self.url = f"https://127.0.0.1:{self._port}"
        self.kubeconfig = state / "kubeconfig"

    @property
    def ca(self) -> Path:
        """Whose certificates the server has."""
        return self._access.ca.certificate

    @property
    def administrator(self) -> tuple[Path, Path]:
        """Certificate and key of a member of system:masters."""
        return self._state / "pki/owner.crt", self._state / "pki/owner.key"

    @property
    def pids(self) -> tuple[int, ...]:
        """Of kube-apiserver and etcd."""
        return tuple(each.pid for each in self._running[:2])

    def start(self) -> None:
        """Returns when the server is ready. RuntimeError with the end of a log when a program ends."""
        self.kubeconfig.write_bytes(self._access.kubeconfig("real", self.url))
        etcd, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        self._run(
            "etcd",
            *("--name", "one", "--data-dir", str(self._state / "etcd"), "--unsafe-no-fsync", "--log-level", "warn"),
            *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}"),
        )
        ca, server = self._access.ca, self._access.server
        self._run(
            "kube-apiserver",
            *("--bind-address", "127.0.0.1", "--secure-port", str(self._port), "--endpoint-reconciler-type", "none"),
            *("--etcd-servers", etcd, "--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/16"),
            *("--client-ca-file", str(ca.certificate)),
            *("--tls-cert-file", str(server.certificate), "--tls-private-key-file", str(server.key)),
            *("--service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
            *(
                "--service-account-signing-key-file",
                str(server.key),
                "--service-account-key-file",
                str(server.certificate),
            ),
        )
        self._until_ready()
        self._run(
            "kube-controller-manager",
            *("--kubeconfig", str(self.kubeconfig), "--leader-elect=false", "--bind-address", "127.0.0.1"),
            *("--secure-port", str(_free_port()), "--service-account-private-key-file", str(server.key)),
            *("--root-ca-file", str(ca.certificate)),
        )

    def stop(self) -> None:
        """Ends what was started, the last first."""
        for each in reversed(self._running):
            each.terminate()
            try:
                each.wait(30)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()

    def _run(self, program: str, *arguments: str) -> None:
        log = (self._state / f"{program}.log").open("ab")
        with log:
            process = subprocess.Popen([self._programs / program, *arguments], stdout=log, stderr=log, cwd=self._state)
        self._running.append(process)

    def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        with httpx.Client(verify=_context(self.ca, self.administrator)) as client:
            while True:
                for each in self._running:
                    if each.poll() is not None:
                        raise RuntimeError(f"{each.args} ended: {self._log_end()}")
                try:
                    if client.get(f"{self.url}/readyz").status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                if time.monotonic() > deadline:
                    raise RuntimeError(f"kube-apiserver is not ready: {self._log_end()}")
                time.sleep(POLL_S)

    def _log_end(self) -> str:
        return "\n".join(
            line for log in self._state.glob("*.log") for line in log.read_text(errors="replace").splitlines()[-5:]
        )


def _context(ca: Path, pair: Sequence[Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(*map(str, pair))
    return context


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
