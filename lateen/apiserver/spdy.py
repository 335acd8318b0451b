"""As much of SPDY/3.1 as `kubectl port-forward` speaks inside of a websocket: streams that the client opens.

Bytes go in (`receive`), events come out; frames to send are made by the other methods. Nothing here does I/O. Headers
are compressed with one zlib stream for each direction, which begins with the dictionary of the specification. Windows
are not kept: the websocket below has its own back-pressure, and clients of Kubernetes send no window updates.

Source: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

_WORDS: Final = (
    *("options", "head", "post", "put", "delete", "trace", "accept", "accept-charset", "accept-encoding"),
    *("accept-language", "accept-ranges", "age", "allow", "authorization", "cache-control", "connection"),
    *("content-base", "content-encoding", "content-language", "content-length", "content-location", "content-md5"),
    *("content-range", "content-type", "date", "etag", "expect", "expires", "from", "host", "if-match"),
    *("if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified", "location"),
    *("max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range", "referer", "retry-after"),
    *("server", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "vary", "via", "warning"),
    *("www-authenticate", "method", "get", "status", "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie"),
    *("keep-alive", "origin"),
)
_REST: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 "
    "Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec "
    "00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset="
    "iso-8859-1,utf-,*,enq=0."
)
DICTIONARY: Final = b"".join(len(word).to_bytes(4, "big") + word.encode() for word in _WORDS) + _REST.encode()

_FRAME_MAX: Final = 1 << 22
_HEADERS_MAX: Final = 1 << 16
_FIN: Final = 1
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7


class SpdyError(Exception):
    """The other side does not speak SPDY/3."""


class Opened(msgspec.Struct, frozen=True):
    """A new stream."""

    stream: int
    headers: Mapping[str, str]


class Data(msgspec.Struct, frozen=True):
    """Bytes of a stream; `end`: the client sends no more of them."""

    stream: int
    content: bytes
    end: bool


class Reset(msgspec.Struct, frozen=True):
    """A stream that the client has given up."""

    stream: int


class Ping(msgspec.Struct, frozen=True):
    """To be answered with the same frame."""

    frame: bytes


class GoAway(msgspec.Struct, frozen=True):
    """The client opens no more streams."""


Event = Opened | Data | Reset | Ping | GoAway


class Spdy:
    """The server's side of one connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def receive(self, content: bytes) -> Iterator[Event]:
        """What the next bytes say. SpdyError when they make no sense."""
        self._buffer += content
        while len(self._buffer) >= 8:
            size = int.from_bytes(self._buffer[5:8], "big")
            if size > _FRAME_MAX:
                raise SpdyError(f"a frame of {size} bytes is too large")
            if len(self._buffer) < 8 + size:
                return
            frame = bytes(self._buffer[: 8 + size])
            del self._buffer[: 8 + size]
            event = self._event(frame)
            if event is not None:
                yield event

    def _event(self, frame: bytes) -> Event | None:
        flags, body = frame[4], frame[8:]
        if not frame[0] & 0x80:
            return Data(int.from_bytes(frame[:4], "big"), body, bool(flags & _FIN))
        kind = int.from_bytes(frame[2:4], "big")
        stream = int.from_bytes(body[:4], "big") & 0x7FFFFFFF
        match kind:
            case 1:  # SYN_STREAM
                return Opened(stream, self._headers(body[10:]))
            case 3:  # RST_STREAM
                return Reset(stream)
            case 6:  # PING
                return Ping(frame)
            case 7:  # GOAWAY
                return GoAway()
            case 2 | 4 | 8 | 9:  # SYN_REPLY, SETTINGS, HEADERS, WINDOW_UPDATE
                return None
            case _:
                raise SpdyError(f"there is no frame of type {kind}")

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, _HEADERS_MAX)
        except zlib.error as error:
            raise SpdyError(f"headers cannot be read: {error}") from None
        found: dict[str, str] = {}
        at = 4
        for _ in range(int.from_bytes(plain[:4], "big")):
            parts: list[str] = []
            for _ in range(2):
                size = int.from_bytes(plain[at : at + 4], "big")
                parts.append(plain[at + 4 : at + 4 + size].decode("latin-1"))
                at += 4 + size
            if at > len(plain):
                raise SpdyError("headers are cut off")
            found[parts[0].lower()] = parts[1]
        return found

    def accept(self, stream: int) -> bytes:
        """The frame that takes a stream."""
        block = self._deflate.compress((0).to_bytes(4, "big")) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control(_SYN_REPLY, stream.to_bytes(4, "big") + block)

    def data(self, stream: int, content: bytes, *, end: bool = False) -> bytes:
        """A frame with bytes of a stream."""
        return stream.to_bytes(4, "big") + bytes([_FIN if end else 0]) + len(content).to_bytes(3, "big") + content

    def reset(self, stream: int) -> bytes:
        """The frame that gives a stream up."""
        return _control(_RST_STREAM, stream.to_bytes(4, "big") + (5).to_bytes(4, "big"))


def _control(kind: int, body: bytes) -> bytes:
    return b"\x80\x03" + kind.to_bytes(2, "big") + b"\x00" + len(body).to_bytes(3, "big") + body
