"""What `lateen proxy-config authz` shows of a real proxy."""

from __future__ import annotations

import json

from lateen.cli.authz_view import policies
from tests.envoy.guarded_pod import GuardedPod
from tests.envoy.test_security_authorization import APPLICATION, EXPLAINS, operation, policy, source
from tests.envoy.test_security_ext_authz import APPLICATION as AUTHORIZERS
from tests.envoy.test_security_ext_authz import asks, http, mesh


def test_each_policy_with_its_origin_and_mode() -> None:
    with GuardedPod() as pod:
        trial = '{istio.io/dry-run: "true"}'
        tokens = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens}
spec: {jwtRules: [{issuer: a}, {issuer: b}]}
---
"""
        pod.configure(
            AUTHORIZERS,
            mesh(http("p")),
            tokens,
            asks("p", name="ask"),
            asks("nobody", name="lost"),
            policy(f"{{action: DENY, {operation('paths: [/x]')}}}", "shut", "istio-system"),
            policy("{rules: [{}, {}]}", "open"),
            policy(f"{{{source('namespaces: [a]')}}}", "try", annotations=trial),
            policy("{action: AUDIT, rules: [{}]}", "watch"),
            policy("{action: AUDIT, rules: [{}]}", "why", annotations=EXPLAINS),
        )
        rows = policies(json.loads(pod.envoy.admin("/config_dump")))
        assert [each[:5] for each in rows] == [
            ("JWT", "enforced", "RequestAuthentication default/tokens", "0", "a"),
            ("JWT", "enforced", "RequestAuthentication default/tokens", "1", "b"),
            ("CUSTOM", "enforced", "AuthorizationPolicy default/ask", "0", "p"),
            ("CUSTOM", "enforced", "AuthorizationPolicy default/lost", "0", "unreachable"),
            ("DENY", "enforced", "AuthorizationPolicy istio-system/shut", "0", "-"),
            ("ALLOW", "dry-run", "AuthorizationPolicy default/try", "0", "-"),
            ("ALLOW", "enforced", "AuthorizationPolicy default/open", "0,1", "-"),
            ("AUDIT", "enforced", "AuthorizationPolicy default/watch", "0", "-"),
            ("AUDIT", "enforced", "AuthorizationPolicy default/why", "0", "-"),
            ("EXPLAIN", "enforced", "AuthorizationPolicy default/why", "0", "-"),
        ]
        assert "0.0.0.0_9080" in rows[4][5]
        pod.configure(APPLICATION)
        assert policies(json.loads(pod.envoy.admin("/config_dump"))) == []
