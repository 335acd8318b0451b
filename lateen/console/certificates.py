"""Which certificates there are, whose, and until when: of the CA, of gateways in Secrets, of workloads.

`of_files` and `of_secrets` give what and until when; `of_workloads` what the agent says of those it renews itself.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Iterable, Iterator
from typing import Any

from lateen.lib.layout import Layout
from lateen.node.control import ControlError, call

Json = dict[str, Any]


async def of_workloads(layout: Layout) -> list[Json]:
    """What the agent says of the certificates of Pods; nothing while it is away."""
    try:
        return await call(layout.agent_socket, "list")
    except (OSError, ControlError):
        return []


def of_files(layout: Layout) -> Iterator[tuple[str, dt.datetime]]:
    """The CA's own."""
    for file in sorted(layout.ca.glob("*.pem")):
        if "key" not in file.name:
            for end in _ends(file.read_bytes()):
                yield f"the CA's {file.name}", end


def _shown_by(objects: Iterable[Json]) -> dict[tuple[str, str], str]:
    """Which Gateway shows the certificate of a Secret (namespace, name) to clients."""
    found: dict[tuple[str, str], str] = {}
    for each in objects:
        namespace, name = each["metadata"].get("namespace", ""), each["metadata"]["name"]
        spec: Json = each.get("spec") or {}
        for server in spec.get("servers") or () if each["kind"] == "Gateway" else ():
            tls: Json = server.get("tls") or {}
            for secret in (tls.get("credentialName"), *(tls.get("credentialNames") or ())):
                if secret:
                    found[namespace, secret] = f"Gateway {namespace}/{name}"
    return found


def of_secrets(secrets: Iterable[Json], objects: Iterable[Json]) -> Iterator[tuple[str, dt.datetime]]:
    """The certificates in Secrets, with the Gateway among `objects` that shows them."""
    shown_by = _shown_by(objects)
    for each in secrets:
        metadata: Json = each["metadata"]
        user = shown_by.get((metadata["namespace"], metadata["name"]), "")
        data: Json = each.get("data") or {}
        for key in ("tls.crt", "cert"):
            try:
                pem = base64.b64decode(data.get(key, ""))
            except binascii.Error:
                continue
            for end in _ends(pem):
                yield f"Secret {metadata['namespace']}/{metadata['name']} {key}{f' of {user}' if user else ''}", end


def _ends(pem: bytes) -> list[dt.datetime]:
    from cryptography import x509  # half of the time of starting, and only this verb needs it

    try:
        return [min(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(pem))] if pem else []
    except ValueError:
        return []
