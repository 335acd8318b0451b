"""Certificates of a lab, as files: two authorities, servers' and clients' leaves, a revocation list."""

from __future__ import annotations

import ssl
from pathlib import Path

import yaml

from tests.envoy.certificates import Authority


class Certificates:
    """`NAME.pem` and `NAME.key` in a directory; `root` and `other` are authorities. `names` are further ones that the
    servers have."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.directory = directory
        self._leaves: list[str] = []
        self.identified: dict[str, str] = {"outside-2": "workload"}
        """Servers that show another certificate than `server`, and which."""
        self.authorities = {"root": Authority("root"), "other": Authority("other")}
        for name, authority in self.authorities.items():
            (directory / f"{name}.pem").write_bytes(authority.pem)
        inside = ("reviews", "reviews.default.svc.cluster.local")
        self.leaf("server", "root", *inside, "outside.test", "*.outside.test", *names)
        self.leaf("edge", "root", "shop.test", "*.shop.test")
        self.leaf("client", "root", "client.test", uri="spiffe://cluster.local/ns/default/sa/client")
        self.leaf("stranger", "other", "stranger.test")
        self.leaf("alice", "root", uri="spiffe://cluster.local/ns/a/sa/alice")
        self.leaf("workload", "root", uri="spiffe://cluster.local/ns/default/sa/default")
        self.leaf("twin", "root", "twin.test", key=self.read("client.key").encode())
        for name in ("server", "client"):
            revoked = self.authorities["root"].revoked(self.read(f"{name}.pem").encode())
            (directory / f"revoked-{name}.pem").write_bytes(revoked)

    def leaf(self, name: str, authority: str, *dns: str, uri: str = "", key: bytes | None = None) -> None:
        """Makes a certificate and its key, or a certificate for a key."""
        chain, key = self.authorities[authority].leaf(uri, *dns, key=key)
        self._leaves.append(name)
        (self.directory / f"{name}.pem").write_bytes(chain)
        (self.directory / f"{name}.key").write_bytes(key)

    def path(self, name: str) -> str:
        """A file by its name, such as `root.pem`."""
        return str(self.directory / name)

    def secrets(self) -> str:
        """Secrets of the gateway's namespace and of the application's, as YAML: one for each leaf, with the root of
        the clients it takes."""
        found: list[str] = []
        for name in self._leaves:
            data = {
                "tls.crt": self.read(f"{name}.pem"),
                "tls.key": self.read(f"{name}.key"),
                "ca.crt": self.read("other.pem" if name == "stranger" else "root.pem"),
            }
            for namespace in ("istio-system", "default"):
                metadata = {"name": name, "namespace": namespace}
                found.append(
                    yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})
                )
        return "---\n".join(found)

    def read(self, name: str) -> str:
        """The text of a file."""
        return (self.directory / name).read_text()

    def server_context(self, server: str) -> ssl.SSLContext:
        """How the servers of the lab answer a handshake: they take a client's certificate and don't ask for one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        name = self.identified.get(server, "server")
        context.load_cert_chain(self.path(f"{name}.pem"), self.path(f"{name}.key"))
        context.load_verify_locations(self.path("root.pem"))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    def client_context(self, name: str = "", alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        """A client that trusts `root` and shows the certificate of that name, if any."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.path("root.pem"))
        if name:
            context.load_cert_chain(self.path(f"{name}.pem"), self.path(f"{name}.key"))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context
