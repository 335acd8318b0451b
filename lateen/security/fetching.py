"""Fetching by HTTP what configuration names: addresses that many people may write, so a fetch is restrained.

HTTP and HTTPS only, a few redirects (never from HTTPS to HTTP), a limit of bytes, and no connection to networks where
only the machine itself has business (link-local: cloud metadata services), whatever a name resolves to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast
from urllib.parse import urljoin, urlsplit

import httpcore
import msgspec

from lateen.lib.errors import LateenError

MAX_REDIRECTS: Final = 3
BLOCKED: Final = tuple(
    ipaddress.ip_network(each)
    for each in ("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "fe80::/10", "ff00::/8", "fd00:ec2::/32", "::/128")
)
"""Networks that no server of this sort is in."""


class FetchError(LateenError):
    """Nothing was fetched; the message says why, without anything secret."""


class Fetched(msgspec.Struct, frozen=True):
    """An answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def pool(roots: ssl.SSLContext | None = None) -> httpcore.AsyncConnectionPool:
    """A pool of restrained connections."""
    return httpcore.AsyncConnectionPool(
        ssl_context=roots or ssl.create_default_context(), network_backend=_Restrained(), max_connections=1
    )


async def get(
    connections: httpcore.AsyncConnectionPool,
    url: str,
    headers: Mapping[str, str],
    max_bytes: int,
    accepted: tuple[int, ...] = (200,),
) -> Fetched:
    """What is at an address. FetchError for another status than the accepted ones, and for more bytes.

    A header `authorization` stays with the server that it is for: a redirect to another one loses it.
    """
    sent = dict(headers)
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FetchError(f"{url[:200]!r} is not an address of HTTP or HTTPS")
        async with connections.stream("GET", url, headers=list(sent.items())) as response:
            found = {name.decode().lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in (301, 302, 303, 307, 308) and "location" in found:
                target = urljoin(url, found["location"])
                if parts.scheme == "https" and not target.startswith("https://"):
                    raise FetchError(f"{shown(url)} leads from HTTPS to something else")
                if urlsplit(target).netloc != parts.netloc:
                    sent.pop("authorization", None)
                url = target
                continue
            if response.status not in accepted:
                raise FetchError(f"{shown(url)} answered {response.status}")
            return Fetched(response.status, found, await _body(response, url, max_bytes))
    raise FetchError(f"more than {MAX_REDIRECTS} redirects")


async def post(
    connections: httpcore.AsyncConnectionPool, url: str, content: bytes, headers: Mapping[str, str], max_bytes: int
) -> Fetched:
    """What an address answers to some content, without redirects. FetchError for another status than 200, and for more
    bytes."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError(f"{url[:200]!r} is not an address of HTTP or HTTPS")
    async with connections.stream("POST", url, headers=list(headers.items()), content=content) as response:
        if response.status != 200:
            raise FetchError(f"{shown(url)} answered {response.status}")
        return Fetched(200, {}, await _body(response, url, max_bytes))


async def _body(response: httpcore.Response, url: str, max_bytes: int) -> bytes:
    body = bytearray()
    async for part in response.aiter_stream():
        body += part
        if len(body) > max_bytes:
            raise FetchError(f"{shown(url)} sent more than {max_bytes} bytes")
    return bytes(body)


def shown(url: str) -> str:
    """An address without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


class _Restrained(httpcore.AsyncNetworkBackend):
    """Connects to addresses outside of BLOCKED only; what is checked is what is dialled."""

    def __init__(self) -> None:
        self._backend = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (the interface of httpcore)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        allowed = [address for *_, (address, *_) in found if not _blocked(str(address))]
        if not allowed:
            raise FetchError(f"{host} is at an address that is not allowed")
        return await self._backend.connect_tcp(str(allowed[0]), port, timeout, local_address, socket_options)


def _blocked(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in BLOCKED if network.version == (mapped or address).version)
