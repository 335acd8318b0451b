"""Patches of the bootstrap on the real Envoy: taken where it would start with them, left out and named where not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lateen.lib.ids import STATED_METADATA
from lateen.node.bootstrap import BootstrapSpec, XdsAddress, node_metadata
from lateen.platform.proxy import PATCH_REFUSED, SETTINGS_CHANGED
from tests.configuration import graph_of
from tests.envoy.harness import short_directory
from tests.envoy.proxy_program import proxy_of, server_info
from tests.unit.envoy.test_patches import envoy_filter, one


@pytest.fixture
def directory() -> Path:
    return short_directory()


def merge(value: str, match: str = "{}") -> dict[str, Any]:
    return one("BOOTSTRAP", "MERGE", value, match)


def test_a_patch_that_envoy_would_not_start_with_is_left_out_and_named(directory: Path) -> None:
    bad = merge("{stats_sinks: [{name: nothing.that.exists}]}")
    good = merge("{node: {cluster: patched}}")
    graph = graph_of(envoy_filter(good, bad))
    made = proxy_of(graph, directory)
    assert server_info(asyncio.run(made.prepare()))["node"]["cluster"] == "patched"
    (found,) = made.findings()
    assert found.code == PATCH_REFUSED
    assert "EnvoyFilter default/patch spec.configPatches[1]" in found.message
    assert "nothing.that.exists" in found.message


def test_merging_lists_and_whom_it_is_for(directory: Path) -> None:
    """Lists are extended; what is for gateways or for other metadata is not for this proxy."""
    more = "{static_resources: {clusters: [{name: mine, type: STATIC, connect_timeout: 1s}]}}"
    graph = graph_of(
        envoy_filter(
            merge(more),
            merge("{node: {cluster: wrong}}", "{context: GATEWAY}"),
            merge("{node: {cluster: wrong}}", "{proxy: {metadata: {NAME: other}}}"),
            merge("{node: {locality: {zone: z}}}", "{proxy: {metadata: {NAME: app-1}}}"),
        )
    )
    made = proxy_of(graph, directory)
    node = server_info(asyncio.run(made.prepare()))["node"]
    assert (node["cluster"], node["locality"]["zone"]) == ("app.default", "z")
    assert list(made.findings()) == []


def test_a_patch_that_comes_later_waits_for_the_next_start(directory: Path) -> None:
    asyncio.run(proxy_of(graph_of(), directory).prepare())
    later = proxy_of(graph_of(envoy_filter(merge("{node: {cluster: patched}}"))), directory)
    assert [each.code for each in later.findings()] == [SETTINGS_CHANGED]
    asyncio.run(later.prepare())
    assert list(later.findings()) == []


def test_what_every_bootstrap_states_is_known() -> None:
    spec = BootstrapSpec(
        pod="a", namespace="b", ip="10.0.0.1", xds=XdsAddress(path="/x"), sds_path="/s", admin_path="/a",
        node_name="n", network="w", mesh_gateway="10.0.0.2:15443", host_sockets={80: "/h"}, labels={"a": "b"},
        annotations={"a": "b"},
    )  # fmt: skip
    assert {key for key, each in node_metadata(spec).items() if isinstance(each, str)} == STATED_METADATA
