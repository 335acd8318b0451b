"""The rows of the coverage table, a module a kind."""

from __future__ import annotations

from tests.coverage.case import Case, Refusal
from tests.coverage.cases import (
    destination_rule,
    envoy_filter,
    extensions,
    gateway,
    proxy_config,
    security,
    service_entry,
    sidecar,
    virtual_service,
    workload_entry,
    workload_group,
)

KINDS = (
    virtual_service,
    destination_rule,
    gateway,
    service_entry,
    sidecar,
    workload_entry,
    workload_group,
    proxy_config,
    security,
    envoy_filter,
    extensions,
)


def cases() -> list[Case]:
    """Every row that is shown by traffic."""
    return [each for kind in KINDS for each in kind.cases()]


def refusals() -> list[Refusal]:
    """Every row that is a finding."""
    return [each for kind in KINDS for each in kind.refusals()]
