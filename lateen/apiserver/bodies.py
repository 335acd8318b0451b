"""Bodies of requests: read up to a size, decoded from JSON or YAML, never deeper than a document may be."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar, cast

import msgspec
from starlette.requests import Request

from lateen.api.struct import Json
from lateen.apiserver import protobuf
from lateen.apiserver.errors import BadRequestError, MediaTypeError, TooLargeError
from lateen.lib.yaml import parse

T = TypeVar("T")

OBJECT_BYTES: Final = 4 * 1024 * 1024
FILES_BYTES: Final = 64 * 1024 * 1024
_DEPTH: Final = 100
_YAML: Final = ("application/yaml", "application/apply-patch+yaml")


async def body(request: Request, limit_bytes: int) -> bytes:
    """The whole body. TooLargeError when it is larger; what is too large by its own word is not read at all."""
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > limit_bytes:
        raise TooLargeError(f"the request has {said} bytes, more than {limit_bytes}", remedy="send less at once")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit_bytes:
            raise TooLargeError(f"the request is larger than {limit_bytes} bytes", remedy="send less at once")
        parts.append(part)
    content = b"".join(parts)
    request._body = content  # who gets the request next may read it again: `request.body()`
    return content


def media_type(request: Request) -> str:
    """The content type without parameters, JSON when none is given."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() or "application/json"


async def document(request: Request) -> Json:
    """The object in the body; empty when there is no body."""
    content = await body(request, OBJECT_BYTES)
    if not content:
        return {}
    kind = media_type(request)
    if kind == protobuf.MEDIA_TYPE:
        return protobuf.decode(content)
    if kind in _YAML and not content.lstrip().startswith(b"{"):
        documents, broken = parse(content.decode(errors="replace"), "request")
        if broken or len(documents) != 1 or not isinstance(documents[0].raw, dict):
            said = str(broken[0].message) if broken else "it is not one object"
            raise BadRequestError(f"the request cannot be read: {said}", remedy="send one YAML document")
        return cast("Json", documents[0].raw)
    if kind not in ("application/json", *_YAML) and not kind.endswith("+json"):
        raise MediaTypeError(f"bodies of type {kind} are not read here", remedy="send application/json")
    return decoded(content, dict[str, Any])


def decoded(content: bytes, kind: type[T]) -> T:
    """JSON of that form. BadRequestError when it is not."""
    if _too_deep(content):
        raise BadRequestError(f"the request is nested deeper than {_DEPTH} levels", remedy="send something simpler")
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"the request cannot be read: {error}", remedy="send JSON of that form") from None


_TEXT: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def _too_deep(content: bytes) -> bool:
    """Whether brackets nest too deep: each round takes the innermost ones away, in C."""
    if content.count(b"[") + content.count(b"{") <= _DEPTH:
        return False
    left = _TEXT.sub(b"", content).translate(None, _NOT_BRACKETS)
    for _ in range(_DEPTH):
        inner = left.replace(b"[]", b"").replace(b"{}", b"")
        if not inner or inner == left:
            return False  # nothing is left, or brackets do not match, which the decoder says better
        left = inner
    return True


def number(name: str, text: Any) -> int:
    """A whole number of a request. BadRequestError when it is none."""
    try:
        return int(text)
    except (ValueError, TypeError):
        raise BadRequestError(f"{name} {text!r} is not a number") from None
