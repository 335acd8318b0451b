"""Whose traffic a change can alter."""

from __future__ import annotations

from typing import Any

import pytest

from lateen.analysis.reach import answers_itself, reach
from lateen.lib.ids import Ref

DETAILS = "details.default.svc.cluster.local"
ISTIO = "networking.istio.io"


def virtual_service(**spec: Any) -> tuple[Ref, dict[str, Any]]:
    return Ref(ISTIO, "VirtualService", "default", "x"), {"spec": spec}


def to(host: str) -> list[dict[str, Any]]:
    return [{"route": [{"destination": {"host": host}}]}]


@pytest.mark.parametrize(
    ("ref", "body", "concerned"),
    [
        (*virtual_service(hosts=["details"]), True),
        (*virtual_service(hosts=["reviews"], http=to("reviews")), False),
        (*virtual_service(hosts=["reviews"], http=to("details.default.svc.cluster.local")), True),
        (*virtual_service(hosts=["*.example"], gateways=["g"], http=to("details")), True),
        (*virtual_service(hosts=["*"], gateways=["g"], http=to("productpage")), False),
        (*virtual_service(http=to("reviews")), True),  # a delegate: its hosts are another's
        (Ref(ISTIO, "DestinationRule", "default", "x"), {"spec": {"host": "details"}}, True),
        (Ref(ISTIO, "DestinationRule", "default", "x"), {"spec": {"host": "*.default.svc.cluster.local"}}, True),
        (Ref(ISTIO, "DestinationRule", "default", "x"), {"spec": {"host": "ratings"}}, False),
        (Ref(ISTIO, "ServiceEntry", "default", "x"), {"spec": {"hosts": ["a.example"]}}, False),
        (Ref(ISTIO, "Sidecar", "other", "x"), {"spec": {}}, True),
        (Ref("security.istio.io", "AuthorizationPolicy", "other", "x"), {}, True),
        (Ref("", "ConfigMap", "istio-system", "istio"), {"data": {}}, True),
        (Ref("", "ConfigMap", "istio-system", "other"), {"data": {}}, False),
        (Ref("", "ConfigMap", "default", "app"), {"data": {}}, True),
        (Ref("apps", "Deployment", "default", "details-v1"), {}, True),
        (Ref("apps", "Deployment", "other", "x"), {}, False),
        (Ref("", "Service", "default", "details"), {}, True),
        (Ref("", "Service", "default", "reviews"), {}, False),
        (Ref("serving.example", "Service", "default", "details"), {"spec": [1]}, False),
        (Ref("other.example", "VirtualService", "default", "details"), {"spec": "x"}, False),
        (Ref("rbac.authorization.k8s.io", "Role", "default", "x"), {}, False),
    ],
)
def test_reach(ref: Ref, body: dict[str, Any], concerned: bool) -> None:
    assert reach(ref, [body], "cluster.local").concerns(DETAILS, "cluster.local") is concerned


def test_what_it_was_counts_too() -> None:
    ref, before = virtual_service(hosts=["details"])
    _, after = virtual_service(hosts=["reviews"])
    assert reach(ref, [before, after], "cluster.local").concerns(DETAILS, "cluster.local")


def test_who_answers_itself() -> None:
    ref, body = virtual_service(hosts=["details"])
    assert answers_itself(ref, body["spec"], "cluster.local") == DETAILS
    assert answers_itself(ref, {"hosts": ["*"]}, "cluster.local") == ""
    assert answers_itself(ref, {"hosts": ["a.example", "b.example"]}, "cluster.local") == ""
