"""The validator itself: it must refuse what Envoy refuses, and name it."""

from __future__ import annotations

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from google.protobuf.message import Message

from lateen.envoy.resource import Resource, resource
from tests.envoy.certificates import Authority
from tests.envoy.harness import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, Validator


def encoded(name: str, message: Message) -> Resource:
    return resource(name, message.SerializeToString())


def cluster(name: str, timeout_s: int = 1) -> tuple[str, Resource]:
    made = Cluster(name=name, type=Cluster.EDS)
    made.connect_timeout.seconds = timeout_s
    made.eds_cluster_config.eds_config.ads.SetInParent()
    return CLUSTER, encoded(name, made)


def endpoints(name: str, address: str = "10.0.0.1") -> tuple[str, Resource]:
    made = ClusterLoadAssignment(cluster_name=name)
    where = made.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    where.address, where.port_value = address, 80
    return ENDPOINT, encoded(name, made)


def routes(name: str, regex: str = ".*") -> tuple[str, Resource]:
    made = RouteConfiguration(name=name)
    host = made.virtual_hosts.add(name="all", domains=["*"])
    route = host.routes.add()
    route.match.safe_regex.regex = regex
    route.route.cluster = "somewhere"
    return ROUTE, encoded(name, made)


def listener(name: str, port: int) -> tuple[str, Resource]:
    made = Listener(name=name)
    made.address.socket_address.address, made.address.socket_address.port_value = "0.0.0.0", port
    return LISTENER, encoded(name, made)


def secret(name: str, pem: bytes) -> tuple[str, Resource]:
    made = Secret(name=name)
    made.validation_context.trusted_ca.inline_bytes = pem
    return SECRET, encoded(name, made)


def test_good_resources_of_every_type(validator: Validator) -> None:
    good = [cluster("a"), endpoints("a"), endpoints("lonely"), routes("80"), secret("root", Authority().pem)]
    assert validator.accepts(good) == []
    assert validator.accepts(good) == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (cluster("a", -1), "Cluster"),
        (endpoints("a", "not an address"), "not an address"),
        (routes("80", "("), "missing )"),
        (listener("l", 80), "no filter chains specified"),
        (secret("root", b"nonsense"), "trusted CA"),
    ],
)
def test_bad_resources_are_refused(validator: Validator, bad: tuple[str, Resource], words: str) -> None:
    errors = validator.accepts([cluster("good"), bad])
    assert len(errors) == 1
    assert words in errors[0]


def test_a_resource_nothing_may_be_built_of_is_reported_as_an_error(validator: Validator) -> None:
    errors = validator.accepts([(CLUSTER, Resource("x", "1", b"\xff"))])
    assert len(errors) == 1
