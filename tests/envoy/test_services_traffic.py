"""What a Service says, on the real Envoy: protocols, headless Services, aliases, near endpoints, affinity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.lab.client import Caller2, ask, exchange, line, outside, shares
from tests.lab.lab import Lab

REVIEWS = "reviews.default.svc.cluster.local"


def service(name: str, spec: str, annotations: str = "{}") -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default, annotations: {annotations}}}
spec: {spec}
---
"""


def slice_of(name: str, ports: str, *addresses: str) -> str:
    """Endpoints without Pods; the node of each is called as the last part of its address."""
    endpoints = "".join(f"\n- {{addresses: [{each}], nodeName: n{each[-1]}}}" for each in addresses)
    return f"""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {{name: {name}-1, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}
endpoints:{endpoints}
ports: {ports}
---
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


# -- protocols ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "reads", "speaks"),
    [
        ("name: http, port: 9080", True, "http/1.1"),
        ("name: http-web, port: 9080", True, "http/1.1"),
        ("name: web, appProtocol: http, port: 9080", True, "http/1.1"),
        ("name: HTTP2-x, appProtocol: http, port: 9080", True, "http/1.1"),
        ("name: x, appProtocol: kubernetes.io/ws, port: 9080", True, "http/1.1"),
        ("name: http2, port: 9080", True, "h2"),
        ("name: grpc, port: 9080", True, "h2"),
        ("name: grpc-web, port: 9080", True, "h2"),
        ("name: x, appProtocol: kubernetes.io/h2c, port: 9080", True, "h2"),
        ("name: tcp, appProtocol: http2, port: 9080", True, "h2"),
        ("name: x, port: 9080", True, "http/1.1"),
        ("name: x, appProtocol: example.com/own, port: 9080", True, "http/1.1"),
        ("name: tcp, port: 9080", False, "http/1.1"),
        ("name: http, appProtocol: tcp, port: 9080", False, "http/1.1"),
        ("name: redis, port: 9080", False, "http/1.1"),
        ("name: mongo, port: 9080", False, "http/1.1"),
    ],
)
def test_the_protocol_of_a_port(lab: Lab, port: str, reads: bool, speaks: str) -> None:
    """Who reads requests gives each an id; HTTP/2 is spoken to the endpoint where the port says so."""
    name = port.partition(",")[0].removeprefix("name: ").lower()
    lab.configure(
        service("ratings", f"{{clusterIP: 10.96.0.2, ports: [{{{port.replace('HTTP2-x', name)}}}]}}"),
        slice_of("ratings", f"[{{name: {name}, port: 9080}}]", "10.88.2.1"),
    )
    seen = ask(lab, "ratings").seen
    assert (bool(seen["headers"].get("x-request-id")), seen["protocol"]) == (reads, speaks)


def test_found_out_both_ways(lab: Lab) -> None:
    """Requests, bytes and TLS on one port whose protocol nobody says: out of the application and into it."""
    lab.configure()
    assert ask(lab, "ratings", port=9100).seen["headers"]["x-request-id"]
    assert line(lab, "ratings", 9100)["server"] == "ratings-v1"
    inside = ask(lab, "ratings", port=9100, tls=lab.certificates.client_context(), sni="ratings")
    assert inside.seen["tls"]
    assert "x-request-id" not in inside.seen["headers"]
    assert outside(lab, port=9100).seen["headers"]["x-request-id"]
    with lab.connect("10.88.0.5", 9100, mark=0x53A) as one:
        assert exchange(one)["server"] == "app"
    inside = outside(lab, port=9100, tls=lab.certificates.client_context(), sni="app")
    assert inside.seen["tls"]
    assert "x-request-id" not in inside.seen["headers"]


@pytest.mark.parametrize("port", ["name: tcp-x, port: 9306", "name: x, port: 3306"])
def test_a_server_that_speaks_first(lab: Lab, port: str) -> None:
    """Heard at once on a port declared as TCP, and on one whose number says that servers speak first there."""
    number = int(port.rpartition(" ")[2])
    lab.configure(
        service("ratings", f"{{clusterIP: 10.96.0.2, ports: [{{{port}}}]}}"),
        slice_of(
            "ratings", f"[{{name: {port.partition(',')[0].removeprefix('name: ')}, port: {number}}}]", "10.88.2.1"
        ),
    )
    lab.listen(number)
    lab.servers.greeting, lab.servers.greeting_port = b"hello from a server\n", number
    with lab.connect("ratings", number) as one:
        assert one.recv(100) == b"hello from a server\n"


def test_two_services_of_bytes_on_one_port(lab: Lab) -> None:
    """Their addresses tell them apart."""
    lab.configure()
    assert line(lab, "ratings")["server"] == "ratings-v1"
    assert line(lab, "details")["server"] == "details-v1"


def test_datagrams_have_no_listener(lab: Lab) -> None:
    """A port of UDP beside one of TCP of the same number: datagrams are nobody's affair but the two ends'."""
    lab.configure(
        service(
            "ratings",
            "{clusterIP: 10.96.0.2, ports: [{name: dns, port: 9000, protocol: UDP}, {name: tcp, port: 9000}]}",
        ),
        slice_of("ratings", "[{name: dns, port: 9000, protocol: UDP}, {name: tcp, port: 9000}]", "10.88.2.1"),
    )
    assert line(lab, "ratings")["server"] == "ratings-v1"
    with lab.socket(kind="udp") as server, lab.socket(kind="udp") as client:
        server.bind(("10.88.2.1", 9000))
        for each in (server, client):
            each.settimeout(10)
        client.sendto(b"ping", ("10.88.2.1", 9000))
        data, peer = server.recvfrom(100)
        server.sendto(data + b" pong", peer)
        assert client.recvfrom(100) == (b"ping pong", ("10.88.2.1", 9000))


def test_each_grpc_call_is_balanced_by_itself(lab: Lab) -> None:
    """Many calls on one connection of the client reach every endpoint."""
    lab.configure(
        """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec: {host: reviews, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
---
"""
    )
    with Caller2(lab, "reviews", 9090) as caller:
        found = Counter(
            each.server
            for _ in range(6)
            for each in caller.ask(
                "reviews:9090", 5, "/x.Y/Z", **{"content-type": "application/grpc", "te": "trailers"}
            )
        )
    assert found == {"reviews-v1": 10, "reviews-v2": 10, "reviews-v3": 10}


def test_a_websocket(lab: Lab) -> None:
    """The upgrade passes, and then lines both ways, out of the application and into it."""
    lab.configure()
    upgrade = b"GET /chat HTTP/1.1\r\nhost: %s\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    for host, how, server in (("ratings", {}, "ratings-v1"), ("10.88.0.5", {"mark": 0x53A}, "app")):
        with lab.connect(host, 9080, **how) as one:  # type: ignore[arg-type]
            one.sendall(upgrade % host.encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += one.recv(1)
            assert head.startswith(b"HTTP/1.1 101"), head
            for text in ("one", "two"):
                said = exchange(one, text)
                assert (said["server"], said["line"]) == (server, text)


# -- names ---------------------------------------------------------------------------------------------------


HEADLESS = (
    service(
        "db",
        "{clusterIP: None, selector: {app: reviews}, ports: [{name: http, port: 9080}, {name: tcp, port: 9000}]}",
    )
    + """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {name: db-1, namespace: default, labels: {kubernetes.io/service-name: db}}
endpoints:
- {addresses: [10.88.1.1], hostname: db-0, targetRef: {kind: Pod, name: reviews-v1, namespace: default}}
- {addresses: [10.88.1.2], hostname: db-1, targetRef: {kind: Pod, name: reviews-v2, namespace: default}}
ports: [{name: http, port: 9080}, {name: tcp, port: 9000}]
---
"""
)


def test_a_headless_service_and_the_names_of_its_pods(lab: Lab) -> None:
    """The client looks the name up and dials a Pod: that Pod gets the request, by whichever name, and the stream."""
    lab.configure(HEADLESS)
    for address, server in (("10.88.1.1", "reviews-v1"), ("10.88.1.2", "reviews-v2")):
        number = address[-1]
        for name in (
            "db",
            "db.default.svc.cluster.local",
            f"db-{number}.db",
            f"db-{number}.db.default.svc.cluster.local",
        ):
            answer = ask(lab, address, authority=name)
            assert answer.server == server
            assert answer.seen["headers"]["x-request-id"], "the proxy has read it as a request of that service"
        assert line(lab, address)["server"] == server


def test_an_alias(lab: Lab) -> None:
    """An ExternalName is another name of a service; its own rules are looked at, and the other's endpoints taken."""
    lab.configure(
        service("alias", f"{{type: ExternalName, externalName: {REVIEWS}, ports: [{{name: http, port: 9080}}]}}"),
        """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: alias, namespace: default}
spec: {hosts: [alias], http: [{headers: {request: {set: {x-by: alias}}}, route: [{destination: {host: alias}}]}]}
---
""",
    )
    answer = ask(lab, "reviews", authority="alias")
    assert answer.server.startswith("reviews-")
    assert answer.seen["headers"]["x-by"] == "alias"


# -- near endpoints --------------------------------------------------------------------------------------------

NODES = "".join(
    f"""
apiVersion: v1
kind: Node
metadata:
  {{name: {node}, namespace: "", labels: {{topology.kubernetes.io/region: east, topology.kubernetes.io/zone: {zone}}}}}
---
"""
    for node, zone in (("n1", "a"), ("n2", "a"), ("n3", "b"))
)
PORTS = "[{name: http, port: 9080}]"
SPEC = "clusterIP: 10.96.0.1, ports: [{name: http, port: 9080}]"


@pytest.mark.parametrize(
    ("said", "annotations", "namespace", "reached"),
    [
        ("", "{}", "{}", {"v1", "v2", "v3"}),
        (", trafficDistribution: PreferClose", "{}", "{}", {"v1", "v2"}),
        (", trafficDistribution: PreferSameZone", "{}", "{}", {"v1", "v2"}),
        (", trafficDistribution: PreferSameNode", "{}", "{}", {"v1"}),
        ("", "{networking.istio.io/traffic-distribution: PreferClose}", "{}", {"v1", "v2"}),
        ("", "{}", "{networking.istio.io/traffic-distribution: PreferSameNode}", {"v1"}),
        (", internalTrafficPolicy: Cluster", "{}", "{}", {"v1", "v2", "v3"}),
        (", internalTrafficPolicy: Local", "{}", "{}", {"v1"}),
    ],
)
def test_near_endpoints(lab: Lab, said: str, annotations: str, namespace: str, reached: set[str]) -> None:
    """The client is on node n1 in east/a; v1 is there too, v2 on n2 in the same zone, v3 in another zone."""
    lab.configure(
        NODES,
        f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: default, namespace: '', annotations: {namespace}}}\n---\n",
        service("reviews", f"{{{SPEC}{said}}}", annotations),
        slice_of("reviews", PORTS, "10.88.1.1", "10.88.1.2", "10.88.1.3"),
    )
    assert {each.removeprefix("reviews-") for each in shares(lab, 40)} == reached


def test_others_take_over_when_no_near_endpoint_is_left(lab: Lab) -> None:
    """A preference falls back; `internalTrafficPolicy: Local` does not."""
    for said, expected in (
        ("trafficDistribution: PreferSameNode", "reviews-v3"),
        ("internalTrafficPolicy: Local", "503"),
    ):
        lab.configure(NODES, service("reviews", f"{{{SPEC}, {said}}}"), slice_of("reviews", PORTS, "10.88.1.3"))
        assert set(shares(lab, 10)) == {expected}


def test_a_client_stays_with_its_endpoint(lab: Lab) -> None:
    """`sessionAffinity: ClientIP`, for requests and for streams; a DestinationRule may say otherwise."""
    spec = (
        "{clusterIP: 10.96.0.1, sessionAffinity: ClientIP, ports: [{name: http, port: 9080}, {name: tcp, port: 9000}]}"
    )
    endpoints = slice_of(
        "reviews", "[{name: http, port: 9080}, {name: tcp, port: 9000}]", "10.88.1.1", "10.88.1.2", "10.88.1.3"
    )
    lab.configure(service("reviews", spec), endpoints)
    assert len(shares(lab, 40)) == 1
    assert len({line(lab)["server"] for _ in range(20)}) == 1
    rule = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec: {host: reviews, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
---
"""
    lab.configure(service("reviews", spec), endpoints, rule)
    assert len(shares(lab, 40)) == 3
