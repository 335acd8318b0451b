"""Retries: a request that failed in a way worth trying again is sent again, to another endpoint.

A rule without `retries` gets the mesh's default policy: two further tries where the first cannot have reached
the application or the application said so. A number in `retryOn` is a status code that the upstream really
answered with; a reset is no such answer. Zero attempts turn retries off.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRetry and
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter#x-envoy-retry-on
"""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2 import PreviousHostsPredicate
from envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config_pb2 import (
    PreviousPrioritiesConfig,
)

from lateen.api.istio.http_route import HTTPRetry
from lateen.engine import Q
from lateen.features.encoding import pack, set_seconds
from lateen.features.feature import Feature, Rule
from lateen.features.hash_policy import intent as hash_policy
from lateen.intent.route import Retries
from lateen.model.mesh import default_http_retry

DEFAULT_ATTEMPTS = 2
DEFAULT_CONDITIONS = ("connect-failure", "refused-stream", "unavailable", "cancelled")
STATUS_CODES = "retriable-status-codes"
_HOST_TRIES = 5
_PRIORITY_UPDATE_FREQUENCY = 2
_PREVIOUS_HOSTS = "envoy.retry_host_predicates.previous_hosts"
_PREVIOUS_PRIORITIES = "envoy.retry_priorities.previous_priorities"


def intent(q: Q, rule: Rule) -> Retries | None:
    """The policy of a rule: its own, else the mesh's, else Istio's default. None when there are no retries."""
    said = rule.http.retries
    if said is None:
        said = q(default_http_retry) or HTTPRetry(attempts=DEFAULT_ATTEMPTS)
    if not said.attempts or said.attempts < 0:
        return None
    conditions, codes = parse_conditions(said.retry_on or "")
    sticky = said.retry_ignore_previous_hosts is None and hash_policy(q, rule) is not None
    return Retries(
        attempts=said.attempts,
        conditions=conditions or DEFAULT_CONDITIONS,
        status_codes=codes,
        per_try_timeout_s=said.per_try_timeout.seconds if said.per_try_timeout else 0,
        backoff_s=said.backoff.seconds if said.backoff else 0,
        avoid_previous_hosts=said.retry_ignore_previous_hosts is not False and not sticky,
        remote_localities=bool(said.retry_remote_localities),
    )


def parse_conditions(text: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Envoy's retry conditions and the status codes in a `retryOn` text.

    Numbers become codes, with the condition that makes Envoy look at them; numbers that are no HTTP status are
    left out.
    """
    words = [word for part in text.split(",") if (word := part.strip())]
    codes = tuple(dict.fromkeys(int(word) for word in words if word.isdecimal() and 100 <= int(word) <= 599))
    conditions = list(dict.fromkeys(word for word in words if not word.isdecimal()))
    if codes and STATUS_CODES not in conditions:
        conditions.append(STATUS_CODES)
    return tuple(conditions), codes


def envoy(slot: Retries, route: Route) -> None:
    """Writes the retry policy of a route that forwards."""
    policy = route.route.retry_policy
    policy.retry_on = ",".join(slot.conditions)
    policy.num_retries.value = slot.attempts
    policy.retriable_status_codes.extend(slot.status_codes)
    policy.host_selection_retry_max_attempts = _HOST_TRIES
    if slot.per_try_timeout_s:
        set_seconds(policy.per_try_timeout, slot.per_try_timeout_s)
    if slot.backoff_s:
        set_seconds(policy.retry_back_off.base_interval, slot.backoff_s)
    if slot.avoid_previous_hosts:
        predicate = policy.retry_host_predicate.add()
        predicate.name = _PREVIOUS_HOSTS
        pack(predicate.typed_config, PreviousHostsPredicate())
    if slot.remote_localities:
        policy.retry_priority.name = _PREVIOUS_PRIORITIES
        config = PreviousPrioritiesConfig()
        config.update_frequency = _PRIORITY_UPDATE_FREQUENCY
        pack(policy.retry_priority.typed_config, config)


def words(slot: Retries) -> str:
    """For people."""
    times = "once" if slot.attempts == 1 else f"up to {slot.attempts} times"
    causes = [each for each in slot.conditions if each != STATUS_CODES or not slot.status_codes]
    causes += [str(code) for code in slot.status_codes]
    text = f"A failed request is retried {times} (on {', '.join(causes)})"
    if slot.avoid_previous_hosts:
        text += ", on another endpoint if there is one"
    if slot.per_try_timeout_s:
        text += f", each try for at most {slot.per_try_timeout_s:g} s"
    return text + "."


FEATURE = Feature("retries", intent, envoy, words)
