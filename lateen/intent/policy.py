"""The traffic policy that counts for one cluster: DestinationRule, its port level, its subset, and the mesh.

Blocks (load balancer, connection pool, outlier detection, TLS) are taken as a whole, never mixed field by field: a
subset's block before the rule's, the rule's before the mesh's default. Port-level settings replace the rest of
their level.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/#TrafficPolicy
"""

from __future__ import annotations

import msgspec

from lateen.api.istio.destination_rule import (
    ClientTLSSettings,
    ConnectionPoolSettings,
    OutlierDetection,
    PortTrafficPolicy,
    ProxyProtocol,
    RetryBudget,
    TrafficPolicy,
    TunnelSettings,
)
from lateen.api.istio.load_balancer import ConsistentHashLB, LoadBalancerSettings
from lateen.engine import Q
from lateen.model.destination_rules import Rule, port_policy
from lateen.model.mesh import default_traffic_policy


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The blocks in force; None where nobody said anything."""

    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None
    tunnel: TunnelSettings | None = None


def effective_policy(q: Q, rule: Rule | None, subset: str, port: int, *, sticky: bool = False) -> Policy:
    """The policy of a subset (empty for the whole service) at a port. `sticky`: the Service itself wants a client to
    stay with its endpoint, unless a rule says how endpoints are chosen."""
    policy = q(_mesh_policy)
    if sticky:
        policy = msgspec.structs.replace(policy, load_balancer=_STICKY)
    if rule is None:
        return policy
    policy = _over(policy, port_policy(rule.policy, port))
    if subset and (found := rule.subset(subset)) is not None:
        policy = _over(policy, port_policy(found.traffic_policy, port))
    return policy


_STICKY = LoadBalancerSettings(consistent_hash=ConsistentHashLB(use_source_ip=True))


def _mesh_policy(q: Q) -> Policy:
    pool, outlier = q(default_traffic_policy)
    return Policy(connection_pool=pool, outlier_detection=outlier)


def _over(base: Policy, said: TrafficPolicy | PortTrafficPolicy | None) -> Policy:
    if said is None:
        return base
    whole = said if isinstance(said, TrafficPolicy) else None
    return Policy(
        load_balancer=said.load_balancer or base.load_balancer,
        connection_pool=said.connection_pool or base.connection_pool,
        outlier_detection=said.outlier_detection or base.outlier_detection,
        tls=said.tls or base.tls,
        proxy_protocol=(whole.proxy_protocol if whole else None) or base.proxy_protocol,
        retry_budget=(whole.retry_budget if whole else None) or base.retry_budget,
        tunnel=(whole.tunnel if whole else None) or base.tunnel,
    )
