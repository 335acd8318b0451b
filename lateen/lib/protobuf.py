"""Protobuf's encoding by hand, where a message is put together from parts that are encoded already.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations


def varint(value: int) -> bytes:
    """A number that is not negative."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    """Bytes, or a message, with its tag and length."""
    return b"%b%b%b" % (varint(number << 3 | 2), varint(len(content)), content)


def text_field(number: int, text: str) -> bytes:
    """A text with its tag and length."""
    return field(number, text.encode())
