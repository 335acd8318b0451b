"""Cells of tables: ages, Pods with a proxy, JSON paths of custom columns."""

from __future__ import annotations

import datetime as dt

import pytest

from lateen.api.struct import Json
from lateen.apiserver.columns import duration
from lateen.apiserver.resources import Resources
from lateen.apiserver.tables import find, row

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (3600, "60m"), (10_800, "3h"), (11_000, "3h3m"),
     (90_000, "25h"), (200_000, "2d7h"), (864_000, "10d"), (70_000_000, "2y80d")],
)  # fmt: skip
def test_durations(seconds: int, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_pod_with_a_proxy() -> None:
    statuses = [{"name": "web", "ready": True, "restartCount": 1}, {"name": "istio-proxy", "ready": False}]
    pod: Json = {
        "metadata": {"name": "web", "creationTimestamp": "2029-12-31T23:59:00Z"},
        "spec": {"containers": [{"name": "web"}]},
        "status": {"phase": "Running", "containerStatuses": statuses},
    }
    resource = Resources().of(("", "Pod"))
    assert resource is not None
    cells = row(resource, resource.versions["v1"], pod, NOW, "None")["cells"]
    assert cells[:4] == ["web", "1/2", "Running", "1"]
    assert cells[-1] == "60s"


def test_paths() -> None:
    document = {"a": [{"n": "x", "v": 1}, {"n": "y", "v": 2}], "b": {"c.d": "e"}}
    assert find(".a[1].v", document) == [2]
    assert find(".a[*].n", document) == ["x", "y"]
    assert find('.a[?(@.n=="y")].v', document) == [2]
    assert find(".b['c.d']", document) == ["e"]
    assert find(".nothing.here", document) == []
    assert find("nonsense[", document) == []
