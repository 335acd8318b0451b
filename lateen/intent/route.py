"""What a route table is to do, before any of it is Envoy's.

A route table is virtual hosts; a virtual host is an ordered list of routes; a route is a match, what happens
to a request that matches (it goes to destinations, is redirected, or is answered at once), and one optional
slot for each behaviour. A slot has the name of the feature that fills it (`lateen/features/<name>.py`), so two
features can't fight over a field; None means that nobody asked for it. These are plain frozen values: explain
and golden tests read them, `lateen/envoy/route.py` encodes them.
"""

from __future__ import annotations

import enum

import msgspec

from lateen.lib.ids import Ref


class MatchKind(enum.StrEnum):
    """How a text is compared. REGEX is RE2 over the whole text."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"
    PRESENT = "present"


class TextMatch(msgspec.Struct, frozen=True):
    """A comparison with one text; `value` is empty for PRESENT."""

    kind: MatchKind
    value: str = ""
    ignore_case: bool = False


class NamedMatch(msgspec.Struct, frozen=True):
    """A comparison of a header (lower-case name, or a pseudo header) or of a query parameter.

    `invert` holds where the comparison does not, a missing header included.
    """

    name: str
    text: TextMatch
    invert: bool = False


EVERY_PATH = TextMatch(MatchKind.PREFIX, "/")


class ClaimMatch(msgspec.Struct, frozen=True):
    """A claim of a verified token, by the keys that lead to it; a list with such an item counts too."""

    path: tuple[str, ...]
    text: TextMatch
    invert: bool = False


class RouteMatch(msgspec.Struct, frozen=True):
    """All of these must hold. The default holds for every request."""

    path: TextMatch = EVERY_PATH
    headers: tuple[NamedMatch, ...] = ()
    queries: tuple[NamedMatch, ...] = ()
    claims: tuple[ClaimMatch, ...] = ()

    @property
    def every(self) -> bool:
        """True when no request escapes it, so routes behind it are never reached."""
        return self.path == EVERY_PATH and not (self.headers or self.queries or self.claims)


class Destination(msgspec.Struct, frozen=True):
    """A service port, by the name of its cluster; `weight` counts relative to the sum of its route."""

    cluster: str
    host: str
    port: int
    subset: str = ""
    weight: int = 1

    @property
    def words(self) -> str:
        """For people: host, port and subset."""
        return f"{self.host}:{self.port}" + (f" (subset {self.subset})" if self.subset else "")


class HeaderOperations(msgspec.Struct, frozen=True):
    """Changes to one message's headers; pairs are (name, value), names in lower case."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


class Headers(msgspec.Struct, frozen=True):
    """Changes to request and response; `authority` replaces the request's host name."""

    request: HeaderOperations = HeaderOperations()
    response: HeaderOperations = HeaderOperations()
    authority: str = ""


NO_HEADERS = Headers()


class HeaderPolicy(msgspec.Struct, frozen=True):
    """What a route changes, and what each of its destinations changes besides (one entry each, in order)."""

    route: Headers = NO_HEADERS
    destinations: tuple[Headers, ...] = ()


class Retries(msgspec.Struct, frozen=True):
    """`attempts` further tries after the first. Times in seconds, 0 = the proxy's default.

    `conditions` are Envoy's words; `status_codes` count only when the upstream really answered with them.
    """

    attempts: int
    conditions: tuple[str, ...]
    status_codes: tuple[int, ...] = ()
    per_try_timeout_s: float = 0
    backoff_s: float = 0
    avoid_previous_hosts: bool = True
    remote_localities: bool = False


class Timeout(msgspec.Struct, frozen=True):
    """For the whole request with its retries, in seconds; 0 = none."""

    seconds: float = 0


class Delay(msgspec.Struct, frozen=True):
    """Seconds that `percent` of the requests wait first."""

    seconds: float
    percent: float


class Abort(msgspec.Struct, frozen=True):
    """The answer that `percent` of the requests get at once: either an HTTP or a gRPC status."""

    percent: float
    http_status: int | None = None
    grpc_status: int | None = None


class Fault(msgspec.Struct, frozen=True):
    """Faults put in on purpose."""

    delay: Delay | None = None
    abort: Abort | None = None


class Mirror(msgspec.Struct, frozen=True):
    """Where `percent` of the requests are sent a second time; what comes back is dropped."""

    destination: Destination
    percent: float = 100


class Rewrite(msgspec.Struct, frozen=True):
    """What the upstream sees. `prefix` replaces the part of the path that matched, `regex` and `substitution`
    any part of it, `authority` the host name. Empty texts change nothing."""

    prefix: str = ""
    regex: str = ""
    substitution: str = ""
    authority: str = ""


class Redirect(msgspec.Struct, frozen=True):
    """Where the client is told to go. Empty texts and 0 keep what the request had."""

    code: int = 301
    scheme: str = ""
    authority: str = ""
    port: int = 0
    path: str = ""
    prefix: str = ""


class DirectResponse(msgspec.Struct, frozen=True):
    """An answer from the proxy itself."""

    status: int
    body: bytes = b""


class Cors(msgspec.Struct, frozen=True):
    """Which web pages of other origins may use this route.

    `max_age_s` None leaves it to the browser. `forward_unmatched`: preflights of other origins reach the
    application, otherwise the proxy answers them.
    """

    origins: tuple[TextMatch, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age_s: int | None = None
    credentials: bool | None = None
    forward_unmatched: bool = True


class HashSource(enum.StrEnum):
    """Which part of a request decides its endpoint."""

    HEADER = "header"
    COOKIE = "cookie"
    QUERY = "query"
    SOURCE_IP = "source ip"


class Hash(msgspec.Struct, frozen=True):
    """One part of the request that consistent hashing looks at.

    A cookie with `ttl_s` is made by the proxy when the request has none; 0 lives as long as the browser.
    """

    source: HashSource
    name: str = ""
    path: str = ""
    ttl_s: float | None = None
    attributes: tuple[tuple[str, str], ...] = ()


class HashPolicy(msgspec.Struct, frozen=True):
    """The parts of the request that together decide its endpoint, in order."""

    parts: tuple[Hash, ...]


class DynamicHost(msgspec.Struct, frozen=True):
    """The destinations whose host is the request's own, looked up on demand: the port of each, 0 for others. `name`
    is looked up instead when it isn't empty."""

    ports: tuple[int, ...]
    name: str = ""


class RouteIntent(msgspec.Struct, frozen=True):
    """One route. Without destinations it redirects, answers directly, or (neither) finds nothing.

    `operation` is the name in traces; `source` the object that says so, None for a service's own default.
    """

    name: str
    match: RouteMatch
    destinations: tuple[Destination, ...] = ()
    operation: str = ""
    stat_prefix: str = ""
    source: Ref | None = None
    # One slot a feature.
    redirect: Redirect | None = None
    direct_response: DirectResponse | None = None
    rewrite: Rewrite | None = None
    timeout: Timeout | None = None
    retries: Retries | None = None
    hash_policy: HashPolicy | None = None
    mirror: tuple[Mirror, ...] | None = None
    headers: HeaderPolicy | None = None
    fault: Fault | None = None
    cors: Cors | None = None
    dynamic_host: DynamicHost | None = None


class Routes(msgspec.Struct, frozen=True):
    """The routes of one virtual host in order, and the objects that decided them. `https_only`: requests in the
    clear are redirected before any route is tried."""

    routes: tuple[RouteIntent, ...]
    origins: tuple[Ref, ...] = ()
    https_only: bool = False

    @property
    def clusters(self) -> tuple[str, ...]:
        """Every cluster a request or its copy may be sent to, in the order of the routes."""
        to = [each for route in self.routes for each in route.destinations]
        to += [each.destination for route in self.routes for each in route.mirror or ()]
        return tuple(dict.fromkeys(each.cluster for each in to))
