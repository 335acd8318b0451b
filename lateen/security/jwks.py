"""Fetches the keys of token issuers, and SPIFFE bundles of other trust domains, for the whole mesh.

Each source has a task: fetch, publish what changed, wait, again. How long it waits is for the key server to say
(`Cache-Control: max-age`) within `REFRESH_S`; after a failure it waits longer each time. The last good keys stay in
force as long as it takes, also over a restart: they are kept in a file.

Addresses come from configuration that many people may write, so a fetch is restrained: HTTP and HTTPS only, a few
redirects, `MAX_BYTES`, the time limit of the policy, and no connection to networks where only the machine itself has
business (link-local: cloud metadata services), whatever a name resolves to. Only public parts of keys are kept.

Source: https://openid.net/specs/openid-connect-discovery-1_0.html, RFC 7517, RFC 9111
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from random import uniform
from typing import Any, Final, cast
from urllib.parse import urljoin, urlsplit

import httpcore
import msgspec
import structlog

from lateen.lib.bundles import from_spiffe
from lateen.lib.errors import LateenError
from lateen.lib.keysets import encoded, usable_keys
from lateen.model.jwt_keys import KeySource
from lateen.security.files import write_secret

MAX_BYTES: Final = 1 << 20
MAX_REDIRECTS: Final = 3
REFRESH_S: Final = (30.0, 1200.0)
"""The shortest and the longest time between two fetches of a good source."""
DEFAULT_REFRESH_S: Final = 300.0
"""The time between two fetches when the server says nothing."""
BACKOFF_S: Final = (1.0, 300.0)
BLOCKED: Final = tuple(
    ipaddress.ip_network(each)
    for each in ("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "fe80::/10", "ff00::/8", "fd00:ec2::/32", "::/128")
)
"""Networks that no key server is in."""

_log = structlog.stdlib.get_logger("lateen.jwks")


class KeyFetchError(LateenError):
    """A key server gave no keys; the message says why, without anything secret."""


class _Discovery(msgspec.Struct, frozen=True):
    jwks_uri: str


class Fetched(msgspec.Struct, frozen=True):
    """A key set as text, the same text for the same keys, and when to look again."""

    keys: str
    refresh_s: float


class KeyFetcher:
    """Keeps the keys of all sources that are wanted. `publish` is told of each new key set.

    `wait` is the clock; tests bring their own.
    """

    def __init__(
        self,
        publish: Callable[[KeySource, str], None],
        cache: Path | None = None,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
        roots: ssl.SSLContext | None = None,
    ) -> None:
        self.fetched = 0
        self.failed = 0
        self._publish = publish
        self._cache = cache
        self._wait = wait
        self._roots = roots
        self._known = self._load()
        self._tasks: dict[KeySource, asyncio.Task[None]] = {}
        self._wanted: frozenset[KeySource] = frozenset()
        self._changed = asyncio.Event()

    @property
    def known(self) -> dict[KeySource, str]:
        """The last good keys of every source, also of those from before a restart."""
        return dict(self._known)

    def want(self, sources: Iterable[KeySource]) -> None:
        """Says which sources are needed from now on."""
        self._wanted = frozenset(sources)
        self._changed.set()

    async def run(self) -> None:
        """Fetches until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                for source in self._tasks.keys() - self._wanted:
                    self._tasks.pop(source).cancel()
                for source in self._wanted - self._tasks.keys():
                    self._tasks[source] = group.create_task(self._follow(source), name=f"keys of {source.url}")
                await self._changed.wait()
                self._changed.clear()

    async def _follow(self, source: KeySource) -> None:
        failures = 0
        while True:
            try:
                found = await fetch(source, self._roots)
            except KeyFetchError as error:
                if failures == 0:
                    _log.warning("keys not fetched", source=source.url, reason=str(error), kept=source in self._known)
                self.failed += 1
                failures += 1
                shortest, longest = BACKOFF_S
                delay_s = min(longest, shortest * 2 ** (failures - 1)) * uniform(0.75, 1.25)  # noqa: S311 (jitter)
            else:
                if failures:
                    _log.info("keys fetched again", source=source.url)
                failures = 0
                self.fetched += 1
                delay_s = found.refresh_s
                if self._known.get(source) != found.keys:
                    self._known[source] = found.keys
                    self._save()
                    self._publish(source, found.keys)
            await self._wait(delay_s)

    def _load(self) -> dict[KeySource, str]:
        if self._cache is None or not self._cache.exists():
            return {}
        try:
            pairs = msgspec.json.decode(self._cache.read_bytes(), type=list[tuple[KeySource, str]])
        except msgspec.MsgspecError:
            _log.warning("kept keys not readable", file=str(self._cache))
            return {}
        return dict(pairs)

    def _save(self) -> None:
        if self._cache is not None:
            write_secret(self._cache, msgspec.json.encode(sorted(self._known.items())))


async def fetch(source: KeySource, roots: ssl.SSLContext | None = None) -> Fetched:
    """The keys of a source now. KeyFetchError when it has none within its time limit."""
    try:
        async with asyncio.timeout(source.timeout_s), _pool(roots) as pool:
            url = source.url
            if source.discovery:
                text, _ = await _get(pool, source.url.rstrip("/") + "/.well-known/openid-configuration")
                url = msgspec.json.decode(text, type=_Discovery).jwks_uri
            text, refresh_s = await _get(pool, url)
    except TimeoutError:
        raise KeyFetchError(f"no answer within {source.timeout_s:g} s") from None
    except (msgspec.MsgspecError, RecursionError):
        raise KeyFetchError("the discovery document names no jwks_uri") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
        raise KeyFetchError(f"{type(error).__name__}: {error}") from None
    return Fetched(_roots(text) if source.bundle else _public(text), refresh_s)


def _pool(roots: ssl.SSLContext | None) -> httpcore.AsyncConnectionPool:
    return httpcore.AsyncConnectionPool(
        ssl_context=roots or ssl.create_default_context(), network_backend=_Restrained(), max_connections=1
    )


async def _get(pool: httpcore.AsyncConnectionPool, url: str) -> tuple[bytes, float]:
    """The document at an address, and for how many seconds it's good."""
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise KeyFetchError(f"{url[:200]!r} is not an address of HTTP or HTTPS")
        async with pool.stream("GET", url, headers={"accept": "application/json"}) as response:
            headers = {name.decode().lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in (301, 302, 303, 307, 308) and "location" in headers:
                target = urljoin(url, headers["location"])
                if parts.scheme == "https" and not target.startswith("https://"):
                    raise KeyFetchError(f"{_shown(url)} leads from HTTPS to something else")
                url = target
                continue
            if response.status != 200:
                raise KeyFetchError(f"{_shown(url)} answered {response.status}")
            body = bytearray()
            async for part in response.aiter_stream():
                body += part
                if len(body) > MAX_BYTES:
                    raise KeyFetchError(f"{_shown(url)} sent more than {MAX_BYTES} bytes")
        return bytes(body), _refresh_s(headers)
    raise KeyFetchError(f"more than {MAX_REDIRECTS} redirects")


def _shown(url: str) -> str:
    """An address without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _refresh_s(headers: dict[str, str]) -> float:
    said = re.search(r"max-age=(\d{1,9})", headers.get("cache-control", ""))
    shortest, longest = REFRESH_S
    return min(longest, max(shortest, float(said[1]))) if said else DEFAULT_REFRESH_S


def _public(text: bytes) -> str:
    """The usable public keys of a set as text."""
    keys = [each for each in usable_keys(text) if each["kty"] != "oct"]
    if not keys:
        raise KeyFetchError("there is no public key in it")
    return encoded(keys)


def _roots(text: bytes) -> str:
    """The roots of a SPIFFE bundle as PEM."""
    try:
        return from_spiffe(text)
    except ValueError as error:
        raise KeyFetchError(str(error)) from None


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
            raise KeyFetchError(f"{host} is at an address that is not allowed")
        return await self._backend.connect_tcp(str(allowed[0]), port, timeout, local_address, socket_options)


def _blocked(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in BLOCKED if network.version == (mapped or address).version)
