"""Patches of the bootstrap on the real Envoy: taken where it would start with them, left out and named where not."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lateen.lib.ids import STATED_METADATA
from lateen.node.bootstrap import BootstrapSpec, XdsAddress, node_metadata
from lateen.platform.pod import ContainerState, Ended
from lateen.platform.proxy import PATCH_REFUSED, SETTINGS_CHANGED
from tests.configuration import graph_of
from tests.envoy.harness import short_directory
from tests.envoy.proxy_program import proxy_of, server_info
from tests.unit.envoy.test_patches import envoy_filter, one

ECHO = "envoy.extensions.filters.network.echo.v3.Echo"


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
    (found,) = asyncio.run(made.look(None))
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
    assert asyncio.run(made.look(None)) == []


def test_a_proxy_that_ends_with_patches_before_it_is_ready_starts_without_them(directory: Path) -> None:
    """An address that is not here is no fault of the document: Envoy finds it out when it starts."""
    echo = f'{{name: envoy.filters.network.echo, typed_config: {{"@type": type.googleapis.com/{ECHO}}}}}'
    address = "{socket_address: {address: 192.0.2.1, port_value: 1}}"
    listener = f"{{name: mine, address: {address}, filter_chains: [{{filters: [{echo}]}}]}}"
    graph = graph_of(envoy_filter(merge(f"{{static_resources: {{listeners: [{listener}]}}}}")))
    made = proxy_of(graph, directory)
    program = asyncio.run(made.prepare())
    ended = subprocess.run(program.argv, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode != 0
    assert "cannot bind '192.0.2.1:1'" in ended.stderr
    last = Ended(exit_code=ended.returncode, reason="Error", message="cannot bind", started_at=0, finished_at=0)
    crashed = ContainerState(name="istio-proxy", phase="waiting", restarts=1, last=last)
    (found,) = asyncio.run(made.look(crashed))
    assert found.code == PATCH_REFUSED
    assert "configPatches[0]: it ended: cannot bind" in found.message
    assert server_info(program)["state"] in ("LIVE", "INITIALIZING", "PRE_INITIALIZING")


def test_a_proxy_that_was_ready_keeps_its_patches(directory: Path) -> None:
    made = proxy_of(graph_of(envoy_filter(merge("{node: {cluster: patched}}"))), directory)
    program = asyncio.run(made.prepare())
    last = Ended(exit_code=1, reason="Error", message="killed", started_at=0, finished_at=0)
    for ready in (True, False):
        state = ContainerState(name="istio-proxy", phase="running", ready=ready, last=None if ready else last)
        assert asyncio.run(made.look(state)) == []
    assert server_info(program)["node"]["cluster"] == "patched"


def test_a_patch_that_comes_later_waits_for_the_next_start(directory: Path) -> None:
    asyncio.run(proxy_of(graph_of(), directory).prepare())
    later = proxy_of(graph_of(envoy_filter(merge("{node: {cluster: patched}}"))), directory)
    assert [each.code for each in asyncio.run(later.look(None))] == [SETTINGS_CHANGED]
    asyncio.run(later.prepare())
    assert asyncio.run(later.look(None)) == []


def test_what_every_bootstrap_states_is_known() -> None:
    spec = BootstrapSpec(
        pod="a", namespace="b", ip="10.0.0.1", xds=XdsAddress(path="/x"), sds_path="/s", admin_path="/a",
        node_name="n", network="w", mesh_gateway="10.0.0.2:15443", host_sockets={80: "/h"}, labels={"a": "b"},
        annotations={"a": "b"},
    )  # fmt: skip
    assert {key for key, each in node_metadata(spec).items() if isinstance(each, str)} == STATED_METADATA
