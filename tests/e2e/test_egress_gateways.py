"""A gateway for each destination outside: each with its own list of who may, its own log, and no way to another."""

from __future__ import annotations

from tests.e2e.mesh import eventually
from tests.e2e.test_egress import HERE, PLAIN, PODS, RULES, Outside, client, outside

__all__ = ["outside"]  # a fixture

BANK = "api.bank.example"


def bank() -> str:
    """The gateway and the rules of the first destination, for another one and another workload."""
    documents = PODS.split("---\n")
    gateway = [each for each in documents if "name: egress-gateway" in each]
    rules = [
        each
        for each in RULES.split("---\n")
        if not any(word in each for word in ("name: partner-tls, namespace", "kind: EnvoyFilter"))
    ]
    text = "---\n".join([*gateway, *rules, RULES.split("---\n")[-1]])
    for old, new in (
        ("egress-gateway", "bank-gateway"),
        ("egressgateway", "bankgateway"),
        (PLAIN, BANK),
        ("name: partner, namespace", "name: bank, namespace"),
        ("name: egress, namespace: egress", "name: bank-egress, namespace: egress"),
        ("gateways: [mesh, egress]", "gateways: [mesh, bank-egress]"),
        ("gateways: [egress]", "gateways: [bank-egress]"),
        ("buyers-only", "tellers-only"),
        ("sa/buyer", "sa/teller"),
        ("name: audit,", "name: bank-audit,"),
    ):
        text = text.replace(old, new)
    return text


def test_each_destination_has_a_gateway_and_a_list_of_its_own(outside: Outside) -> None:
    partner = outside.pod("partner", "outside")["status"]["podIP"]
    outside.mesh.lateen("apply", "-f", "-", stdin=client("teller") + bank().replace("PARTNER", partner))
    outside.pod("bank-gateway")
    eventually(lambda: outside.plain("teller", BANK), lambda status: status == 200, within_s=20)
    reached = {(who, host): outside.plain(who, host) for who in ("buyer", "teller", "other") for host in (PLAIN, BANK)}
    assert reached == {
        ("buyer", PLAIN): 200,
        ("buyer", BANK): 403,
        ("teller", PLAIN): 403,
        ("teller", BANK): 200,
        ("other", PLAIN): 403,
        ("other", BANK): 403,
    }
    for gateway, own, other in (("egress-gateway", PLAIN, BANK), ("bank-gateway", BANK, PLAIN)):
        pod = outside.pod(gateway)
        lines = eventually(
            lambda pod=pod: [each for each in outside.logs(pod).splitlines() if "audit " in each],
            lambda found: {"buyer", "teller", "other"} <= {each.split()[1].rpartition("/")[2] for each in found},
        )
        assert all(own in each and other not in each for each in lines), gateway
    # the gateway of one host knows no other, and no application has a certificate that it takes
    for gateway in ("egress-gateway", "bank-gateway"):
        name = f"{gateway}.{HERE}.svc.cluster.local"
        assert outside.secure("buyer", name, server_name=BANK) == 0
        assert outside.secure("buyer", name, server_name=PLAIN) == 0
        assert outside.plain("buyer", name, host=BANK, port=443) == 0
