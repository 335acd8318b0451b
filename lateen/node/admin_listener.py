"""Listeners that answer one path from Envoy's admin interface and nothing else: health and metrics."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_TYPE = "type.googleapis.com/"
_CLIENT_TIMEOUT = "10s"


def admin_listener(name: str, port: int, path: str, target: str) -> Json:
    """A listener that answers one path from the admin interface and nothing else."""
    return {
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},  # noqa: S104 (the Pod's addresses)
        "ignore_global_conn_limit": True,  # a flood of connections must not look like a failure of the proxy
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {
                            "@type": _TYPE
                            + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                            "stat_prefix": name,
                            "request_headers_timeout": _CLIENT_TIMEOUT,
                            "common_http_protocol_options": {"idle_timeout": _CLIENT_TIMEOUT},
                            "route_config": {
                                "virtual_hosts": [
                                    {
                                        "name": name,
                                        "domains": ["*"],
                                        "routes": [
                                            {
                                                "match": {"path": path},
                                                "route": {"cluster": "admin", "prefix_rewrite": target},
                                            }
                                        ],
                                    }
                                ]
                            },
                            "http_filters": [
                                {
                                    "name": "envoy.filters.http.router",
                                    "typed_config": {"@type": _TYPE + "envoy.extensions.filters.http.router.v3.Router"},
                                }
                            ],
                        },
                    }
                ]
            }
        ],
    }
