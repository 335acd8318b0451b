"""What a workload certificate says of its holder beside the SPIFFE id, and how Envoy reads it.

Metrics and access logs want the peer's workload, service and revision, for TCP too. The CA knows them (it looked
up the Pod it signs for), so it writes them into the certificate's Subject and they need no exchange and cannot be
forged. Each value is one `description` attribute `KEY:VALUE`, the value percent-encoded, so that no value can
hold a comma, a backslash, an equals sign or anything else that means something in a distinguished name: a regular
expression over Envoy's printed Subject cannot be fooled. `description` may be 1,024 characters long (a common name
64), and no TLS library takes it for a host name.

A peer without these attributes (another CA, a shared ztunnel certificate) has empty values: it is unknown.
`docs/decisions/0004-peer-labels.md` has the experiment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

FIELDS = ("pod", "uid", "workload", "type", "service", "revision", "cluster", "network")
"""Keys, in the order they are written: Pod name and uid, workload name and kind (`deployment`, `job`, `pod`),
canonical service and revision, cluster id, network."""

MAX_ENCODED = 1024
"""Characters X.520 allows a description to have (ub-description)."""


def encode(values: Mapping[str, str]) -> tuple[str, ...]:
    """The descriptions of a certificate; empty values are left out. ValueError for an unknown key or a value that
    does not fit; names of Kubernetes (253 characters) always do."""
    unknown = values.keys() - set(FIELDS)
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: not a field of a peer")
    descriptions = tuple(f"{key}:{quote(values[key], safe='')}" for key in FIELDS if values.get(key))
    for text in descriptions:
        if len(text) > MAX_ENCODED:
            raise ValueError(f"the {text.partition(':')[0]} name takes {len(text)} of {MAX_ENCODED} characters")
    return descriptions


def decode(descriptions: Iterable[str]) -> dict[str, str]:
    """The values in a certificate's descriptions. Those of other forms are skipped, and a key given twice with
    different values counts as absent: nothing of lateen writes that."""
    values: dict[str, str] = {}
    torn: set[str] = set()
    for text in descriptions:
        key, separator, encoded = text.partition(":")
        if not separator or key not in FIELDS:
            continue
        value = unquote(encoded)
        if quote(value, safe="") != encoded or values.setdefault(key, value) != value:
            torn.add(key)
    return {key: value for key, value in values.items() if key not in torn}


def envoy_expression(field: str) -> str:
    """A CEL expression giving the downstream peer's value of a field as it is encoded (for names of Kubernetes that
    is the name itself), or `unknown`. Costs a regular expression: evaluate it once per connection."""
    if field not in FIELDS:
        raise ValueError(f"{field!r} is not a field of a peer")
    subject = "connection.subject_peer_certificate"
    pattern = f"(?:.*,)?description={field}:([A-Za-z0-9._~%-]+)(?:,.*)?"
    return f"{subject}.contains('description={field}:') ? re.capture({subject}, '{pattern}') : 'unknown'"
