"""From an Envoy's admin interface to rows that people read. Pure: JSON in, rows out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

Json = dict[str, Any]
Row = tuple[str, ...]

CLUSTER_COLUMNS: Final = ("SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE")
LISTENER_COLUMNS: Final = ("NAME", "ADDRESS", "PORT", "MATCH", "DESTINATION")
ROUTE_COLUMNS: Final = ("NAME", "VHOST NAME", "DOMAINS", "MATCH", "DESTINATION", "VIRTUAL SERVICE")
ENDPOINT_COLUMNS: Final = ("ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER")
SECRET_COLUMNS: Final = ("RESOURCE NAME", "TYPE", "STATUS", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE")


def resources(dump: Json, section: str, keys: tuple[str, ...]) -> Iterator[Json]:
    """The resources in one section of a config dump: those under the given keys, static and dynamic, active ones."""
    for config in dump.get("configs", ()):
        if not config.get("@type", "").endswith(section):
            continue
        for key in keys:
            for entry in config.get(key, ()):
                inner = entry.get("active_state", entry)
                for name in ("cluster", "listener", "route_config", "secret"):
                    if name in inner:
                        yield inner[name] | {"_entry": inner}
                        break


def clusters(dump: Json) -> Iterator[Row]:
    """One row a cluster, by name."""
    keys = ("static_clusters", "dynamic_active_clusters")
    for cluster in sorted(resources(dump, "ClustersConfigDump", keys), key=lambda each: str(each.get("name"))):
        direction, port, subset, host = _split(str(cluster["name"]))
        yield (host, port, subset or "-", direction, str(cluster.get("type", "STATIC")), _config(cluster))


def listeners(dump: Json) -> Iterator[Row]:
    """One row a filter chain."""
    keys = ("static_listeners", "dynamic_listeners")
    for listener in sorted(resources(dump, "ListenersConfigDump", keys), key=lambda each: str(each.get("name"))):
        address = listener.get("address", {})
        socket = address.get("socket_address", {})
        where = socket.get("address") or address.get("pipe", {}).get("path", "-")
        chains = [*listener.get("filter_chains", ())]
        if "default_filter_chain" in listener:
            chains.append(listener["default_filter_chain"])
        for chain in chains:
            yield (
                str(listener.get("name", "-")),
                where,
                str(socket.get("port_value", "-")),
                _match(chain.get("filter_chain_match", {})),
                _destination(chain),
            )


def routes(dump: Json) -> Iterator[Row]:
    """One row a route."""
    keys = ("static_route_configs", "dynamic_route_configs")
    for config in sorted(resources(dump, "RoutesConfigDump", keys), key=lambda each: str(each.get("name"))):
        for host in config.get("virtual_hosts", ()):
            domains = host.get("domains", [])
            shown = ", ".join(domains[:2]) + (f" + {len(domains) - 2} more" if len(domains) > 2 else "")
            for route in host.get("routes", ()):
                yield (
                    str(config.get("name", "-")),
                    str(host.get("name", "-")),
                    shown,
                    _route_match(route.get("match", {})),
                    _action(route),
                    _config(route),
                )


def endpoints(status: Json) -> Iterator[Row]:
    """One row an endpoint, from `/clusters?format=json`."""
    for cluster in sorted(status.get("cluster_statuses", ()), key=lambda each: str(each.get("name"))):
        for host in cluster.get("host_statuses", ()):
            address = host.get("address", {})
            socket = address.get("socket_address", {})
            shown = (
                f"{socket['address']}:{socket['port_value']}" if socket else str(address.get("pipe", {}).get("path"))
            )
            health = host.get("health_status", {})
            outlier = "FAILED" if health.get("failed_outlier_check") else "OK"
            yield (shown, str(health.get("eds_health_status", "UNKNOWN")), outlier, str(cluster["name"]))


def secrets(dump: Json, certificates: Json) -> Iterator[Row]:
    """One row a secret, with what `/certs` says of it; keys are never shown."""
    known = {
        str(part.get("serial_number", "")): part
        for entry in certificates.get("certificates", ())
        for part in (*entry.get("cert_chain", ()), *entry.get("ca_cert", ()))
    }
    for config in dump.get("configs", ()):
        if not config.get("@type", "").endswith("SecretsConfigDump"):
            continue
        for key, state in (("dynamic_active_secrets", "ACTIVE"), ("dynamic_warming_secrets", "WARMING")):
            for entry in config.get(key, ()):
                secret = entry.get("secret", {})
                kind = "Cert Chain" if "tls_certificate" in secret else "CA"
                for serial, after, before in _certificates(secret) or [("-", "-", "-")]:
                    part = known.get(serial, {})
                    yield (
                        str(entry.get("name", "-")),
                        kind,
                        state,
                        serial,
                        str(part.get("expiration_time", after)),
                        str(part.get("valid_from", before)),
                    )


def _certificates(secret: Json) -> list[tuple[str, str, str]]:
    """Serial number (hex), end and begin of each certificate in a secret as it stands in a dump."""
    import base64

    from cryptography import x509

    data = secret.get("tls_certificate", {}).get("certificate_chain") or secret.get("validation_context", {}).get(
        "trusted_ca", {}
    )
    text = base64.b64decode(data["inline_bytes"]) if "inline_bytes" in data else data.get("inline_string", "").encode()
    if b"-----BEGIN CERTIFICATE-----" not in text:
        return []
    return [
        (f"{each.serial_number:x}", each.not_valid_after_utc.isoformat(), each.not_valid_before_utc.isoformat())
        for each in x509.load_pem_x509_certificates(text)
    ]


def _split(name: str) -> tuple[str, str, str, str]:
    """Direction, port, subset and host of a cluster name in Istio's form; the name alone for others."""
    parts = name.split("|")
    return (parts[0], parts[1], parts[2], parts[3] or "-") if len(parts) == 4 else ("-", "-", "-", name)


def _config(resource: Json) -> str:
    """The object that a resource says it was made from: `name.namespace`."""
    path = resource.get("metadata", {}).get("filter_metadata", {}).get("istio", {}).get("config", "")
    parts = str(path).split("/")
    return f"{parts[-1]}.{parts[parts.index('namespaces') + 1]}" if "namespaces" in parts else ""


def _match(match: Json) -> str:
    said = [f"ip {each.get('address_prefix')}/{each.get('prefix_len', 0)}" for each in match.get("prefix_ranges", ())]
    if "destination_port" in match:
        said.append(f"port {match['destination_port']}")
    if match.get("server_names"):
        said.append(f"sni {','.join(match['server_names'])}")
    if match.get("transport_protocol"):
        said.append(str(match["transport_protocol"]))
    if match.get("application_protocols"):
        said.append(f"alpn {','.join(match['application_protocols'])}")
    return "; ".join(said) or "ALL"


def _destination(chain: Json) -> str:
    for each in reversed(chain.get("filters", ())):
        config = each.get("typed_config", {})
        if "rds" in config:
            return f"route {config['rds'].get('route_config_name')}"
        if "route_config" in config:
            return f"inline route {config['route_config'].get('name', '-')}"
        if "cluster" in config:
            return f"cluster {config['cluster']}"
        if "weighted_clusters" in config:
            return "clusters " + ", ".join(str(part["name"]) for part in config["weighted_clusters"]["clusters"])
    return "-"


def _route_match(match: Json) -> str:
    paths = (("prefix", "*"), ("path", ""), ("path_separated_prefix", "/*"))
    said = [match[key] + suffix for key, suffix in paths if key in match]
    if "safe_regex" in match:
        said.append(f"regex {match['safe_regex'].get('regex')}")
    said += [f"header {each.get('name')}" for each in match.get("headers", ())]
    said += [f"query {each.get('name')}" for each in match.get("query_parameters", ())]
    return " ".join(said) or "/*"


def _action(route: Json) -> str:
    if "redirect" in route:
        return "redirect"
    if "direct_response" in route:
        return f"answer {route['direct_response'].get('status')}"
    action = route.get("route", {})
    if "cluster" in action:
        return str(action["cluster"])
    weighted = action.get("weighted_clusters", {}).get("clusters", ())
    return ", ".join(f"{part['name']} ({part.get('weight', 0)})" for part in weighted) or "-"
