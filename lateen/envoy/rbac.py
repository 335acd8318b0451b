"""Authorization rules in the language of Envoy's RBAC filters, for HTTP and for TCP.

A rule is one policy of the filter, named `ns[NAMESPACE]-policy[NAME]-rule[INDEX]`: the name stands in response code
details, dynamic metadata and logs. Envoy keeps what is called (permissions) and who calls (principals) apart.

Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/rbac/v3/rbac.proto
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from envoy.config.core.v3.address_pb2 import CidrRange
from envoy.config.rbac.v3 import rbac_pb2 as pb
from envoy.config.route.v3.route_components_pb2 import HeaderMatcher
from envoy.type.matcher.v3.metadata_pb2 import MetadataMatcher
from envoy.type.matcher.v3.string_pb2 import StringMatcher

from lateen.intent.authorization import NamedRule
from lateen.intent.predicate import (
    Address,
    All,
    Form,
    Header,
    Metadata,
    Not,
    Path,
    Pattern,
    Peer,
    Port,
    Predicate,
    ServerName,
    Side,
    Some,
)


def write_rules(target: pb.RBAC, action: pb.RBAC.Action, rules: Iterable[NamedRule]) -> None:
    """Writes rules as the policies of a filter; ALLOW without any refuses everything."""
    target.action = action
    for each in rules:
        policy = target.policies[each.name]
        write_permission(policy.permissions.add(), each.meaning.target)
        write_principal(policy.principals.add(), each.meaning.caller)


def write_permission(target: pb.Permission, predicate: Predicate) -> None:
    """A predicate about what is called."""
    match predicate:
        case All(items):
            for each in items:
                write_permission(target.and_rules.rules.add(), each)
            if not items:
                target.any = True
        case Some(items):
            for each in items:
                write_permission(target.or_rules.rules.add(), each)
            if not items:
                target.not_rule.any = True
        case Not(item):
            write_permission(target.not_rule, item)
        case Port(number):
            target.destination_port = number
        case ServerName(name):
            write_text(target.requested_server_name, name)
        case Header():
            _write_header(target.header, predicate)
        case Path(value):
            write_text(target.url_path.path, value)
        case Metadata():
            _write_metadata(target.metadata, predicate)
        case Address(side, network) if side is Side.DESTINATION:
            _write_range(target.destination_ip, network)
        case Address() | Peer():
            raise TypeError(f"{predicate} says nothing about what is called")


def write_principal(target: pb.Principal, predicate: Predicate) -> None:
    """A predicate about the caller."""
    match predicate:
        case All(items):
            for each in items:
                write_principal(target.and_ids.ids.add(), each)
            if not items:
                target.any = True
        case Some(items):
            for each in items:
                write_principal(target.or_ids.ids.add(), each)
            if not items:
                target.not_id.any = True
        case Not(item):
            write_principal(target.not_id, item)
        case Peer(name):
            write_text(target.authenticated.principal_name, name)
        case Address(side, network):
            _write_range(_caller_address(target, side), network)
        case Header():
            _write_header(target.header, predicate)
        case Metadata():
            _write_metadata(target.metadata, predicate)
        case Path(value):
            write_text(target.url_path.path, value)
        case Port() | ServerName():
            raise TypeError(f"{predicate} says nothing about the caller")


def _caller_address(target: pb.Principal, side: Side) -> CidrRange:
    """Only `source_ip` honours a PROXY header without believing headers of the request."""
    match side:
        case Side.PEER:
            return target.direct_remote_ip
        case Side.ANNOUNCED:
            return target.source_ip
        case _:
            return target.remote_ip


def write_text(target: StringMatcher, value: Pattern) -> None:
    """A comparison of a text."""
    match value.form:
        case Form.EXACT:
            target.exact = value.value
        case Form.PREFIX:
            target.prefix = value.value
        case Form.SUFFIX:
            target.suffix = value.value
        case Form.REGEX:
            target.safe_regex.regex = value.value
        case Form.PRESENT:
            target.safe_regex.regex = ".+"
    if value.ignore_case and value.form in (Form.EXACT, Form.PREFIX, Form.SUFFIX):
        target.ignore_case = True


def _write_header(target: HeaderMatcher, header: Header) -> None:
    target.name = header.name
    if header.value.form is Form.PRESENT:
        target.present_match = True
    else:
        write_text(target.string_match, header.value)


def _write_metadata(target: MetadataMatcher, metadata: Metadata) -> None:
    target.filter = metadata.filter
    for each in metadata.path:
        target.path.add().key = each
    if metadata.lists and metadata.scalar:
        matchers = target.value.or_match.value_matchers
        write_text(matchers.add().string_match, metadata.value)
        write_text(matchers.add().list_match.one_of.string_match, metadata.value)
    elif metadata.lists:
        write_text(target.value.list_match.one_of.string_match, metadata.value)
    else:
        write_text(target.value.string_match, metadata.value)


def _write_range(target: CidrRange, network: str) -> None:
    parsed = ipaddress.ip_network(network)
    target.address_prefix = str(parsed.network_address)
    target.prefix_len.value = parsed.prefixlen
