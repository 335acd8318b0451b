"""Joined bytes are what protobuf itself reads and writes."""

from __future__ import annotations

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse
from hypothesis import given
from hypothesis import strategies as st

from lateen.envoy.resource import Resource
from lateen.xds.wire import brief, delta_chunk, delta_response, sotw_chunk, sotw_response

TYPE = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=300)
resources = st.lists(st.builds(Resource, names, names, st.binary(max_size=300)), max_size=4)


@given(resources, st.lists(names, max_size=3), names, names)
def test_delta(items: list[Resource], removed: list[str], version: str, nonce: str) -> None:
    data = delta_response(TYPE, [delta_chunk(TYPE, each) for each in items], removed, version, nonce)
    expected = DeltaDiscoveryResponse(
        type_url=TYPE, nonce=nonce, system_version_info=version, removed_resources=removed
    )
    for each in items:
        item = expected.resources.add(name=each.name, version=each.version)
        item.resource.type_url, item.resource.value = TYPE, each.body
    assert DeltaDiscoveryResponse.FromString(data) == expected


@given(resources, names, names)
def test_sotw(items: list[Resource], version: str, nonce: str) -> None:
    data = sotw_response(TYPE, [sotw_chunk(TYPE, each) for each in items], version, nonce)
    expected = DiscoveryResponse(type_url=TYPE, nonce=nonce, version_info=version)
    for each in items:
        item = expected.resources.add()
        item.type_url, item.value = TYPE, each.body
    assert DiscoveryResponse.FromString(data) == expected


@pytest.mark.parametrize("word", ["debugproto", "debugstr", "debugonly"])
def test_words_come_without_the_message_that_they_quote(word: str) -> None:
    quoted = f"goo.gle/{word}    \nname: x\nnested {{\n}}\n"
    assert brief(f"{quoted}: Proto constraint validation failed (why)") == "Proto constraint validation failed (why)"
    assert brief(f"adding listener y: {quoted}...(truncated)").startswith("adding listener y: a value in it is not")
    assert brief("Invalid regex: nine") == "Invalid regex: nine"
