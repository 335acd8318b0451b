"""The security policies a proxy enforces, read from its own configuration: what it does, not what it should do.

Rules carry their policy in their name (`ns[NAMESPACE]-policy[NAME]-rule[INDEX]`), so each row has its origin. Pure:
JSON of the admin interface in, rows out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from lateen.cli.proxy_view import resources

Json = dict[str, Any]
Row = tuple[str, ...]

COLUMNS: Final = ("ACTION", "MODE", "ORIGIN", "RULES", "PROVIDER", "WHERE")
_RULE = re.compile(r"(?:istio-ext-authz-)?ns\[(.*?)\]-policy\[(.*?)\]-rule\[(\d+)\]")
_DRY_RUN = re.compile(r"istio_dry_run_(\w+?)_$")
_ASKS = re.compile(r"istio_ext_authz_(.*)_$")
_ORDER: Final = ("JWT", "CUSTOM", "DENY", "ALLOW", "AUDIT", "EXPLAIN")


def policies(dump: Json) -> list[Row]:
    """One row for each policy, action and mode, in the order in which they are asked."""
    found: dict[tuple[str, str, str, str], tuple[set[int], set[str]]] = {}
    for listener in resources(dump, "ListenersConfigDump", ("static_listeners", "dynamic_listeners")):
        for chain in listener.get("filter_chains", ()):
            where = str(chain.get("name") or listener.get("name", "-"))
            for config in _filters(chain):
                for action, mode, provider, name in _rules(config):
                    if (match := _RULE.fullmatch(name)) is not None:
                        kind = "RequestAuthentication" if action == "JWT" else "AuthorizationPolicy"
                        key = (action, mode, f"{kind} {match[1]}/{match[2]}", provider)
                        rules, places = found.setdefault(key, (set(), set()))
                        rules.add(int(match[3]))
                        places.add(where)
    keys = sorted(found, key=lambda each: (_ORDER.index(each[0]), each))
    return [(*key[:3], _joined(found[key][0]), key[3] or "-", _joined(found[key][1])) for key in keys]


def _joined(items: set[int] | set[str]) -> str:
    return ",".join(str(each) for each in sorted(items, key=lambda each: (isinstance(each, str), each)))


def _filters(chain: Json) -> Iterator[Json]:
    """The configurations of all network and HTTP filters of a chain."""
    for each in chain.get("filters", ()):
        config = each.get("typed_config", {})
        yield config
        for inner in config.get("http_filters", ()):
            yield inner.get("typed_config", {})


def _rules(config: Json) -> Iterator[tuple[str, str, str, str]]:
    """Action, mode, provider and name of each rule of a filter."""
    kind = str(config.get("@type", ""))
    if kind.endswith("JwtAuthentication"):
        for name, provider in config.get("providers", {}).items():
            yield "JWT", "enforced", str(provider.get("issuer") or "any issuer"), name
    if not kind.endswith("RBAC"):
        return
    for name in config.get("rules", {}).get("policies", {}):
        # ALLOW is the protocol's default and left out of JSON; a provider that cannot be asked refuses by a rule
        action = "CUSTOM" if name.startswith("istio-ext-authz-") else str(config["rules"].get("action", "ALLOW"))
        yield action, "enforced", "unreachable" if action == "CUSTOM" else "", name
    prefix = str(config.get("shadow_rules_stat_prefix", ""))
    for name in config.get("shadow_rules", {}).get("policies", {}):
        if (asks := _ASKS.fullmatch(prefix)) is not None:
            yield "CUSTOM", "enforced", asks[1], name
        elif (trial := _DRY_RUN.fullmatch(prefix)) is not None:
            yield trial[1].upper(), "dry-run", "", name
        elif prefix in ("istio_audit_", "lateen_explain_"):
            yield ("AUDIT" if prefix == "istio_audit_" else "EXPLAIN"), "enforced", "", name
