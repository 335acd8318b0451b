"""How an endpoint is chosen: the load balancers of a DestinationRule and of the mesh, and what they know of places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal

from lateen.api import rules
from lateen.api.problems import Problem, at, deprecated, warning
from lateen.api.struct import Meta, PercentValue, PositiveDuration, Struct, UInt32, UInt64
from lateen.lib.durations import Duration


class HTTPCookieAttribute(Struct, frozen=True):
    """One more attribute of a generated cookie."""

    name: str
    value: str | None = None


class HTTPCookie(Struct, frozen=True):
    """A cookie that sticks a client to an endpoint; generated when the request has none."""

    name: str
    attributes: tuple[HTTPCookieAttribute, ...] = ()
    path: str | None = None
    ttl: Duration | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.name:
            yield Problem("name", "the cookie has no name", "name it")
        if self.ttl is not None and self.ttl.nanoseconds < 0:
            yield Problem("ttl", "a life time cannot be negative", "0s makes a session cookie")


class MagLev(Struct, frozen=True):
    """Consistent hashing by a Maglev table."""

    table_size: UInt64 | None = None

    def problems(self) -> Iterator[Problem]:
        if self.table_size is not None and not (_is_prime(self.table_size) and self.table_size <= _TABLE_MAX):
            yield Problem("tableSize", f"{self.table_size} is not a prime up to {_TABLE_MAX}", "the default is 65537")


class RingHash(Struct, frozen=True):
    """Consistent hashing by a ring."""

    minimum_ring_size: UInt64 | None = None

    def problems(self) -> Iterator[Problem]:
        if self.minimum_ring_size is not None and self.minimum_ring_size > _RING_MAX:
            yield Problem("minimumRingSize", f"{self.minimum_ring_size} is too large", f"at most {_RING_MAX}")


class ConsistentHashLB(Struct, frozen=True):
    """The same endpoint for the same header, cookie, parameter or address, as far as possible."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"),
        ("ringHash", "maglev"),
    )

    http_cookie: HTTPCookie | None = None
    http_header_name: str | None = None
    http_query_parameter_name: str | None = None
    maglev: MagLev | None = None
    minimum_ring_size: UInt64 | None = None
    ring_hash: RingHash | None = None
    use_source_ip: bool | None = None

    def problems(self) -> Iterator[Problem]:
        keys = (self.http_header_name, self.http_cookie, self.use_source_ip, self.http_query_parameter_name)
        if not any(keys):
            remedy = 'set "httpHeaderName", "httpCookie", "useSourceIp" or "httpQueryParameterName"'
            yield Problem("", "what is hashed is missing", remedy)
        if self.http_header_name:
            yield from rules.header_name("httpHeaderName", self.http_header_name)
        if self.minimum_ring_size is not None:
            yield deprecated("minimumRingSize", "ringHash.minimumRingSize")
            if self.ring_hash is not None or self.maglev is not None:
                yield Problem("minimumRingSize", "it excludes ringHash and maglev", "keep one of them")


class Distribute(Struct, frozen=True):
    """Shares of the traffic that starts in one locality."""

    from_: str | None = None
    to: Mapping[str, UInt32] = {}

    def problems(self) -> Iterator[Problem]:
        if not self.from_:
            yield Problem("", '"from" is missing', "write region/zone/subzone, * stands for any")
        for name in (self.from_ or "", *self.to):
            if name and not _is_locality(name):
                yield Problem("", f'"{name[:80]}" is no locality', "write region/zone/subzone, a last * stands for any")
        if sum(self.to.values()) != 100:
            yield Problem("to", f"the shares make {sum(self.to.values())}", "they must make 100")
        for name, share in self.to.items():
            if not share:
                yield Problem(at("to", name), "a share is 1 to 100", "leave out what gets nothing")
        yield from _overlapping("to", list(self.to), {name: at("to", name) for name in self.to})


class Failover(Struct, frozen=True):
    """The region that takes over for a region."""

    from_: str | None = None
    to: str | None = None

    def problems(self) -> Iterator[Problem]:
        for name, region in (("from", self.from_), ("to", self.to)):
            if not region or "/" in region or "*" in region:
                yield Problem(name if region else "", f'"{name}" must be a region', "write the name of a region alone")
        if self.from_ and self.from_ == self.to:
            yield Problem("to", "a region cannot take over for itself", "name another one")


class LocalityLoadBalancerSetting(Struct, frozen=True):
    """Which localities traffic goes to: shares, failover order or label order."""

    distribute: tuple[Distribute, ...] = ()
    enabled: bool | None = None
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[str, ...] = ()

    def problems(self) -> Iterator[Problem]:
        if self.distribute and self.failover:
            yield Problem("failover", "distribute and failover exclude each other", "keep one of them")
        if self.distribute and self.failover_priority:
            yield warning("failoverPriority", "beside distribute it has no effect", "keep one of them")
        for index, each in enumerate(self.failover_priority):
            if self.failover and each.partition("=")[0] in _TOPOLOGY:
                message = f"beside failover the order cannot be by {each}"
                yield Problem(at("failoverPriority", index), message, "leave out one of the two")
        origins = [each.from_ or "" for each in self.distribute]
        yield from _overlapping("distribute", origins, {})
        yield from rules.no_duplicates(("distribute",), [each.from_ for each in self.distribute], "locality", "from")


class WarmupConfiguration(Struct, frozen=True):
    """How slowly a new endpoint gets its full share."""

    duration: PositiveDuration
    aggression: Annotated[float, Meta(ge=0)] | None = None
    minimum_percent: PercentValue | None = None

    def problems(self) -> Iterator[Problem]:
        if self.aggression is not None and self.aggression < 1:
            yield Problem("aggression", f"{self.aggression:g} is less than 1", "1 is linear, more starts slower")


class ZoneAwareLoadBalancerSetting(Struct, frozen=True):
    """Keeping traffic inside a zone as far as the endpoints there suffice."""

    enabled: bool | None = None
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[str, ...] = ()
    min_cluster_size: Annotated[int, Meta(ge=1)] | None = None


class LoadBalancerSettings(Struct, frozen=True):
    """How an endpoint is chosen."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("simple", "consistentHash"),)

    consistent_hash: ConsistentHashLB | None = None
    locality_lb_setting: LocalityLoadBalancerSetting | None = None
    simple: Literal["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"] | None = None
    warmup: WarmupConfiguration | None = None
    warmup_duration_secs: PositiveDuration | None = None
    zone_aware_lb_setting: ZoneAwareLoadBalancerSetting | None = None

    def problems(self) -> Iterator[Problem]:
        if self.simple == "LEAST_CONN":
            yield deprecated("simple", "LEAST_REQUEST")
        if self.warmup_duration_secs is not None:
            yield deprecated("warmupDurationSecs", "warmup")
            if self.warmup is not None:
                yield Problem("warmupDurationSecs", '"warmup" says it already', "leave it out")
        warming = "warmup" if self.warmup is not None else "warmupDurationSecs" if self.warmup_duration_secs else ""
        least_request = self.consistent_hash is None and self.simple in (
            None,
            "UNSPECIFIED",
            "ROUND_ROBIN",
            "LEAST_REQUEST",
            "LEAST_CONN",
        )
        if warming and not least_request:
            yield warning(warming, "only ROUND_ROBIN and LEAST_REQUEST warm endpoints up: no effect", "change simple")
        yield from self._locality_problems()
        if self.locality_lb_setting is not None and self.zone_aware_lb_setting is not None:
            yield Problem("zoneAwareLbSetting", "it excludes localityLbSetting", "keep one of them")

    def _locality_problems(self) -> Iterator[Problem]:
        """Settings about places that the way of choosing endpoints leaves without effect."""
        chosen = "consistentHash" if self.consistent_hash is not None else self.simple
        locality, zones = self.locality_lb_setting, self.zone_aware_lb_setting
        if chosen not in ("consistentHash", "PASSTHROUGH"):
            return
        why = "the address decides" if chosen == "PASSTHROUGH" else "the hash decides among all endpoints alike"
        if locality is not None and (locality.distribute or chosen == "PASSTHROUGH"):
            yield warning("localityLbSetting", f"with {chosen} it has no effect: {why}", "change one of the two")
        if zones is not None and zones.enabled:
            yield warning("zoneAwareLbSetting", f"with {chosen} it has no effect: {why}", "change one of the two")


_TABLE_MAX = 5000011
_RING_MAX = 8 * 1024 * 1024
_TOPOLOGY: Final = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")


def _is_prime(number: int) -> bool:
    return 1 < number <= _TABLE_MAX and all(number % each for each in range(2, int(number**0.5) + 1))


def _is_locality(text: str) -> bool:
    parts = text.split("/")
    return len(parts) <= 3 and all(parts) and "*" not in "".join(parts[:-1]) and parts[-1].count("*") <= 1


def _overlapping(field: str, names: Sequence[str], places: Mapping[str, str]) -> Iterator[Problem]:
    """Localities of which one covers another: which of them counts would be chance."""
    for index, name in enumerate(names):
        for other in names[:index]:
            if name != other and (_within(name, other) or _within(other, name)):
                place = places.get(name, at(field, index, "from"))
                yield Problem(place, f"{name} and {other} overlap", "make them apart")


def _within(name: str, wider: str) -> bool:
    """True when every place of one locality is one of the other; missing parts stand for any."""
    narrow, wide = name.split("/"), wider.split("/")
    padded = [*narrow, "*", "*"][: max(len(wide), len(narrow))]
    return all(part in ("*", own) for part, own in zip(wide, padded, strict=False)) and len(wide) <= len(padded)
