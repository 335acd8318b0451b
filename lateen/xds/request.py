"""What clients say, in one form for both protocols.

Most requests are answers that only say which response was taken. They have two fields, the type and the nonce, and are
read without the protobuf classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from envoy.config.core.v3.base_pb2 import Node
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest

from lateen.xds.wire import text_field

Protocol = Literal["delta", "sotw"]

_DELTA_TYPE_URL, _DELTA_NONCE = 2, 6


@dataclass(frozen=True, slots=True)
class Request:
    """A delta or state-of-the-world request in one form. `names` replaces all names (sotw) where it is not None."""

    type_url: str
    nonce: str = ""
    error: str | None = None
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    versions: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def only_accepts(self) -> bool:
        """True when it says no more than that the client took a response."""
        return bool(self.nonce) and self.error is None and not (self.subscribe or self.unsubscribe or self.versions)


class Requests:
    """Reads requests of one protocol."""

    def __init__(self, protocol: Protocol, type_urls: tuple[str, ...]) -> None:
        self._delta = protocol == "delta"
        self._heads = tuple((text_field(_DELTA_TYPE_URL, each), each) for each in type_urls) if self._delta else ()

    def first(self, raw: bytes) -> tuple[Node, Request]:
        """The request that says who asks. DecodeError when it is none."""
        message = (DeltaDiscoveryRequest if self._delta else DiscoveryRequest).FromString(raw)
        return message.node, self._parsed(message)

    def later(self, raw: bytes) -> Request:
        """Any other. DecodeError when it is none."""
        for head, type_url in self._heads:
            if raw.startswith(head):
                rest = raw[len(head) :]
                if len(rest) > 2 and rest[0] == _NONCE_TAG and rest[1] == len(rest) - 2 < 0x80 and rest.isascii():
                    return Request(type_url, rest[2:].decode())
                break
        return self._parsed((DeltaDiscoveryRequest if self._delta else DiscoveryRequest).FromString(raw))

    @staticmethod
    def _parsed(message: DeltaDiscoveryRequest | DiscoveryRequest) -> Request:
        error = message.error_detail.message if message.HasField("error_detail") else None
        if isinstance(message, DiscoveryRequest):
            return Request(message.type_url, message.response_nonce, error, names=tuple(message.resource_names))
        return Request(
            message.type_url,
            message.response_nonce,
            error,
            tuple(message.resource_names_subscribe),
            tuple(message.resource_names_unsubscribe),
            versions=dict(message.initial_resource_versions),
        )


_NONCE_TAG = _DELTA_NONCE << 3 | 2
