"""What the real Envoy reads of a peer from its certificate: once per connection, for HTTP and TCP alike."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lateen.lib.keypair import new_request
from lateen.lib.peer import envoy_expression
from lateen.lib.spiffe import SpiffeId
from lateen.security.ca import CertificateAuthority
from lateen.security.ca_files import open_ca
from lateen.security.peer import PeerIdentity
from tests.envoy.harness import Envoy, short_directory
from tests.envoy.identities import TYPE, Json, until

SPIFFE = SpiffeId("cluster.local", "default", "web")
FIELDS = ("pod", "workload", "type", "service", "revision", "cluster")


class Wire:
    """A server Envoy that tells callers what it thinks they are, and counts TCP connections by it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca: CertificateAuthority = open_ca(directory / "ca")
        chain, key = self.files("server", PeerIdentity(spiffe=SPIFFE))
        tls: Json = {
            "@type": f"{TYPE}transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": True,
            "common_tls_context": {
                "tls_certificates": [
                    {"certificate_chain": {"filename": str(chain)}, "private_key": {"filename": str(key)}}
                ],
                "validation_context": {"trusted_ca": {"inline_string": self.ca.trust_pem}},
            },
        }
        self.envoy = Envoy(
            {
                "node": {"id": "server", "cluster": "server"},
                "static_resources": {
                    "listeners": [
                        _listener("http", _labels(), _manager(), tls=tls),
                        _listener("tcp", _labels(), _echo(), tls=tls),
                    ]
                },
            },
            directory,
        )
        self.envoy.wait_live()
        statuses = msgspec.json.decode(self.envoy.admin("/listeners", format="json"))["listener_statuses"]
        self.ports = {each["name"]: each["local_address"]["socket_address"]["port_value"] for each in statuses}

    def files(self, name: str, identity: PeerIdentity) -> tuple[Path, Path]:
        """A certificate for an identity and its key."""
        key, csr = new_request()
        files = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        files[0].write_text("".join(self.ca.issue(csr, identity)[:-1]))
        files[1].write_text(key)
        return files

    async def send(self, listener: str, identity: PeerIdentity, sent: bytes, end: bytes) -> str:
        """What comes back up to an end, asked for with an identity's certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.ca.trust_pem)
        context.load_cert_chain(*self.files("client", identity))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[listener], ssl=context)
        writer.write(sent)
        received = await reader.readuntil(end)
        writer.close()
        await writer.wait_closed()
        return received.decode()

    async def seen(self, identity: PeerIdentity) -> dict[str, str]:
        """The fields the server saw of the peer behind a request."""
        answer = await self.send("http", identity, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in answer.split("\r\n") if ": " in line)
        assert headers["x-spiffe"] == str(identity.spiffe)
        return {field: headers[f"x-{field}"] for field in FIELDS}


def _labels() -> Json:
    """The filter that later listeners of the mesh use: each field into filter state, after the handshake."""
    return {
        "name": "envoy.filters.network.set_filter_state",
        "typed_config": {
            "@type": f"{TYPE}filters.network.set_filter_state.v3.Config",
            "on_downstream_tls_handshake": [
                {
                    "object_key": f"peer.{field}",
                    "factory_key": "envoy.string",
                    "format_string": {"text_format_source": {"inline_string": f"%CEL({envoy_expression(field)})%"}},
                }
                for field in FIELDS
            ],
        },
    }


def _manager() -> Json:
    names = {"x-spiffe": "%DOWNSTREAM_PEER_URI_SAN%"}
    names |= {f"x-{field}": f"%FILTER_STATE(peer.{field}:PLAIN)%" for field in FIELDS}
    route: Json = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200},
        "response_headers_to_add": [{"header": {"key": key, "value": value}} for key, value in names.items()],
    }
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http",
            "max_request_headers_kb": 96,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"{TYPE}filters.http.router.v3.Router"},
                }
            ],
        },
    }


def _echo() -> Json:
    return {
        "name": "envoy.filters.network.echo",
        "typed_config": {"@type": f"{TYPE}filters.network.echo.v3.Echo"},
    }


def _listener(name: str, *filters: Json, tls: Json) -> Json:
    tags = [
        {"name": field, "value_format": f"%FILTER_STATE(peer.{field}:PLAIN)%"} for field in ("workload", "revision")
    ]
    counter = {"value_fixed": 1, "stat": {"name": f"{name}_connections", "tags": tags}}
    logger = {
        "@type": f"{TYPE}access_loggers.stats.v3.Config",
        "stats_scope": {"prefix": "peer"},
        "counters": [counter],
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "access_log": [{"name": "envoy.access_loggers.stats", "typed_config": logger}],
        "filter_chains": [
            {
                "filters": list(filters),
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            }
        ],
    }


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    directory = short_directory()
    made = Wire(directory)
    yield made
    made.envoy.stop()
    shutil.rmtree(directory)


async def test_a_workload_is_what_its_certificate_says(wire: Wire) -> None:
    web = PeerIdentity(
        spiffe=SPIFFE,
        pod="web-v1-6f8d7c9b5-x2x4z",
        uid="0b6e7a3e-52c1-4cbb-8f86-4cbe0ff8a2f1",
        workload="web-v1",
        type="deployment",
        service="web",
        revision="v1",
        cluster="Kubernetes",
    )
    assert await wire.seen(web) == {field: getattr(web, field) for field in FIELDS}


async def test_names_of_the_full_length_arrive_whole(wire: Wire) -> None:
    longest = {field: (field[0] + ".-_9")[:5] * 50 + "xyz" for field in FIELDS}
    assert {len(value) for value in longest.values()} == {253}
    assert await wire.seen(PeerIdentity(spiffe=SPIFFE, **longest)) == longest


async def test_a_peer_without_labels_is_unknown(wire: Wire) -> None:
    assert await wire.seen(PeerIdentity(spiffe=SPIFFE)) == dict.fromkeys(FIELDS, "unknown")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (r"v1\,description=workload:admin", "v1%5C%2Cdescription%3Dworkload%3Aadmin"),
        ("v1,CN=admin", "v1%2CCN%3Dadmin"),
        ("workload:admin", "workload%3Aadmin"),
        ("v1+description=workload:admin", "v1%2Bdescription%3Dworkload%3Aadmin"),
        (' #lead;<"> ', "%20%23lead%3B%3C%22%3E%20"),
        ("é", "%C3%A9"),
    ],
)
async def test_no_value_poses_as_another(wire: Wire, value: str, shown: str) -> None:
    seen = await wire.seen(PeerIdentity(spiffe=SPIFFE, pod=value, service=value, revision="v1"))
    assert seen == dict.fromkeys(FIELDS, "unknown") | {"pod": shown, "service": shown, "revision": "v1"}


async def test_tcp_connections_are_counted_by_peer(wire: Wire) -> None:
    for revision in ("v1", "v2", "v2"):
        identity = PeerIdentity(spiffe=SPIFFE, workload="db-client", revision=revision)
        assert await wire.send("tcp", identity, b"hello", b"o") == "hello"

    async def counted() -> bool:
        page = await asyncio.to_thread(wire.envoy.admin, "/stats/prometheus")
        lines = {line for line in page.splitlines() if "tcp_connections" in line and not line.startswith("#")}
        return {
            'envoy_peer_tcp_connections{workload="db-client",revision="v1"} 1',
            'envoy_peer_tcp_connections{workload="db-client",revision="v2"} 2',
        } <= lines

    await until(counted)
