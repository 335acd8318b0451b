"""All checks. Adding one is writing it and adding it to this tuple."""

from __future__ import annotations

from lateen.analysis.check import Check
from lateen.analysis.checks import (
    authorization_rules,
    claims,
    destination_rule,
    envoy_filter,
    gateway,
    peer_authentication,
    pods,
    security_policies,
    service,
    service_entry,
    sidecar,
    virtual_service,
)

CHECKS: tuple[Check, ...] = (
    virtual_service.unknown_gateway,
    virtual_service.unknown_destination,
    virtual_service.unknown_subset,
    virtual_service.unknown_delegate,
    virtual_service.ambiguous_port,
    virtual_service.host_not_on_gateway,
    virtual_service.conflicting_hosts,
    claims.claims_without_tokens,
    destination_rule.unknown_host,
    destination_rule.empty_subset,
    destination_rule.selects_nothing,
    gateway.selects_nothing,
    gateway.port_not_on_workload,
    gateway.missing_credential,
    gateway.conflicting_servers,
    gateway.loses_to_another,
    gateway.no_http3,
    sidecar.selects_nothing,
    sidecar.conflicting_selectors,
    sidecar.several_defaults,
    peer_authentication.selects_nothing,
    peer_authentication.port_not_on_workload,
    peer_authentication.several_policies,
    service.selects_nothing,
    service.unknown_target_port,
    service.port_name_says_nothing,
    service_entry.selects_nothing,
    service_entry.address_needed,
    *envoy_filter.CHECKS,
    *pods.CHECKS,
    *security_policies.CHECKS,
    *authorization_rules.CHECKS,
)
