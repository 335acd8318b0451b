"""Listener filters: what looks at a connection before a filter chain is chosen.

Inspectors read the first bytes, so a server that speaks first would wait for them: they are left out, or switched
off for the ports where they aren't needed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from envoy.config.core.v3.address_pb2 import CidrRange
from envoy.config.listener.v3.listener_components_pb2 import ListenerFilter, ListenerFilterChainMatchPredicate
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.listener.http_inspector.v3.http_inspector_pb2 import HttpInspector
from envoy.extensions.filters.listener.original_dst.v3.original_dst_pb2 import OriginalDst
from envoy.extensions.filters.listener.proxy_protocol.v3.proxy_protocol_pb2 import ProxyProtocol
from envoy.extensions.filters.listener.tls_inspector.v3.tls_inspector_pb2 import TlsInspector
from google.protobuf.message import Message

from lateen.features.encoding import pack

HTTP_ALPN = ("http/1.0", "http/1.1", "h2c")
"""What the HTTP inspector calls plain HTTP."""
RAW = "raw_buffer"
TLS = "tls"


def add_original_destination(listener: Listener) -> None:
    """The address the client dialled, from the kernel."""
    _add(listener, "envoy.filters.listener.original_dst", OriginalDst())


def add_proxy_protocol(listener: Listener) -> None:
    """The client's address, from a PROXY header."""
    _add(listener, "envoy.filters.listener.proxy_protocol", ProxyProtocol())


def add_tls_inspector(listener: Listener, but: Iterable[int] = ()) -> None:
    """Whether it is TLS, its server name and ALPN; not on the destination ports `but`."""
    _except(_add(listener, "envoy.filters.listener.tls_inspector", TlsInspector()), but)


def add_http_inspector(listener: Listener, but: Iterable[int] = ()) -> None:
    """Whether it is plain HTTP, and which; not on the destination ports `but`."""
    _except(_add(listener, "envoy.filters.listener.http_inspector", HttpInspector()), but)


def _add(listener: Listener, name: str, config: Message) -> ListenerFilter:
    message = listener.listener_filters.add()
    message.name = name
    pack(message.typed_config, config)
    return message


def _except(message: ListenerFilter, ports: Iterable[int]) -> None:
    found = sorted(set(ports))
    if not found:
        return
    rules = [_on_port(each) for each in found]
    if len(rules) == 1:
        message.filter_disabled.CopyFrom(rules[0])
    else:
        message.filter_disabled.or_match.rules.extend(rules)


def _on_port(port: int) -> ListenerFilterChainMatchPredicate:
    rule = ListenerFilterChainMatchPredicate()
    rule.destination_port_range.start = port
    rule.destination_port_range.end = port + 1
    return rule


def set_range(written: CidrRange, said: str) -> None:
    """Writes an address or a network."""
    network = ipaddress.ip_network(said, strict=False)
    written.address_prefix = str(network.network_address)
    written.prefix_len.value = network.prefixlen
