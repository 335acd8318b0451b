"""The listener and route shape under on-demand discovery: what later issues may count on (decision 0002).

Each test is an experiment on three real Envoys in a chain; the figures in the decision record come from here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.envoy.chain import (
    BANNER,
    GRPC_CLIENT,
    GRPC_ORIGIN,
    STEADY_CLIENT,
    TCP_CLIENT,
    TYPE,
    Chain,
    cluster,
    host,
    http_port,
    inbound,
    vhds,
)
from tests.envoy.harness import CLUSTER, LISTENER, ROUTE
from tests.envoy.on_demand import VIRTUAL_HOST, Json

KEY = RSAKey.generate_key(2048, {"kid": "k"}, auto_kid=False)


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with Chain() as made:
        yield made
    assert {name: role.refused for name, role in made.roles.items()} == {"front": [], "middle": [], "last": []}


def asks(chain: Chain, role: str) -> list[tuple[str, str]]:
    return [(url.rpartition(".")[2], name) for url, name in chain.roles[role].asked if url in (CLUSTER, VIRTUAL_HOST)]


def test_a_request_through_three_proxies_loads_what_it_needs_once(chain: Chain) -> None:
    status, body, _ = chain.get("middle")
    assert status == 200
    assert [each["server"] for each in body] == ["middle", "last"]
    assert asks(chain, "front") == [("VirtualHost", "9080/middle")]
    assert asks(chain, "middle") == [("VirtualHost", "9080/last")]
    for name in ("middle", "middle:9080", "middle.default.svc.cluster.local", "MIDDLE"):
        assert chain.get(name)[0] == 200
    assert len(asks(chain, "front")) == 1, "one virtual host serves all spellings"


def test_an_unknown_host_is_answered_and_can_come_later(chain: Chain) -> None:
    start = time.monotonic()
    assert chain.get("later")[0] == 404
    assert time.monotonic() - start < 3
    role = chain.roles["front"]
    role.hosts.append(host("later", "outbound|9080||middle"))
    chain.server.push_host("front", "9080", role.hosts[-1])
    reaches(chain, "later", 200)


def reaches(chain: Chain, name: str, status: int) -> tuple[int, Any, Json]:
    end = time.monotonic() + 10
    while (answer := chain.get(name))[0] != status:
        assert time.monotonic() < end, answer
    return answer


def test_grpc_with_trailers_on_a_first_request(chain: Chain) -> None:
    chain.start(GRPC_ORIGIN, "9003")
    chain.listening(9003)
    middle = inbound(16007, "grpc")[0]
    app, where = cluster("grpc", 9003, h2=True)
    static: Json = {**app, "type": "STATIC", "eds_cluster_config": None, "load_assignment": where}
    chain.server.push("middle", CLUSTER, {"grpc": static})
    chain.server.push("middle", LISTENER, {middle["name"]: middle})
    role = chain.roles["front"]
    role.clusters = {**role.clusters, "outbound|9080||echo": cluster("outbound|9080||echo", 16007, h2=True)}
    role.hosts.append(host("echo", "outbound|9080||echo"))
    chain.listening(16007)
    found = chain.ask(GRPC_CLIENT, "10.96.0.2:9080", "echo")
    assert found["answers"] == ["echo a", "echo b", "echo c"]
    assert found["first"]["x-first"] == "yes"
    assert found["trailers"]["x-count"] == "3"
    assert found["failure"] == ["FAILED_PRECONDITION", "not now", "because"]
    assert asks(chain, "front")[-1] == ("VirtualHost", "9080/echo")


def test_a_patched_virtual_host(chain: Chain) -> None:
    """What an EnvoyFilter on VIRTUAL_HOST or HTTP_ROUTE merges in is part of the resource: it holds from the first
    request, and a changed patch is a push of one virtual host."""
    patch: Json = {
        "response_headers_to_add": [{"header": {"key": "x-patched", "value": "one"}}],
        "request_headers_to_add": [{"header": {"key": "x-seen", "value": "patched"}}],
        "include_request_attempt_count": True,
        "retry_policy": {"retry_on": "5xx", "num_retries": 3},
    }
    role = chain.roles["front"]
    role.hosts.append(host("patched", "outbound|9080||middle", patch))
    status, body, headers = chain.get("patched")
    assert (status, headers["x-patched"]) == (200, "one")
    assert body[0]["headers"]["x-seen"] == "patched"
    assert body[0]["headers"]["x-envoy-attempt-count"] == "1"
    before = len(asks(chain, "front"))
    patch["response_headers_to_add"][0]["header"]["value"] = "two"
    chain.server.push_host("front", "9080", host("patched", "outbound|9080||middle", patch))
    end = time.monotonic() + 10
    while chain.get("patched")[2]["x-patched"] != "two":
        assert time.monotonic() < end
    assert len(asks(chain, "front")) == before


def test_tcp_takes_its_cluster_by_original_destination(chain: Chain) -> None:
    chain.start(BANNER, "database", "9004")
    chain.listening(9004)
    role = chain.roles["front"]
    role.clusters = {**role.clusters, "10.96.0.7:3306": cluster("10.96.0.7:3306", 9004)}
    assert chain.ask(TCP_CLIENT, "10.96.0.7", "3306") == "hello from database\n"
    assert asks(chain, "front")[-1] == ("Cluster", "10.96.0.7:3306")
    before = len(asks(chain, "front"))
    assert chain.ask(TCP_CLIENT, "10.96.0.7", "3306") == "hello from database\n"
    assert len(asks(chain, "front")) == before
    assert chain.ask(TCP_CLIENT, "10.96.0.8", "3306") in ("", "ConnectionResetError(104, 'Connection reset by peer')")


def test_a_table_can_go_from_eager_to_on_demand_under_load(chain: Chain) -> None:
    """Eager first, on demand later, on the same names: neither the change nor the way back fails a request."""
    names = [host("steady", "outbound|9080||middle"), host("other", "outbound|9080||middle")]
    role = chain.roles["front"]
    eager: Json = {"name": "9081", "ignore_port_in_host_matching": True, "virtual_hosts": []}
    eager["virtual_hosts"] = [
        {**each.virtual_host, "name": f"9081/{each.canonical}", "domains": list(each.names)} for each in names
    ]
    role.hosts += names
    role.tables = [*role.tables, eager]
    chain.server.push("front", LISTENER, {"0.0.0.0_9081": http_port("9081")})
    end = time.monotonic() + 10
    while chain.get("steady", port=9081)[0] != 200:
        assert time.monotonic() < end
    client = chain.start(STEADY_CLIENT, "10.96.0.1", "9081", json.dumps({"host": "steady"}), "3")
    assert client.stdout is not None
    client.stdout.readline()
    for _ in range(5):
        chain.server.push("front", ROUTE, {"9081": vhds("9081")})
        time.sleep(0.2)
        chain.server.push("front", ROUTE, {"9081": eager})
        time.sleep(0.2)
    chain.server.push("front", ROUTE, {"9081": vhds("9081")})
    counts = json.loads(client.stdout.readline())
    assert set(counts) == {"200"}, counts
    assert counts["200"] > 100
    assert ("VirtualHost", "9081/steady") in asks(chain, "front")
    assert chain.get("other", port=9081)[0] == 200


# -- a JWT filter -------------------------------------------------------------------------------------------------


def jwt_filter() -> Json:
    return {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": TYPE + "filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {
                "p": {
                    "issuer": "i",
                    "local_jwks": {"inline_string": json.dumps({"keys": [KEY.as_dict(private=False)]})},
                    "payload_in_metadata": "payload",
                    "clear_route_cache": True,
                }
            },
            "requirement_map": {"needed": {"provider_name": "p"}, "wanted": {"allow_missing": {}}},
        },
    }


def token(**claims: str) -> str:
    return "Bearer " + jwt.encode({"alg": "RS256", "kid": "k"}, {"iss": "i", **claims}, KEY)


REQUIRED: Json = {
    "typed_per_filter_config": {
        "envoy.filters.http.jwt_authn": {
            "@type": TYPE + "filters.http.jwt_authn.v3.PerRouteConfig",
            "requirement_name": "needed",
        }
    }
}


def by_claim(cluster_name: str) -> Json:
    """A route for callers whose token says `group: testers`."""
    claim = {
        "filter": "envoy.filters.http.jwt_authn",
        "path": [{"key": "payload"}, {"key": "group"}],
        "value": {"string_match": {"exact": "testers"}},
    }
    return {"match": {"prefix": "/", "dynamic_metadata": [claim]}, "route": {"cluster": cluster_name, "timeout": "0s"}}


def test_a_jwt_filter_behind_on_demand_holds_from_the_first_request() -> None:
    with Chain([jwt_filter()]) as chain:
        role = chain.roles["front"]
        testers = "outbound|9080|testers|middle"
        role.clusters = {**role.clusters, testers: cluster(testers, 16006)}
        role.hosts.append(host("closed", "outbound|9080||middle", REQUIRED))
        assert chain.get("closed")[0] == 401
        assert chain.get("closed", authorization=token())[0] == 200
        assert chain.get("closed", authorization="Bearer nonsense")[0] == 401
        tagged: Json = {**REQUIRED, "response_headers_to_add": []}
        role.hosts.append(host("claims", "outbound|9080||middle", tagged, [by_claim(testers)]))
        assert chain.get("claims", authorization=token(group="testers"))[0] == 200
        assert chain.get("claims", authorization=token(group="others"))[0] == 200
        front = chain.envoys["front"]
        assert front.stat(f"cluster.{testers}.upstream_rq_200".replace("|", "[|]")) == 1
        assert not chain.roles["front"].refused


def test_a_jwt_filter_before_on_demand_lets_the_first_request_in() -> None:
    """The reason for the rule that `on_demand` comes first: what a virtual host requires of a filter before it is not
    known when the first request passes."""
    with Chain() as chain:
        front = chain.roles["front"]
        wrong = http_port("9082")
        filters: list[Json] = wrong["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        filters.insert(0, jwt_filter())
        front.tables = [*front.tables, vhds("9082")]
        front.hosts.append(host("closed", "outbound|9080||middle", REQUIRED))
        chain.server.push("front", LISTENER, {"0.0.0.0_9082": wrong})
        end = time.monotonic() + 10
        while not any(
            each.get("name") == "0.0.0.0_9082" and "active_state" in each
            for each in chain.envoys["front"].dump("dynamic_listeners")
        ):
            assert time.monotonic() < end
        assert chain.get("closed", port=9082)[0] == 200
        assert chain.get("closed", port=9082)[0] == 401
