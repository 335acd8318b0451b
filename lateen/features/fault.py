"""Faults put in on purpose: a share of the requests waits, or is answered with an error, before it is sent.

The proxy of the client does it, so the application behind never sees an aborted request. Retries and the
timeout of the same route do not apply to it. A fault without a percentage is one of no request.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPFaultInjection and
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/fault_filter
"""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.filters.http.fault.v3.fault_pb2 import HTTPFault
from google.rpc.code_pb2 import Code

from lateen.api.istio.http_route import Percent
from lateen.engine import Q
from lateen.features.encoding import pack, set_percent, set_seconds
from lateen.features.feature import Direction, Feature, HttpFilter, Phase, Rule
from lateen.intent.route import Abort, Delay, Fault

FILTER = "envoy.filters.http.fault"
_CODES = dict(Code.items())


def intent(_: Q, rule: Rule) -> Fault | None:
    """The faults of a rule, or None."""
    said = rule.http.fault
    if said is None:
        return None
    delay = abort = None
    if said.delay is not None and said.delay.fixed_delay is not None:
        delay = Delay(said.delay.fixed_delay.seconds, _percent(said.delay.percentage, said.delay.percent))
    if said.abort is not None:
        share = _percent(said.abort.percentage)
        if said.abort.http_status:
            abort = Abort(share, http_status=said.abort.http_status)
        elif said.abort.grpc_status and (code := grpc_code(said.abort.grpc_status)) is not None:
            abort = Abort(share, grpc_status=code)
    return Fault(delay, abort) if delay or abort else None


def grpc_code(status: str) -> int | None:
    """The number of a gRPC status said by name in any case or by number; None when there is no such status."""
    if status.isdecimal():
        return int(status) if int(status) in _CODES.values() else None
    return _CODES.get(status.upper())


def _percent(share: Percent | None, whole: int | None = None) -> float:
    if share is not None:
        return share.value or 0
    return whole or 0


def envoy(slot: Fault, route: Route) -> None:
    """Writes the route's own configuration of the fault filter."""
    config = HTTPFault()
    if slot.delay is not None:
        set_seconds(config.delay.fixed_delay, slot.delay.seconds)
        set_percent(config.delay.percentage, slot.delay.percent)
    if slot.abort is not None:
        set_percent(config.abort.percentage, slot.abort.percent)
        if slot.abort.http_status is not None:
            config.abort.http_status = slot.abort.http_status
        if slot.abort.grpc_status is not None:
            config.abort.grpc_status = slot.abort.grpc_status
    pack(route.typed_per_filter_config[FILTER], config)


def words(slot: Fault) -> str:
    """For people."""
    parts: list[str] = []
    if slot.delay is not None:
        parts.append(f"{slot.delay.percent:g} % of the requests wait {slot.delay.seconds:g} s first")
    if slot.abort is not None:
        if slot.abort.http_status is not None:
            answer = str(slot.abort.http_status)
        else:
            answer = f"gRPC status {Code.Name(Code.ValueType(slot.abort.grpc_status or 0))}"
        parts.append(f"{slot.abort.percent:g} % are answered {answer} without being sent")
    return f"On purpose, {' and '.join(parts)}."


FEATURE = Feature(
    "fault",
    intent,
    envoy,
    words,
    forwards=False,
    phase=Phase.FAULT,
    filter=HttpFilter(FILTER, HTTPFault, frozenset({Direction.OUTBOUND, Direction.GATEWAY})),
)
