"""The filters that enforce security policies, in the order in which Istio asks them.

For requests: tokens are verified, then external authorizers are asked, then DENY, then ALLOW; AUDIT only leaves a
note. For connections the same without tokens. A filter that has nothing to enforce is not there.

Source: https://istio.io/latest/docs/concepts/security/#authorization-policies
"""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.common.set_filter_state.v3.value_pb2 import FilterStateValue
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    HttpFilter,
)
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac
from envoy.extensions.filters.network.set_filter_state.v3.set_filter_state_pb2 import Config as SetFilterState
from google.protobuf.message import Message

from lateen.envoy import ext_authz, jwt
from lateen.envoy.gate import NOWHERE, Gate, destination, reason, tcp_gate
from lateen.envoy.rbac import write_rules
from lateen.envoy.security_log import (
    AUDITED,
    DRY_RUN,
    EXPLAINED,
    HTTP_RBAC,
    NETWORK_RBAC,
    REFUSED_STATE,
    add_explanation,
    add_security_logs,
)
from lateen.envoy.virtual_host import field
from lateen.features.encoding import pack
from lateen.intent.authorization import NamedRule
from lateen.intent.security import ALLOW, AUDIT, CUSTOM, DENY, Authorizer, Security

SET_FILTER_STATE = "envoy.filters.network.set_filter_state"
DESTINATION_STATE = "envoy.network.transport_socket.original_dst_address"
"""What clusters of original destinations dial instead of the address the client wanted."""
_ON_DOWNSTREAM_TLS_HANDSHAKE = 2
"""The number of that field of the filter's Config."""
TCP_PREFIX = "tcp."

SECURITY_FILTERS = (jwt.NAME, ext_authz.HTTP_NAME, HTTP_RBAC)
"""The names of the HTTP filters that policies become."""

_ACTIONS = {
    DENY: rbac_pb2.RBAC.DENY,
    ALLOW: rbac_pb2.RBAC.ALLOW,
    AUDIT: rbac_pb2.RBAC.ALLOW,
    CUSTOM: rbac_pb2.RBAC.DENY,
}


def http_security(security: Security, *, reroutes: bool = False) -> tuple[HttpFilter, ...]:
    """The HTTP filters for some policies, first to last."""
    found: list[tuple[str, Message]] = []
    if security.issuers:
        found.append((jwt.NAME, jwt.jwt_authentication(security.issuers, reroutes=reroutes)))
    if security.explains:
        found.append((HTTP_RBAC, _http_shadow(security.rules(security.explains), AUDIT, EXPLAINED)))
    for each in security.authorizers:
        found += _http_authorizer(security, each)
    if trial := security.of(CUSTOM, dry_run=True):
        found.append((HTTP_RBAC, _http_shadow(security.rules(trial), CUSTOM, DRY_RUN.format("custom"))))
    for action in (AUDIT, DENY, ALLOW):
        found += ((HTTP_RBAC, each) for each in _http_rbac(security, action))
    return tuple(_http_filter(name, config) for name, config in found)


def add_http_security(manager: HttpConnectionManager, security: Security, log: str, *, reroutes: bool) -> None:
    """Adds the filters, log lines and explanations of some policies to a connection manager.

    `log` is the file of the access log, may be empty. `reroutes`: claims may choose routes.
    """
    add_security_logs(manager, security, log)
    add_explanation(manager, security)
    manager.http_filters.extend(http_security(security, reroutes=reroutes))


def add_network_security(chain: FilterChain, security: Security, *, tls: bool, settable: bool) -> bool:
    """Adds the filters of some policies to a filter chain; true when the TCP proxy behind must wait for the client's
    first byte. `tls`: the peer shows a certificate. `settable`: the cluster behind dials where it is told."""
    gate = tcp_gate(security, tls=tls, settable=settable)
    if gate is not None and gate.expression:
        chain.filters.append(_network_filter(SET_FILTER_STATE, _gate_state(gate, tls=tls)))
    chain.filters.extend(network_security(security))
    return gate is not None and gate.waits


def _gate_state(gate: Gate, *, tls: bool) -> SetFilterState:
    state = SetFilterState()
    state.on_new_connection.append(_value(DESTINATION_STATE, NOWHERE))
    decided = [_value(DESTINATION_STATE, destination(gate)), _value(REFUSED_STATE, reason(gate), "envoy.string")]
    for each in decided:
        if tls:  # the field is newer than the generated classes
            state.MergeFromString(field(_ON_DOWNSTREAM_TLS_HANDSHAKE, each.SerializeToString(deterministic=True)))
        else:
            state.on_new_connection.append(each)
    return state


def _value(key: str, said: str, factory: str = "") -> FilterStateValue:
    value = FilterStateValue()
    value.object_key = key
    value.factory_key = factory
    value.format_string.text_format_source.inline_string = said
    value.skip_if_empty = True
    return value


def network_security(security: Security) -> tuple[Filter, ...]:
    """The network filters for some policies, first to last."""
    found: list[tuple[str, Message]] = []
    for each in security.authorizers:
        config = ext_authz.network_ext_authz(each)
        if config is None:
            if each.settings is None or each.settings.http is None:
                rules = ext_authz.marked(security.rules(each.policies, tcp=True))
                found.append((NETWORK_RBAC, _network_rbac(rules, DENY)))
            continue
        marks = ext_authz.marked(security.rules(each.policies, tcp=True))
        found.append((NETWORK_RBAC, _network_shadow(marks, CUSTOM, ext_authz.mark_prefix(each.name))))
        found.append((ext_authz.NETWORK_NAME, config))
    if trial := security.of(CUSTOM, dry_run=True):
        found.append((NETWORK_RBAC, _network_shadow(security.rules(trial, tcp=True), CUSTOM, DRY_RUN.format("custom"))))
    for action in (AUDIT, DENY, ALLOW):
        enforced, trial = security.of(action), security.of(action, dry_run=True)
        if action == AUDIT and enforced:
            found.append((NETWORK_RBAC, _network_shadow(security.rules(enforced, tcp=True), AUDIT, AUDITED)))
        elif enforced:
            found.append((NETWORK_RBAC, _network_rbac(security.rules(enforced, tcp=True), action)))
        if trial:
            prefix = DRY_RUN.format(action.lower())
            found.append((NETWORK_RBAC, _network_shadow(security.rules(trial, tcp=True), action, prefix)))
    return tuple(_network_filter(name, config) for name, config in found)


def _http_authorizer(security: Security, authorizer: Authorizer) -> Iterator[tuple[str, Message]]:
    rules = security.rules(authorizer.policies)
    if not authorizer.cluster:
        said = (authorizer.settings.grpc or authorizer.settings.http) if authorizer.settings is not None else None
        if said is None or not said.fail_open:
            refusing = http_rbac.RBAC()
            write_rules(refusing.rules, rbac_pb2.RBAC.DENY, ext_authz.marked(rules))
            yield HTTP_RBAC, refusing
        return
    yield HTTP_RBAC, _http_shadow(ext_authz.marked(rules), CUSTOM, ext_authz.mark_prefix(authorizer.name))
    yield ext_authz.HTTP_NAME, ext_authz.http_ext_authz(authorizer)


def _http_rbac(security: Security, action: str) -> Iterator[http_rbac.RBAC]:
    enforced, trial = security.of(action), security.of(action, dry_run=True)
    if action == AUDIT and enforced:
        yield _http_shadow(security.rules(enforced), AUDIT, AUDITED)
    elif enforced:
        config = http_rbac.RBAC()
        write_rules(config.rules, _ACTIONS[action], security.rules(enforced))
        yield config
    if trial:
        yield _http_shadow(security.rules(trial), action, DRY_RUN.format(action.lower()))


def _http_shadow(rules: tuple[NamedRule, ...], action: str, prefix: str) -> http_rbac.RBAC:
    config = http_rbac.RBAC()
    write_rules(config.shadow_rules, _ACTIONS[action], rules)
    config.shadow_rules_stat_prefix = prefix
    return config


def _network_rbac(rules: tuple[NamedRule, ...], action: str) -> network_rbac.RBAC:
    config = network_rbac.RBAC()
    config.stat_prefix = TCP_PREFIX
    write_rules(config.rules, _ACTIONS[action], rules)
    return config


def _network_shadow(rules: tuple[NamedRule, ...], action: str, prefix: str) -> network_rbac.RBAC:
    config = network_rbac.RBAC()
    config.stat_prefix = TCP_PREFIX
    write_rules(config.shadow_rules, _ACTIONS[action], rules)
    config.shadow_rules_stat_prefix = prefix
    return config


def _http_filter(name: str, config: Message) -> HttpFilter:
    message = HttpFilter()
    message.name = name
    pack(message.typed_config, config)
    return message


def _network_filter(name: str, config: Message) -> Filter:
    message = Filter()
    message.name = name
    pack(message.typed_config, config)
    return message
