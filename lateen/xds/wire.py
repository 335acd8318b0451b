"""xDS responses as bytes, joined from parts that are encoded once.

Fields of a protobuf message may come in any order and repeated ones simply follow each other, so a resource is
encoded once into a chunk, and a response is chunks, then what all responses of its type share, then the nonce of
one stream. No message object is built however many streams get the resource.

Field numbers: envoy/service/discovery/v3/discovery.proto (DiscoveryResponse, DeltaDiscoveryResponse, Resource)
and google/protobuf/any.proto.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lateen.envoy.resource import Resource
from lateen.lib.protobuf import field, text_field

_QUOTED = re.compile(r"goo\.gle/debug\w*")
"""What a message begins with that is printed for people; protobuf has several such words, by chance."""
_ANY_TYPE_URL, _ANY_VALUE = 1, 2
_RESOURCE_VERSION, _RESOURCE_BODY, _RESOURCE_NAME, _RESOURCE_ALIASES = 1, 2, 3, 4
_DELTA_SYSTEM_VERSION, _DELTA_RESOURCES, _DELTA_TYPE_URL, _DELTA_NONCE, _DELTA_REMOVED = 1, 2, 4, 5, 6
_SOTW_VERSION, _SOTW_RESOURCES, _SOTW_TYPE_URL, _SOTW_NONCE = 1, 2, 4, 5


def _any(type_url: str, body: bytes) -> bytes:
    return text_field(_ANY_TYPE_URL, type_url) + field(_ANY_VALUE, body)


def delta_chunk(type_url: str, resource: Resource, aliases: Iterable[str] = ()) -> bytes:
    """The resource as one element of DeltaDiscoveryResponse.resources, with its tag; `aliases` are other names that a
    client asked for it by."""
    body = field(_RESOURCE_BODY, _any(type_url, resource.body))
    others = [text_field(_RESOURCE_ALIASES, each) for each in aliases]
    names = b"".join([text_field(_RESOURCE_NAME, resource.name), *others])
    return field(_DELTA_RESOURCES, text_field(_RESOURCE_VERSION, resource.version) + body + names)


def sotw_chunk(type_url: str, resource: Resource) -> bytes:
    """The resource as one element of DiscoveryResponse.resources, with its tag."""
    return field(_SOTW_RESOURCES, _any(type_url, resource.body))


def delta_response(type_url: str, chunks: Iterable[bytes], removed: Iterable[str], version: str, nonce: str) -> bytes:
    """A whole DeltaDiscoveryResponse; `version` is for people only."""
    tail = [text_field(_DELTA_REMOVED, name) for name in removed]
    tail += [
        text_field(_DELTA_TYPE_URL, type_url),
        text_field(_DELTA_SYSTEM_VERSION, version),
        text_field(_DELTA_NONCE, nonce),
    ]
    return b"".join([*chunks, *tail])


def sotw_response(type_url: str, chunks: Iterable[bytes], version: str, nonce: str) -> bytes:
    """A whole DiscoveryResponse."""
    tail = [text_field(_SOTW_TYPE_URL, type_url), text_field(_SOTW_VERSION, version), text_field(_SOTW_NONCE, nonce)]
    return b"".join([*chunks, *tail])


def brief(words: str) -> str:
    """Envoy's words without the message that it quotes in full before them. It cuts them off after 4 KiB, so of a large
    message they may be lost."""
    words = words.strip()
    found = _QUOTED.search(words)
    if found is None:
        return words
    before, rest = words[: found.start()], words[found.end() :]
    reason = rest.rpartition("\n: ")[2] if "\n: " in rest else ""
    return before + (
        reason or "a value in it is not allowed; the proxy's log says which (lateen logs POD -c istio-proxy)"
    )
