"""VirtualService: routing of HTTP requests, TLS and TCP connections (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from lateen.api.istio.selectors import PortSelector
from lateen.api.struct import Base64, Int32, Object, PositiveDuration, Struct, UInt32, field


class Destination(Struct, frozen=True):
    """A host, a subset of it, and a port."""

    host: str
    port: PortSelector | None = None
    subset: str | None = None


class StringMatch(Struct, frozen=True):
    """A string by its whole, its beginning, or an RE2 expression for all of it."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("exact", "prefix", "regex"),)

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class CorsPolicy(Struct, frozen=True):
    """Which origins a browser may call from."""

    allow_credentials: bool | None = None
    allow_headers: tuple[str, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_origin: tuple[str, ...] = ()
    allow_origins: tuple[StringMatch, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: PositiveDuration | None = None
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] | None = None


class Delegate(Struct, frozen=True):
    """Another VirtualService whose rules stand in for this one."""

    name: str | None = None
    namespace: str | None = None


class HTTPBody(Struct, frozen=True):
    """The body of an answer."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("string", "bytes"),)

    bytes: Base64 | None = None
    string: str | None = None


class HTTPDirectResponse(Struct, frozen=True):
    """An answer given by the proxy itself."""

    status: UInt32
    body: HTTPBody | None = None


class Percent(Struct, frozen=True):
    """A share of the requests, 0.0 to 100.0."""

    value: float | None = None


class Abort(Struct, frozen=True):
    """Requests that are refused on purpose."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("httpStatus", "grpcStatus", "http2Error"),)

    grpc_status: str | None = None
    http2_error: str | None = None
    http_status: Int32 | None = None
    percentage: Percent | None = None


class Delay(Struct, frozen=True):
    """Requests that are held up on purpose."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("fixedDelay", "exponentialDelay"),)

    exponential_delay: PositiveDuration | None = None
    fixed_delay: PositiveDuration | None = None
    percent: Int32 | None = None
    percentage: Percent | None = None


class HTTPFaultInjection(Struct, frozen=True):
    """Failures made on purpose."""

    abort: Abort | None = None
    delay: Delay | None = None


class HeaderOperations(Struct, frozen=True):
    """Headers that are set, added and removed."""

    add: Mapping[str, str] = {}
    remove: tuple[str, ...] = ()
    set: Mapping[str, str] = {}


class Headers(Struct, frozen=True):
    """Changes of headers."""

    request: HeaderOperations | None = None
    response: HeaderOperations | None = None


class HTTPMatchRequest(Struct, frozen=True):
    """What a request must look like: everything that is set must match."""

    authority: StringMatch | None = None
    gateways: tuple[str, ...] = ()
    headers: Mapping[str, StringMatch] = {}
    ignore_uri_case: bool | None = None
    method: StringMatch | None = None
    name: str | None = None
    port: UInt32 | None = None
    query_params: Mapping[str, StringMatch] = {}
    scheme: StringMatch | None = None
    source_labels: Mapping[str, str] = {}
    source_namespace: str | None = None
    stat_prefix: str | None = None
    uri: StringMatch | None = None
    without_headers: Mapping[str, StringMatch] = {}


class HTTPMirrorPolicy(Struct, frozen=True):
    """A destination that gets a copy of some requests."""

    destination: Destination
    percentage: Percent | None = None


class HTTPRedirect(Struct, frozen=True):
    """An answer that sends the client elsewhere."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("port", "derivePort"),)

    authority: str | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    port: UInt32 | None = None
    prefix_rewrite: str | None = None
    redirect_code: UInt32 | None = None
    scheme: str | None = None
    uri: str | None = None


class HTTPRetry(Struct, frozen=True):
    """When and how often a request is tried again."""

    attempts: Int32 | None = None
    backoff: PositiveDuration | None = None
    per_try_timeout: PositiveDuration | None = None
    retry_ignore_previous_hosts: bool | None = None
    retry_on: str | None = None
    retry_remote_localities: bool | None = None


class RegexRewrite(Struct, frozen=True):
    """A path rewritten by an RE2 expression."""

    match: str | None = None
    rewrite: str | None = None


class HTTPRewrite(Struct, frozen=True):
    """What of a request is changed before it is sent on."""

    authority: str | None = None
    uri: str | None = None
    uri_regex_rewrite: RegexRewrite | None = None


class HTTPRouteDestination(Struct, frozen=True):
    """A destination of a rule with its share of the requests."""

    destination: Destination
    headers: Headers | None = None
    weight: Int32 | None = None


class HTTPRoute(Struct, frozen=True):
    """One rule: which requests, and what becomes of them."""

    cors_policy: CorsPolicy | None = None
    delegate: Delegate | None = None
    direct_response: HTTPDirectResponse | None = None
    fault: HTTPFaultInjection | None = None
    headers: Headers | None = None
    match: tuple[HTTPMatchRequest, ...] = ()
    mirror: Destination | None = None
    mirror_percent_alias: UInt32 | None = field(default=None, name="mirror_percent")
    mirror_percent: UInt32 | None = None
    mirror_percentage: Percent | None = None
    mirrors: tuple[HTTPMirrorPolicy, ...] = ()
    name: str | None = None
    redirect: HTTPRedirect | None = None
    retries: HTTPRetry | None = None
    rewrite: HTTPRewrite | None = None
    route: tuple[HTTPRouteDestination, ...] = ()
    timeout: PositiveDuration | None = None


class L4MatchAttributes(Struct, frozen=True):
    """What a connection must look like."""

    destination_subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    port: UInt32 | None = None
    source_labels: Mapping[str, str] = {}
    source_namespace: str | None = None
    source_subnet: str | None = None


class RouteDestination(Struct, frozen=True):
    """A destination of a rule with its share of the connections."""

    destination: Destination
    weight: Int32 | None = None


class TCPRoute(Struct, frozen=True):
    """One rule for connections."""

    match: tuple[L4MatchAttributes, ...] = ()
    route: tuple[RouteDestination, ...] = ()


class TLSMatchAttributes(Struct, frozen=True):
    """What a TLS connection must look like."""

    sni_hosts: tuple[str, ...]
    destination_subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    port: UInt32 | None = None
    source_labels: Mapping[str, str] = {}
    source_namespace: str | None = None


class TLSRoute(Struct, frozen=True):
    """One rule for TLS connections that are passed through."""

    match: tuple[TLSMatchAttributes, ...]
    route: tuple[RouteDestination, ...] = ()


class VirtualServiceSpec(Struct, frozen=True):
    """Routing rules for requests and connections to some hosts."""

    export_to: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    http: tuple[HTTPRoute, ...] = ()
    tcp: tuple[TCPRoute, ...] = ()
    tls: tuple[TLSRoute, ...] = ()


class VirtualService(Object, frozen=True):
    """Routing rules."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "VirtualService"

    spec: VirtualServiceSpec = VirtualServiceSpec()
