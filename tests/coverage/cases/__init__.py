"""The rows of the coverage table, a module a kind."""

from __future__ import annotations

from tests.coverage.case import Case, Refusal
from tests.coverage.cases import destination_rule, gateway, service_entry, sidecar, virtual_service

KINDS = (virtual_service, destination_rule, gateway, service_entry, sidecar)


def cases() -> list[Case]:
    """Every row that is shown by traffic."""
    return [each for kind in KINDS for each in kind.cases()]


def refusals() -> list[Refusal]:
    """Every row that is a finding."""
    return [each for kind in KINDS for each in kind.refusals()]
