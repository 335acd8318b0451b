"""Random servers on one port: who has a connection and who a request, by a few lines here and by the real Envoy."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.envoy.test_gateway_connections import gateway, routes, server
from tests.lab.client import Caller2
from tests.lab.lab import Lab

LABELS = ("a", "b", "c")
NAMES = [
    *(f"{x}.test" for x in LABELS),
    *(f"{x}.{y}.test" for x in LABELS for y in LABELS),
    *(f"x.{x}.{y}.test" for x in LABELS for y in LABELS[:2]),
]
WILDCARDS = ["*", "*.test", *(f"*.{name}" for name in NAMES[:9])]
SEEDS = range(6)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def owner(name: str, servers: dict[str, list[str]]) -> str | None:
    """The server whose pattern fits a name and is the longest, an exact one before all."""
    fitting = [
        (not pattern.startswith("*"), len(pattern), each)
        for each, patterns in servers.items()
        for pattern in patterns
        if pattern == name or (pattern.startswith("*") and name.endswith(pattern[1:]))
    ]
    return max(fitting)[2] if fitting else None


def expected(sni: str, host: str, servers: dict[str, list[str]]) -> str:
    connection, request = owner(sni, servers), owner(host, servers)
    if connection is None:
        return "no connection"
    if request is None:
        return "404"
    return request if request == connection else "421"


def drawn(random_: random.Random) -> dict[str, list[str]]:
    """Servers with one to three patterns each, none of them twice."""
    patterns = random_.sample([*NAMES, *WILDCARDS], random_.randint(4, 12))
    servers: dict[str, list[str]] = {}
    while patterns:
        servers[f"s{len(servers)}"] = [patterns.pop() for _ in range(min(len(patterns), random_.randint(1, 3)))]
    return servers


def test_random_servers(lab: Lab) -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        random_ = random.Random(seed)
        servers = drawn(random_)
        texts: list[str] = []
        for name, patterns in servers.items():
            hosts = "[" + ", ".join(f"'{each}'" for each in patterns) + "]"
            answer = f"http: [{{directResponse: {{status: 200, body: {{string: {name}}}}}}}]"
            texts.append(gateway(name, server(name, hosts)))
            texts.append(routes(name, "['*']", "", f"[istio-system/{name}]", answer))
        lab.configure(*texts)
        for sni in [*random_.sample(NAMES, 8), "other.example"]:
            hosts = [*random_.sample(NAMES, 10), sni, "other.example"]
            for host, got in zip(hosts, _asked(lab, sni, hosts), strict=True):
                wanted = expected(sni, host, servers)
                assert got == wanted, f"seed {seed}: {sni} then {host} with {servers}"
                seen["served" if wanted.startswith("s") else wanted] += 1
    assert min(seen[each] for each in ("served", "404", "421", "no connection")) > 0, seen
    assert seen.total() == len(SEEDS) * 9 * 12


def _asked(lab: Lab, sni: str, hosts: list[str]) -> list[str]:
    try:
        with Caller2(lab, "gateway", 8443, tls=lab.certificates.client_context("", ("h2",)), sni=sni) as caller:
            answers = [caller.ask(host)[0] for host in hosts]
    except OSError:
        return ["no connection"] * len(hosts)
    return [each.body.decode() if each.status == 200 else str(each.status) for each in answers]
