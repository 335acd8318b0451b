"""The page on settings of proxies does what it says, on the Envoy that a Pod would get.

Expectations: a Pod's `namespace`, `app` (label) and `annotation`, then `concurrency`, `drain`, `metadata` as Envoy says
them of itself, `env` of its process, `termination` (seconds) of its end.
"""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

import yaml

from tests.configuration import graph_of
from tests.docs.pages import steps
from tests.docs.test_features import PAGES
from tests.envoy.harness import short_directory
from tests.envoy.proxy_program import proxy_of, server_info

KEYS = {"namespace", "app", "annotation", "concurrency", "drain", "metadata", "env", "termination"}


def test_page() -> None:
    graph = graph_of()
    checked = 0
    for step in steps(PAGES / "proxy-config.md"):
        if step.kind == "apply":
            graph = graph_of(step.text)
            continue
        for expected in yaml.safe_load(step.text):
            assert not expected.keys() - KEYS, expected
            _check(graph, expected)
            checked += 1
    assert checked


def _check(graph: Any, expected: dict[str, Any]) -> None:
    directory = short_directory()
    annotation = expected.get("annotation", "")
    made = proxy_of(graph, directory, app=expected["app"], namespace=expected["namespace"], annotation=annotation)
    proxy = asyncio.run(made.prepare())
    said = server_info(proxy)
    shutil.rmtree(directory)
    options = said["command_line_options"]
    assert (options["concurrency"], options["drain_time"]) == (expected["concurrency"], expected["drain"]), expected
    assert expected.get("metadata", {}).items() <= said["node"]["metadata"].items(), expected
    assert expected.get("env", {}).items() <= proxy.env.items(), expected
    assert proxy.drain_s == expected.get("termination", proxy.drain_s), expected
