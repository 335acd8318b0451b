"""What rules mean, as predicates, and the gate of TCP connections as an expression."""

from __future__ import annotations

import pytest

from lateen.engine import Graph
from lateen.envoy.gate import Gate, quoted, tcp_gate
from lateen.intent.security import Security, security
from lateen.model.policy_attachment import Workloads
from tests.configuration import graph_of


def of(*specs: str, more: str = "") -> Security:
    head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
    texts = [f"{head}metadata: {{name: p{number}}}\nspec: {spec}\n---\n" for number, spec in enumerate(specs)]
    return graph_of(more, *texts).pull(security, Workloads("default", (("app", "app"),)))


def rule(said: str) -> str:
    return f"rules: [{{from: [{{source: {{{said}}}}}]}}]"


def test_without_policies_there_is_no_gate() -> None:
    assert tcp_gate(Security(), tls=True) is None
    assert tcp_gate(of("{action: DENY}"), tls=True) is None
    assert tcp_gate(of("{action: AUDIT, rules: [{}]}"), tls=True) is None
    assert tcp_gate(of("{rules: [{}]}"), tls=True) is None


NONE = "'none'"


def test_an_answer_that_is_known_beforehand() -> None:
    assert tcp_gate(of("{}"), tls=True) == Gate("false", NONE)
    assert tcp_gate(of(f"{{{rule('namespaces: [a]')}}}"), tls=False) == Gate("false", NONE)
    assert tcp_gate(of(f"{{action: DENY, {rule('namespaces: [a]')}}}"), tls=False) is None
    assert tcp_gate(of(f"{{action: DENY, {rule('notNamespaces: [a]')}}}"), tls=False) == Gate(
        "false", f"true ? {quoted('ns[default]-policy[p0]-rule[0]')} : {NONE}"
    )
    assert tcp_gate(of("{rules: [{to: [{operation: {paths: [/x]}}]}]}"), tls=True) == Gate("false", NONE)


@pytest.mark.parametrize(
    "said",
    ["ipBlocks: ['fd00::/8']", "notIpBlocks: ['fd00::/8', 10.0.0.0/8]"],
)
def test_what_the_gate_cannot_say_waits(said: str) -> None:
    assert tcp_gate(of(f"{{{rule(said)}}}"), tls=True) == Gate(waits=True)


def test_a_cluster_that_dials_where_it_wants_waits() -> None:
    assert tcp_gate(of(f"{{{rule('namespaces: [a]')}}}"), tls=True, settable=False) == Gate(waits=True)


def test_an_expression() -> None:
    gate = tcp_gate(of(f"{{{rule('principals: [cluster.local/ns/a/sa/b]')}}}"), tls=True)
    assert gate is not None
    assert gate.expression.strip("()") == "connection.uri_san_peer_certificate == 'spiffe://cluster.local/ns/a/sa/b'"


@pytest.mark.parametrize("text", ["'", "\\", ")%", "\n", "%CEL(x)%", "ä", "😀", "${a}", '"'])
def test_no_text_ends_its_literal(text: str) -> None:
    inner = quoted(text)[1:-1]
    assert "'" not in inner
    assert "%" not in inner
    assert ")" not in inner
    assert inner.encode().decode("unicode_escape") == text


def test_policies_that_do_not_apply_change_nothing() -> None:
    """An edit of a policy for other workloads leaves the answer as it is."""
    other = "{selector: {matchLabels: {app: other}}, action: DENY, rules: [{}]}"
    assert of(other) == Graph().pull(security, Workloads("default", (("app", "app"),)))
