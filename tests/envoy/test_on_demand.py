"""A sidecar that asks for what its workload calls: nothing before, everything needed with the first request."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lateen.xds.demand import UNKNOWN_MAX
from tests.lab.client import ask, line
from tests.lab.lab import Lab, Refused
from tests.lab.served import ServedStation
from tests.lab.world import VIPS

ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec: {hosts: [reviews], http: [%s]}
---
"""
EXTERNAL = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s, namespace: default}
spec: {hosts: ["%s"], ports: [{number: 9080, name: http, protocol: HTTP}], resolution: STATIC,
  endpoints: [{address: %s}]}
---
"""
WHOLE_TABLES = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: tables, namespace: default}
spec:
  configPatches:
  - {applyTo: ROUTE_CONFIGURATION, patch: {operation: MERGE, value: {response_headers_to_remove: [x-none]}}}
---
"""
REGISTRY_ONLY = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"}
---
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(ServedStation) as made:
        yield made


def held(lab: Lab, short: str) -> int:
    """How many resources of a type the server knows the proxy to have."""
    assert isinstance(lab.sidecar, ServedStation)
    (proxy,) = lab.sidecar.server.proxies()
    return next((each.held for each in proxy.types if each.short == short), 0)


def clusters(lab: Lab) -> set[str]:
    """The clusters of services that the proxy has."""
    shown = lab.sidecar.envoy.admin("/clusters").splitlines()
    names = {each.partition("::")[0] for each in shown}
    return {name for name in names if name.startswith("outbound|") or name[0].isdigit()}


def test_first_calls_bring_what_they_need_and_nothing_else(lab: Lab) -> None:
    lab.configure(
        ROUTES % "{route: [{destination: {host: reviews, subset: v1}}], mirror: {host: ratings, port: {number: 9080}}}"
    )
    before = clusters(lab)
    assert "outbound|9080|v1|reviews.default.svc.cluster.local" not in before
    answer = ask(lab, "reviews")
    assert (answer.status, answer.server) == (200, "reviews-v1")
    assert clusters(lab) - before == {"outbound|9080|v1|reviews.default.svc.cluster.local"}
    assert "outbound|9080||ratings.default.svc.cluster.local" in clusters(lab)
    lab.wait(lambda: held(lab, "VHDS") == 1)
    names = ("reviews.default", "REVIEWS.default.svc", "reviews.default.svc.cluster.local:9080", VIPS["reviews"])
    assert {ask(lab, "reviews", authority=name).status for name in names} == {200}
    lab.wait(lambda: held(lab, "VHDS") == 1)


def test_a_change_reaches_those_who_have_it(lab: Lab) -> None:
    lab.configure(ROUTES % "{route: [{destination: {host: reviews, subset: v1}}]}")
    assert ask(lab, "reviews").server == "reviews-v1"
    lab.configure(ROUTES % "{route: [{destination: {host: reviews, subset: v2}}]}")
    assert ask(lab, "reviews").server == "reviews-v2"
    assert "outbound|9080|v1|reviews.default.svc.cluster.local" not in clusters(lab)


def test_an_unknown_name_goes_where_it_was_sent_until_somebody_has_it(lab: Lab) -> None:
    lab.configure()
    assert ask(lab, "elsewhere", authority="late.test").server == "outside-1"
    lab.configure(EXTERNAL % ("late", "late.test", "10.88.3.2"))
    assert ask(lab, "elsewhere", authority="late.test").server == "outside-2"
    lab.configure()
    assert ask(lab, "elsewhere", authority="late.test").server == "outside-1"


def test_an_unknown_name_is_refused_when_only_known_ones_may_be_called(lab: Lab) -> None:
    lab.configure(REGISTRY_ONLY)
    assert ask(lab, "elsewhere", authority="unknown.test").status == 502
    lab.configure()
    assert ask(lab, "elsewhere", authority="unknown.test").server == "outside-1"


def test_unknown_names_are_looked_up_where_the_mesh_says_so(lab: Lab) -> None:
    lab.configure(REGISTRY_ONLY.replace("REGISTRY_ONLY", "ALLOW_ANY_DYNAMIC_DNS"))
    assert ask(lab, "10.88.3.2", authority="one.test").server == "outside-1"
    assert ask(lab, "10.88.3.2", authority="nobody.test").status == 503
    lab.configure()
    assert ask(lab, "10.88.3.2", authority="one.test").server == "outside-2"


def test_what_a_wildcard_hides_from_questions_comes_along(lab: Lab) -> None:
    wide, narrow = EXTERNAL % ("wide", "*.wild.test", "10.88.3.1"), EXTERNAL % ("narrow", "in.wild.test", "10.88.3.2")
    lab.configure(wide)
    assert ask(lab, "elsewhere", authority="a.wild.test").server == "outside-1"
    assert ask(lab, "elsewhere", authority="in.wild.test").server == "outside-1"
    lab.configure(wide, narrow)
    assert ask(lab, "elsewhere", authority="in.wild.test").server == "outside-2"
    assert ask(lab, "elsewhere", authority="b.wild.test").server == "outside-1"
    lab.configure(narrow)
    assert ask(lab, "elsewhere", authority="in.wild.test").server == "outside-2"


def test_addresses_of_tcp_services_are_asked_for(lab: Lab) -> None:
    lab.configure()
    name = f"{VIPS['ratings']}:9000"
    assert name not in clusters(lab)
    assert line(lab, "ratings")
    assert name in clusters(lab)
    stats = lab.sidecar.envoy.admin("/clusters", filter="9000")
    assert f"{name}::observability_name::outbound|9000||ratings.default.svc.cluster.local" in stats


def test_what_envoy_refuses_is_answered_and_the_rest_goes_on(lab: Lab) -> None:
    rule = ROUTES.replace("reviews", "app")
    bad = '{headers: {response: {set: {x: "%PROTOCOL(x)%"}}}, route: [{destination: {host: reviews, subset: v1}}]}'
    with pytest.raises(Refused):  # in a table of the same service that is there already
        lab.configure(rule.replace("%s", bad))
    started = time.monotonic()
    assert ask(lab, "app").status == 500
    assert time.monotonic() - started < 10
    assert ask(lab, "details").status == 200
    lab.configure(rule % "{route: [{destination: {host: reviews, subset: v1}}]}")
    assert ask(lab, "app").server == "reviews-v1"


def test_nothing_is_left_of_the_time_when_it_had_everything(lab: Lab) -> None:
    """Hosts of before come back in Envoy when it is told that they are gone while it has whole tables: those of now
    wait for clusters, and hosts did not wait for tables."""
    lab.configure()
    assert line(lab, "ratings")  # a cluster that comes and goes
    lab.configure(ROUTES % "{route: [{destination: {host: reviews, subset: v1}}]}")
    assert ask(lab, "reviews").server == "reviews-v1"
    lab.configure(WHOLE_TABLES, ROUTES % "{route: [{destination: {host: reviews, subset: v1}}]}")
    assert ask(lab, "reviews").server == "reviews-v1"
    for subset in ("v2", "v3"):
        lab.configure(ROUTES % f"{{route: [{{destination: {{host: reviews, subset: {subset}}}}}]}}")
        assert ask(lab, "reviews").server == f"reviews-{subset}"


def test_unknown_names_of_one_domain_are_one_virtual_host(lab: Lab) -> None:
    lab.configure()
    before = held(lab, "VHDS")
    answers = {ask(lab, "elsewhere", authority=f"n{each}.many.test").server for each in range(UNKNOWN_MAX + 10)}
    assert answers == {"outside-1"}
    lab.wait(lambda: held(lab, "VHDS") == before + 1)
    lab.configure(EXTERNAL % ("late", "n1.many.test", "10.88.3.2"))
    assert ask(lab, "elsewhere", authority="n1.many.test").server == "outside-2"
    assert ask(lab, "elsewhere", authority="n2.many.test").server == "outside-1"
    lab.configure(EXTERNAL % ("late", "*.test", "10.88.3.2"))
    for name in ("n1.many.test", "n2.many.test", "never.asked.test"):
        assert ask(lab, "elsewhere", authority=name).server == "outside-2"
    lab.configure()
    for name in ("n1.many.test", "n2.many.test", "never.asked.test"):
        assert ask(lab, "elsewhere", authority=name).server == "outside-1"


def test_too_many_unknown_names_end_the_asking(lab: Lab) -> None:
    lab.configure()
    assert ask(lab, "details").status == 200
    names = iter(range(2 * UNKNOWN_MAX))
    answers = [ask(lab, "elsewhere", authority=f"n{next(names)}").status for _ in range(UNKNOWN_MAX - 8)]
    assert answers == [200] * len(answers)
    for _ in range(9):  # whatever they are answered: listeners are replaced meanwhile, and none is drained here
        ask(lab, "elsewhere", authority=f"n{next(names)}")
    lab.wait(lambda: "outbound|9080||reviews.default.svc.cluster.local" in clusters(lab), 20)
    assert isinstance(lab.sidecar, ServedStation)
    assert [each.sated for each in lab.sidecar.server.proxies()] == [True]
    asked = held(lab, "VHDS")
    assert ask(lab, "elsewhere", authority="another").status == 200
    assert ask(lab, "reviews").status == 200
    assert held(lab, "VHDS") <= asked
