"""Where a mesh keeps things: one persistent directory, one short one for sockets. Both are hidden from applications."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Layout(msgspec.Struct, frozen=True):
    """The directories of the mesh `name`. Nothing here touches the file system."""

    name: str
    state: Path
    run: Path

    @property
    def store(self) -> Path:
        """The object store, an SQLite file."""
        return self.state / "store.db"

    @property
    def ca(self) -> Path:
        """The CA's files: ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem."""
        return self.state / "ca"

    @property
    def api(self) -> Path:
        """Keys and certificates of the Kubernetes API."""
        return self.state / "api"

    @property
    def kubeconfig(self) -> Path:
        """How clients of the Kubernetes API reach it as the owner of the mesh."""
        return self.state / "kubeconfig"

    @property
    def logs(self) -> Path:
        """Logs of the mesh's own processes; `pods/<namespace>_<name>/<container>.log` for Pods."""
        return self.state / "logs"

    @property
    def api_socket(self) -> Path:
        """The HTTP API."""
        return self.run / "api.sock"

    @property
    def xds_socket(self) -> Path:
        """xDS and the CA, gRPC with TLS. In a directory of its own, the only one of the mesh that every proxy sees."""
        return self.run / "xds" / "xds.sock"

    @property
    def agent_socket(self) -> Path:
        """The agent's control socket."""
        return self.run / "agent.sock"

    def pod(self, uid: str) -> Path:
        """One Pod's sockets, token and bootstrap."""
        return self.run / "pods" / uid
