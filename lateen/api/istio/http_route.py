"""An HTTP rule of a VirtualService: what becomes of the requests it matches (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from lateen.api import rules
from lateen.api.istio import traffic_rules as traffic
from lateen.api.istio.http_match import HTTPMatchRequest, StringMatch
from lateen.api.istio.selectors import PortSelector
from lateen.api.problems import Problem, at, deprecated, warning
from lateen.api.struct import Base64, Int32, PositiveDuration, Struct, UInt32, field
from lateen.lib.names import is_label
from lateen.lib.regex import rewrite_problem
from lateen.lib.suggest import did_you_mean


class Destination(Struct, frozen=True):
    """A host, a subset of it, and a port."""

    host: str
    port: PortSelector | None = None
    subset: str | None = None

    def problems(self) -> Iterator[Problem]:
        if self.host == "*":
            yield Problem("host", "* is no service", "name one; *.example.com may be the host of a ServiceEntry")
        elif self.host.startswith("*"):
            yield from rules.host_pattern("host", self.host)
        else:
            yield from rules.host("host", self.host)
        if self.subset:
            yield from traffic.subset("subset", self.subset)


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

    def problems(self) -> Iterator[Problem]:
        if self.allow_origin:
            yield deprecated("allowOrigin", "allowOrigins")
        for index, origin in enumerate(self.allow_origins):
            for each in origin.texts():
                yield Problem(at("allowOrigins", index, each.path), each.message, each.remedy)
            if origin.exact == "*" and self.allow_credentials:
                message = "with allowCredentials every web page may act as the user"
                yield warning(at("allowOrigins", index), message, "name the origins")
        for part, names in (("allowHeaders", self.allow_headers), ("exposeHeaders", self.expose_headers)):
            for index, name in enumerate(names):
                if name != "*":
                    yield from rules.header_name(at(part, index), name)
        for index, method in enumerate(self.allow_methods):
            if method != "*" and method not in traffic.METHODS:
                known = ", ".join(traffic.METHODS)
                yield Problem(at("allowMethods", index), f'"{method[:40]}" is not a method', f"use {known}")
        if self.max_age is not None and self.max_age.nanoseconds % 1_000_000_000:
            yield Problem("maxAge", f"{self.max_age} is not a whole number of seconds", "browsers count seconds")


class Delegate(Struct, frozen=True):
    """Another VirtualService whose rules stand in for this one."""

    name: str | None = None
    namespace: str | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.name:
            yield Problem("", '"name" is missing', "name the VirtualService that has the rules")
        if self.namespace and not is_label(self.namespace):
            yield Problem("namespace", f'"{self.namespace[:80]}" is no namespace', "write the name of a namespace")


class HTTPBody(Struct, frozen=True):
    """The body of an answer."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("string", "bytes"),)

    bytes: Base64 | None = None
    string: str | None = None


class HTTPDirectResponse(Struct, frozen=True):
    """An answer given by the proxy itself."""

    status: UInt32
    body: HTTPBody | None = None

    def problems(self) -> Iterator[Problem]:
        yield from traffic.http_status("status", self.status)
        size = len(self.body.string or self.body.bytes or "") if self.body is not None else 0
        if size > traffic.BODY_MAX:
            yield Problem("body", f"the body has {size} characters", f"at most {traffic.BODY_MAX} are allowed")
        elif size > traffic.BODY_LARGE:
            yield warning("body", f"the body has {size} characters, in every proxy", "let a server answer")


class Percent(Struct, frozen=True):
    """A share of the requests, 0.0 to 100.0."""

    value: float | None = None

    def problems(self) -> Iterator[Problem]:
        yield from rules.share("value", self.value)


class Abort(Struct, frozen=True):
    """Requests that are refused on purpose."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("httpStatus", "grpcStatus", "http2Error"),)

    grpc_status: str | None = None
    http2_error: str | None = None
    http_status: Int32 | None = None
    percentage: Percent | None = None

    def problems(self) -> Iterator[Problem]:
        if self.http_status is None and self.grpc_status is None and self.http2_error is None:
            yield Problem("", "what the request is answered with is missing", 'set "httpStatus" or "grpcStatus"')
        yield from traffic.http_status("httpStatus", self.http_status)
        if self.grpc_status is not None:
            yield from traffic.grpc_status("grpcStatus", self.grpc_status)
        if self.percentage is None:
            yield warning("", "no request is aborted without a percentage", "set percentage.value")


class Delay(Struct, frozen=True):
    """Requests that are held up on purpose."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("fixedDelay", "exponentialDelay"),)

    exponential_delay: PositiveDuration | None = None
    fixed_delay: PositiveDuration | None = None
    percent: Int32 | None = None
    percentage: Percent | None = None

    def problems(self) -> Iterator[Problem]:
        if self.fixed_delay is None and self.exponential_delay is None:
            yield Problem("", "the delay is missing", 'set "fixedDelay"')
        if self.percent is not None:
            yield deprecated("percent", "percentage.value")
            yield from rules.share("percent", self.percent)
        elif self.percentage is None:
            yield warning("", "no request is delayed without a percentage", "set percentage.value")


class HTTPFaultInjection(Struct, frozen=True):
    """Failures made on purpose."""

    abort: Abort | None = None
    delay: Delay | None = None

    def problems(self) -> Iterator[Problem]:
        if self.abort is None and self.delay is None:
            yield Problem("", "what goes wrong is missing", 'set "delay", "abort" or both')


class HeaderOperations(Struct, frozen=True):
    """Headers that are set, added and removed."""

    add: Mapping[str, str] = {}
    remove: tuple[str, ...] = ()
    set: Mapping[str, str] = {}


class Headers(Struct, frozen=True):
    """Changes of headers."""

    request: HeaderOperations | None = None
    response: HeaderOperations | None = None

    def problems(self) -> Iterator[Problem]:
        for side, operations in (("request", self.request), ("response", self.response)):
            if operations is None:
                continue
            written = [("set", name) for name in operations.set] + [("add", name) for name in operations.add]
            written += [("remove", index) for index in range(len(operations.remove))]
            for part, key in written:
                name = key if isinstance(key, str) else operations.remove[key]
                authority = name.lower() in ("host", ":authority")
                if authority and (side == "response" or part != "set"):
                    yield Problem(at(side, part, key), f"{name} can only be set, on requests", "use rewrite.authority")
                elif not authority:
                    yield from rules.header_name(at(side, part, key), name)
            for part, values in (("set", operations.set), ("add", operations.add)):
                for name, value in values.items():
                    if reason := traffic.format_problem(value):
                        yield Problem(at(side, part, name), reason, "write %% for a single %")


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

    def problems(self) -> Iterator[Problem]:
        said = (self.uri, self.authority, self.scheme, self.port, self.derive_port, self.prefix_rewrite)
        if all(each is None for each in said):
            yield Problem("", "where to is missing", 'set "uri", "prefixRewrite", "authority", "scheme" or "port"')
        if self.uri and self.prefix_rewrite:
            yield Problem("prefixRewrite", '"uri" and "prefixRewrite" exclude each other', "keep one of them")
        if self.redirect_code not in (None, 0, 301, 302, 303, 307, 308):
            yield Problem("redirectCode", f"{self.redirect_code} is no redirect", "use 301, 302, 303, 307 or 308")
        if self.scheme and self.scheme not in ("http", "https"):
            yield Problem("scheme", f'"{self.scheme[:40]}" is not a scheme to send browsers to', "use http or https")
        yield from rules.port("port", self.port)
        for name, text in (
            ("uri", self.uri),
            ("prefixRewrite", self.prefix_rewrite),
            ("authority", self.authority),
        ):
            yield from traffic.one_line(name, text)


class HTTPRetry(Struct, frozen=True):
    """When and how often a request is tried again."""

    attempts: Int32 | None = None
    backoff: PositiveDuration | None = None
    per_try_timeout: PositiveDuration | None = None
    retry_ignore_previous_hosts: bool | None = None
    retry_on: str | None = None
    retry_remote_localities: bool | None = None

    def problems(self) -> Iterator[Problem]:
        yield from rules.not_negative("attempts", self.attempts)
        if self.attempts == 0 and (self.per_try_timeout or self.retry_on or self.retry_remote_localities):
            yield Problem(
                "attempts", "0 attempts turn retries off, yet they are configured", "set more, or only attempts"
            )
        for word in (self.retry_on or "").split(","):
            token = word.strip()
            if self.retry_on and not (token in traffic.RETRY_ON or (token.isdecimal() and 100 <= int(token) <= 599)):
                remedy = (
                    did_you_mean(token, traffic.RETRY_ON, at_most=0) or "use Envoy's conditions, or HTTP status codes"
                )
                yield Problem("retryOn", f'"{token[:60]}" is not a reason to retry', remedy)


class RegexRewrite(Struct, frozen=True):
    """A path rewritten by an RE2 expression."""

    match: str | None = None
    rewrite: str | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.match or self.rewrite is None:
            yield Problem("", '"match" and "rewrite" belong together', "set both")
            return
        reasons = list(rules.regex("match", self.match))
        yield from reasons
        if not reasons and (reason := rewrite_problem(self.match, self.rewrite)):
            yield Problem(
                "rewrite", f"the rewrite does not fit the expression: {reason}", "\\1 to \\9 stand for its groups"
            )


class HTTPRewrite(Struct, frozen=True):
    """What of a request is changed before it is sent on."""

    authority: str | None = None
    uri: str | None = None
    uri_regex_rewrite: RegexRewrite | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.uri and not self.authority and self.uri_regex_rewrite is None:
            yield Problem("", "what is rewritten is missing", 'set "uri", "uriRegexRewrite" or "authority"')
        if self.uri and self.uri_regex_rewrite is not None:
            yield Problem("uriRegexRewrite", '"uri" and "uriRegexRewrite" exclude each other', "keep one of them")
        yield from traffic.one_line("uri", self.uri)
        yield from traffic.one_line("authority", self.authority)
        if self.uri_regex_rewrite is not None:
            yield from traffic.one_line("uriRegexRewrite.rewrite", self.uri_regex_rewrite.rewrite)


class HTTPRouteDestination(Struct, frozen=True):
    """A destination of a rule with its share of the requests."""

    destination: Destination
    headers: Headers | None = None
    weight: Int32 | None = None

    def problems(self) -> Iterator[Problem]:
        yield from rules.not_negative("weight", self.weight)


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

    def problems(self) -> Iterator[Problem]:
        yield from self._action_problems()
        yield from self._combination_problems()
        yield from traffic.weights([each.weight for each in self.route])
        if self.mirror is not None and self.mirrors:
            yield Problem("mirrors", '"mirror" and "mirrors" exclude each other', "move mirror into mirrors")
        for name, whole in (("mirrorPercent", self.mirror_percent), ("mirror_percent", self.mirror_percent_alias)):
            if whole is not None:
                yield deprecated(name, "mirrorPercentage.value")
                yield from rules.share(name, whole)
        if self.redirect is not None and self.redirect.prefix_rewrite:
            for index, match in enumerate(self.match or (HTTPMatchRequest(),)):
                if match.uri is None or match.uri.prefix is None:
                    place = at("match", index) if self.match else "redirect"
                    yield Problem(
                        place, "prefixRewrite needs a match on uri.prefix", "match a prefix, or set redirect.uri"
                    )

    def _combination_problems(self) -> Iterator[Problem]:
        """Settings that contradict each other, or have no effect beside or without others."""
        request = self.headers.request if self.headers is not None else None
        written = request.set if request is not None else HeaderOperations().set
        authority = next((name for name in written if name.lower() in ("host", ":authority")), None)
        if authority is not None and self.rewrite is not None and self.rewrite.authority:
            place = at("headers", "request", "set", authority)
            yield Problem(place, '"rewrite.authority" says already what the host becomes', "keep one of them")
        if self.mirror is None and self.delegate is None:
            for name, value in (
                ("mirrorPercentage", self.mirror_percentage),
                ("mirrorPercent", self.mirror_percent),
                ("mirror_percent", self.mirror_percent_alias),
            ):
                if value is not None:
                    remedy = "set the percentage of each of mirrors" if self.mirrors else "set mirror"
                    yield warning(name, "it has no effect without mirror", remedy)
        tries = self.retries.per_try_timeout if self.retries is not None else None
        if tries is not None and self.timeout is not None and not tries < self.timeout:
            message = f"a try may take as long as everything ({self.timeout}), so none is repeated after it"
            yield warning("retries.perTryTimeout", message, "set less than timeout")
        if self.redirect is not None or self.direct_response is not None:
            for name, there in (("timeout", self.timeout), ("retries", self.retries)):
                if there is not None:
                    yield warning(name, "it has no effect: nothing is sent on", "leave it out")

    def _action_problems(self) -> Iterator[Problem]:
        actions = {
            "route": bool(self.route),
            "redirect": self.redirect is not None,
            "directResponse": self.direct_response is not None,
            "delegate": self.delegate is not None,
        }
        said = [name for name, there in actions.items() if there]
        if not said:
            yield Problem("", "what becomes of the requests is missing", f"set one of {', '.join(actions)}")
        for name in said[1:]:
            yield Problem(name, f'"{said[0]}" and "{name}" exclude each other', "keep one of them")
        if said and said[0] in ("redirect", "directResponse"):
            others = {"fault": self.fault, "rewrite": self.rewrite, "mirror": self.mirror, "mirrors": self.mirrors}
            for name, value in others.items():
                if value not in (None, ()):
                    yield Problem(name, f"nothing is sent on with {said[0]}, so {name} is meaningless", "leave it out")
