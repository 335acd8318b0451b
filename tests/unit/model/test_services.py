"""Hosts, protocols, services, endpoints: what configuration says about who can be called."""

from __future__ import annotations

import pytest

from lateen.api.core.service import Service
from lateen.api.istio.service_entry import ServiceEntry
from lateen.api.objects import ref_of
from lateen.engine import Graph
from lateen.model.auto_addresses import auto_address, unwritten_addresses
from lateen.model.endpoints import endpoints, identities
from lateen.model.hosts import covers, most_specific, parse_service_host, resolve
from lateen.model.listing import visible_services
from lateen.model.protocols import Protocol, port_protocol
from lateen.model.services import (
    MeshService,
    Resolution,
    candidates,
    service,
    service_for,
)
from lateen.model.visibility import Client, visible
from tests.configuration import graph_of

REVIEWS = "reviews.default.svc.cluster.local"


def test_short_names_mean_the_namespace_of_who_says_them() -> None:
    assert resolve("reviews", "default") == REVIEWS
    assert resolve("Reviews.Default", "other") == "reviews.default"
    assert resolve("*", "default") == "*"
    assert parse_service_host(REVIEWS) == ("reviews", "default")
    assert parse_service_host("a.b.c.svc.cluster.local") is None


def test_the_most_specific_pattern_counts() -> None:
    assert covers("*.example.com", "a.b.example.com")
    assert not covers("*.example.com", "example.com")
    assert covers("*.com", "*.example.com")
    assert not covers("*.example.com", "*.com")
    assert most_specific("a.b.com", ["*", "*.com", "*.b.com", "x.com"]) == "*.b.com"
    assert most_specific("a.b.com", ["*.b.com", "a.b.com"]) == "a.b.com"


@pytest.mark.parametrize(
    ("number", "name", "app", "transport", "said"),
    [
        (80, "http", "", "TCP", Protocol.HTTP),
        (80, "HTTP-web", "", "TCP", Protocol.HTTP),
        (80, "grpc-web-x", "", "TCP", Protocol.GRPC_WEB),
        (80, "grpc-x", "", "TCP", Protocol.GRPC),
        (80, "tcp-x", "kubernetes.io/h2c", "TCP", Protocol.HTTP2),
        (80, "http", "tcp", "TCP", Protocol.TCP),
        (80, "http", "example.org/own", "TCP", Protocol.HTTP),
        (3306, "db", "", "TCP", Protocol.MYSQL),
        (7000, "", "", "TCP", Protocol.AUTO),
        (80, "http", "", "UDP", Protocol.UDP),
    ],
)
def test_protocol_of_a_port(number: int, name: str, app: str, transport: str, said: Protocol) -> None:
    assert port_protocol(number, name, app, transport) is said


def _entry(name: str, host: str, spec: str = "", *, namespace: str = "default", created: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "{created}"}}
spec: {{hosts: [{host}], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: STATIC{spec}}}
---"""


def _namespace(found: MeshService | None) -> str:
    assert found is not None
    return found.namespace


def test_of_several_with_one_host_the_own_then_the_oldest_counts() -> None:
    graph = graph_of(
        _entry("a", "x.example", namespace="young", created="2024-02-02T00:00:00Z"),
        _entry("b", "x.example", namespace="old", created="2023-01-01T00:00:00Z"),
        _entry("c", "x.example", ", exportTo: ['.']", namespace="private", created="2020-01-01T00:00:00Z"),
    )
    assert _namespace(graph.pull(service_for, "x.example", "elsewhere")) == "old"
    assert _namespace(graph.pull(service_for, "x.example", "young")) == "young"
    assert _namespace(graph.pull(service_for, "x.example", "private")) == "private"
    assert [each.namespace for each in graph.pull(candidates, "x.example")] == ["private", "old", "young"]


def test_automatic_addresses_depend_on_the_hosts_alone() -> None:
    hosts = [f"h{number}.example" for number in range(300)]
    texts = [_entry(f"e{number}", host) for number, host in enumerate(hosts)]

    def addresses(graph: Graph) -> list[str]:
        return [found.addresses[0] for host in hosts if (found := graph.pull(service, host)) is not None]

    first = addresses(graph_of(*texts))
    assert addresses(graph_of(*reversed(texts))) == first
    assert len(set(first)) == len(hosts)
    assert all(each.startswith("240.240.") for each in first)


def _status(text: str, *addresses: str) -> str:
    lines = ", ".join(f"{{host: {host}, value: {value}}}" for host, _, value in (a.partition("=") for a in addresses))
    return text.removesuffix("---\n").rstrip("-\n ") + f"\nstatus: {{addresses: [{lines}]}}\n---\n"


def test_an_address_that_was_written_stays_whoever_comes_or_goes() -> None:
    """Hosts whose hashes meet: the one that has the address keeps it, though the other comes first by name."""
    hosts = [f"h{number}.example" for number in range(2000)]
    slots: dict[str, list[str]] = {}
    for host in hosts:
        alone = graph_of(_entry("e", host)).pull(service, host)
        assert alone is not None
        slots.setdefault(alone.addresses[0], []).append(host)
    address, (first, second, *_) = next((key, sorted(each)) for key, each in slots.items() if len(each) > 1)
    old = _status(_entry("old", second), f"{second}={address}")
    both = graph_of(old, _entry("new", first))
    assert both.pull(auto_address, second) == address
    assert both.pull(auto_address, first) not in (address, None)
    assert [ref.name for ref, _ in both.pull(unwritten_addresses)] == ["new"]


def test_what_is_written_is_put_right() -> None:
    graph = graph_of(
        _status(_entry("mine", "a.example"), "a.example=240.240.1.1"),
        _status(_entry("stolen", "b.example"), "b.example=240.240.1.1"),
        _status(_entry("odd", "c.example"), "c.example=240.240.999.1"),
        _status(_entry("over", "d.example", ", addresses: [192.0.2.7]"), "d.example=240.240.1.9"),
    )
    wanted = {ref.name: dict(addresses) for ref, addresses in graph.pull(unwritten_addresses)}
    assert wanted.keys() == {"stolen", "odd", "over"}
    assert wanted["over"] == {}
    assert wanted["stolen"]["b.example"] not in ("240.240.1.1", wanted["odd"]["c.example"])


def test_said_addresses_stay() -> None:
    found = graph_of(_entry("e", "x.example", ", addresses: [192.0.2.7]")).pull(service, "x.example")
    assert found is not None
    assert found.addresses == ("192.0.2.7",)


def test_wildcards_and_passthrough_get_no_address() -> None:
    graph = graph_of(
        _entry("wild", '"*.example"'),
        _entry("none", "none.example").replace("STATIC", "NONE"),
        _entry("not", "off.example").replace(
            "name: not,", 'name: not, labels: {networking.istio.io/enable-autoallocate-ip: "false"},'
        ),
    )
    for host in ("*.example", "none.example", "off.example"):
        found = graph.pull(service, host)
        assert found is not None
        assert found.addresses == ()


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: reviews, annotations: {networking.istio.io/exportTo: "EXPORT"}}
spec: {clusterIP: 10.96.0.1, selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: web}]}
---
"""


def test_exports_limit_who_sees_a_service() -> None:
    graph = graph_of(SERVICE.replace("EXPORT", "., friends"))
    assert graph.pull(visible, Client("default"), REVIEWS) is not None
    assert graph.pull(visible, Client("friends"), REVIEWS) is not None
    assert graph.pull(visible, Client("others"), REVIEWS) is None
    assert graph.pull(visible_services, Client("others")) == ()
    nobody = graph_of(SERVICE.replace("EXPORT", "~"))
    assert nobody.pull(visible, Client("default"), REVIEWS) is None


SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {name: NAME, labels: {kubernetes.io/service-name: reviews}}
endpoints: ENDPOINTS
ports: [{name: http, port: 9080}]
---
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: reviews-1, labels: {app: reviews, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: books, containers: [{name: app}]}
status: {phase: Running, podIP: 10.88.0.1}
---
"""


def test_only_ready_endpoints_and_each_once() -> None:
    target = "targetRef: {kind: Pod, name: reviews-1, namespace: default}"
    ready = f"[{{addresses: [10.88.0.1], conditions: {{ready: true}}, {target}}}]"
    graph = graph_of(
        SERVICE,
        POD,
        SLICE.replace("NAME", "a").replace("ENDPOINTS", ready),
        SLICE.replace("NAME", "b").replace("ENDPOINTS", ready),
        SLICE.replace("NAME", "c").replace("ENDPOINTS", "[{addresses: [10.88.0.2], conditions: {ready: false}}]"),
        SLICE.replace("NAME", "d").replace("ENDPOINTS", "[{addresses: [10.88.0.3]}]"),
    )
    found = graph.pull(endpoints, ref_of(Service, "default", "reviews"), REVIEWS, 80)
    assert [(each.address, each.port, each.tls) for each in found] == [
        ("10.88.0.1", 9080, True),
        ("10.88.0.3", 9080, False),
    ]
    assert found[0].identity == ("default", "books")


def test_identities_are_known_before_anything_is_ready() -> None:
    graph = graph_of(SERVICE, POD)
    ref = ref_of(Service, "default", "reviews")
    assert graph.pull(endpoints, ref, REVIEWS, 80) == ()
    assert graph.pull(identities, ref, REVIEWS, 80) == (("default", "books"),)


def test_an_entry_may_select_pods_and_workload_entries() -> None:
    ready = POD.replace("phase: Running,", 'phase: Running, conditions: [{type: Ready, status: "True"}],')
    machine = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: machine}
spec: {address: 192.0.2.9, labels: {app: reviews}, ports: {http: 8081}, serviceAccount: vm, weight: 3}
---
"""
    entry = _entry("e", "x.example", ", location: MESH_INTERNAL, workloadSelector: {labels: {app: reviews}}")
    graph = graph_of(entry, ready, POD.replace("reviews-1", "not-ready"), machine)
    found = graph.pull(endpoints, ref_of(ServiceEntry, "default", "e"), "x.example", 80)
    assert [(each.address, each.port, each.weight) for each in found] == [("10.88.0.1", 80, 1), ("192.0.2.9", 8081, 3)]


def test_an_external_name_is_an_alias() -> None:
    found = graph_of(
        "{apiVersion: v1, kind: Service, metadata: {name: out},"
        " spec: {type: ExternalName, externalName: API.example., ports: [{port: 80}]}}"
    ).pull(service, "out.default.svc.cluster.local")
    assert found is not None
    assert found.alias == "api.example"
    assert found.resolution is Resolution.ENDPOINTS


def test_who_may_answer_is_for_the_namespace_of_the_service_to_say() -> None:
    """Another namespace's ServiceEntry of the same host adds no identity."""
    entry = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: more, namespace: {namespace}}}
spec:
  hosts: [reviews.default.svc.cluster.local]
  ports: [{{number: 9080, name: http, protocol: HTTP}}]
  resolution: STATIC
  subjectAltNames: ["spiffe://cluster.local/ns/{namespace}/sa/x"]
---
"""
    own = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec: {ports: [{port: 9080}]}\n---\n"
    for namespace, names in (("evil", ()), ("default", ("spiffe://cluster.local/ns/default/sa/x",))):
        found = graph_of(own, entry.format(namespace=namespace)).pull(service, REVIEWS)
        assert found is not None
        assert found.subject_alt_names == names
