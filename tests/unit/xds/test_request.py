from __future__ import annotations

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from lateen.xds.request import Request, Requests

TYPE = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
REQUESTS = Requests("delta", (TYPE,))


@pytest.mark.parametrize(
    "message",
    [
        DeltaDiscoveryRequest(type_url=TYPE, response_nonce="7"),
        DeltaDiscoveryRequest(type_url=TYPE, response_nonce="x" * 127),
        DeltaDiscoveryRequest(type_url=TYPE, response_nonce="x" * 128),
        DeltaDiscoveryRequest(type_url=TYPE, response_nonce="é"),
        DeltaDiscoveryRequest(type_url=TYPE, response_nonce="7", error_detail=Status(message="no")),
        DeltaDiscoveryRequest(type_url=TYPE, response_nonce="7", resource_names_subscribe=["a"]),
        DeltaDiscoveryRequest(type_url=TYPE),
        DeltaDiscoveryRequest(type_url="other", response_nonce="7"),
        DeltaDiscoveryRequest(type_url=TYPE, initial_resource_versions={"a": "1"}, resource_names_unsubscribe=["b"]),
    ],
)
def test_answers_are_read_as_protobuf_reads_them(message: DeltaDiscoveryRequest) -> None:
    raw = message.SerializeToString()
    assert REQUESTS.later(raw) == REQUESTS.first(raw)[1]
    assert REQUESTS.later(raw).only_accepts == (
        raw
        == DeltaDiscoveryRequest(type_url=message.type_url, response_nonce=message.response_nonce).SerializeToString()
        and bool(message.response_nonce)
    )


def test_what_is_no_request_is_an_error() -> None:
    answer = DeltaDiscoveryRequest(type_url=TYPE, response_nonce="7").SerializeToString()
    for raw in (answer[:-1], b"\xff" + answer, answer[:-1] + b"\xff"):
        with pytest.raises(DecodeError):
            REQUESTS.later(raw)


def test_state_of_the_world_has_all_names() -> None:
    raw = DiscoveryRequest(type_url=TYPE, response_nonce="7", resource_names=["a"]).SerializeToString()
    assert Requests("sotw", (TYPE,)).later(raw) == Request(TYPE, "7", names=("a",))
