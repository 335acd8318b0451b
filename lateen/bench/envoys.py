"""Envoy processes of a benchmark, and the configurations that somebody would write by hand.

`application` answers every request itself: the server at the end of the way. `outbound` and `inbound` are the two
proxies of a hand-written pair: one listener, one route, one cluster, the router filter and nothing else.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from lateen.bench.host import BenchError
from lateen.node.bootstrap import PROXY_MARK
from lateen.node.envoy import envoy_binary

Json = dict[str, Any]

_EXTENSION: Final = "type.googleapis.com/envoy.extensions."
_READY_S: Final = 60.0


class Secrets(msgspec.Struct, frozen=True):
    """PEM files of a workload: its certificate chain, its key, and whom it trusts."""

    chain: Path
    key: Path
    roots: Path


class Envoy:
    """One running Envoy; `arguments` is its command, `host` the words before it."""

    def __init__(self, arguments: Sequence[str], admin: Path, log: Path, host: Sequence[str] = ()) -> None:
        self._admin, self._log = admin, log
        with log.open("wb") as output:
            self._process = subprocess.Popen([*host, *arguments], stdout=output, stderr=output)
        self.pid = self._process.pid

    @staticmethod
    def of(document: Json, directory: Path, name: str, host: Sequence[str] = ()) -> Envoy:
        """One with a configuration, whose files are in a directory (a short path: it holds a socket)."""
        admin, config = directory / f"{name}.sock", directory / f"{name}.json"
        config.write_text(json.dumps({**document, "admin": {"address": {"pipe": {"path": str(admin)}}}}))
        command = [str(envoy_binary()), "-c", str(config), "-l", "warning", "--concurrency", "1"]
        return Envoy([*command, "--disable-hot-restart"], admin, directory / f"{name}.log", host)

    def wait_live(self) -> None:
        """Returns when it serves. BenchError with its words when it does not."""
        end = time.monotonic() + _READY_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if self.ask("/ready").strip() == "LIVE":
                    return
            except (FileNotFoundError, ConnectionError):
                pass
            time.sleep(0.02)
        raise BenchError(f"Envoy is not live: {self._log.read_text(errors='replace')[-1000:]}", remedy="see above")

    def ask(self, path: str) -> str:
        """What the admin interface answers. OSError when it is not there."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._admin))
            client = http.client.HTTPConnection("admin")
            client.sock = connection
            client.request("GET", path)
            return client.getresponse().read().decode()

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()


def bare() -> Json:
    """An Envoy with nothing to do."""
    return {"static_resources": {}}


def application(ports: Sequence[int], body: str) -> Json:
    """A server of HTTP/1.1 and HTTP/2 without encryption that answers everything with the same text."""
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": body}}}
    return {"static_resources": {"listeners": [_listener(each, _http(answer)) for each in ports]}}


def outbound(address: str, port: int, *, http2: bool, tcp: bool, secrets: Secrets | None) -> Json:
    """The client's proxy: what comes in at 15001 goes to one address."""
    cluster = _cluster(address, port, http2=http2, tcp=tcp)
    if secrets is not None:
        cluster["transport_socket"] = _tls("Upstream", secrets, "h2" if http2 else "http/1.1")
    return _proxy(15001, cluster, tcp=tcp)


def inbound(port: int, *, http2: bool, tcp: bool, secrets: Secrets | None) -> Json:
    """The server's proxy: what comes in at 15006 goes to a port of loopback."""
    made = _proxy(15006, _cluster("127.0.0.1", port, http2=http2, tcp=tcp), tcp=tcp)
    if secrets is not None:
        chain = made["static_resources"]["listeners"][0]["filter_chains"][0]
        chain["transport_socket"] = _tls("Downstream", secrets, "h2" if http2 else "http/1.1")
    return made


def _proxy(port: int, cluster: Json, *, tcp: bool) -> Json:
    filters = _tcp() if tcp else _http({"match": {"prefix": "/"}, "route": {"cluster": "next"}})
    mark = {"level": 1, "name": 36, "int_value": PROXY_MARK, "state": "STATE_PREBIND"}
    return {
        "static_resources": {"listeners": [_listener(port, filters)], "clusters": [cluster]},
        "cluster_manager": {"upstream_bind_config": {"socket_options": [mark]}},
    }


def _listener(port: int, network_filter: Json) -> Json:
    return {
        "name": f"port {port}",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},  # noqa: S104 (in a network of its own)
        "filter_chains": [{"filters": [network_filter]}],
    }


def _http(route: Json) -> Json:
    router = {"name": "router", "typed_config": {"@type": f"{_EXTENSION}filters.http.router.v3.Router"}}
    manager = f"{_EXTENSION}filters.network.http_connection_manager.v3.HttpConnectionManager"
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    config = {"@type": manager, "stat_prefix": "http", "route_config": {"virtual_hosts": hosts}}
    return {"name": "http", "typed_config": {**config, "http_filters": [router]}}


def _tcp() -> Json:
    config = {"@type": f"{_EXTENSION}filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp", "cluster": "next"}
    return {"name": "tcp", "typed_config": config}


def _cluster(address: str, port: int, *, http2: bool, tcp: bool) -> Json:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}}
    cluster: Json = {
        "name": "next",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "next", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if not tcp:
        options = f"{_EXTENSION}upstreams.http.v3.HttpProtocolOptions"
        chosen: Json = {"http2_protocol_options" if http2 else "http_protocol_options": {}}
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": options, "explicit_http_config": chosen}
        }
    return cluster


def _tls(side: str, secrets: Secrets, protocol: str) -> Json:
    certificate = {
        "certificate_chain": {"filename": str(secrets.chain)},
        "private_key": {"filename": str(secrets.key)},
    }
    common = {
        "tls_certificates": [certificate],
        "validation_context": {"trusted_ca": {"filename": str(secrets.roots)}},
        "alpn_protocols": [protocol],
    }
    config: Json = {"@type": f"{_EXTENSION}transport_sockets.tls.v3.{side}TlsContext", "common_tls_context": common}
    if side == "Downstream":
        config["require_client_certificate"] = True
    return {"name": "tls", "typed_config": config}
