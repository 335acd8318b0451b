"""Fetches the keys of token issuers, and SPIFFE bundles of other trust domains, for the whole mesh.

Each source has a task: fetch, publish what changed, wait, again. How long it waits is for the key server to say
(`Cache-Control: max-age`) within `REFRESH_S`; after a failure it waits longer each time. The last good keys stay in
force as long as it takes, also over a restart: they are kept in a file.

Fetches are restrained (`lateen/security/fetching.py`) and have the time limit of the policy. Only public parts of keys
are kept.

Source: https://openid.net/specs/openid-connect-discovery-1_0.html, RFC 7517, RFC 9111
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import httpcore
import msgspec
import structlog

from lateen.lib.bundles import from_spiffe
from lateen.lib.keysets import encoded, usable_keys
from lateen.model.jwt_keys import KeySource
from lateen.security.fetching import FetchError, get, pool
from lateen.security.files import write_secret
from lateen.security.following import Following, backoff_s

MAX_BYTES: Final = 1 << 20
REFRESH_S: Final = (30.0, 1200.0)
"""The shortest and the longest time between two fetches of a good source."""
DEFAULT_REFRESH_S: Final = 300.0
"""The time between two fetches when the server says nothing."""
WELL_KNOWN: Final = "/.well-known/openid-configuration"
_JSON: Final = {"accept": "application/json"}

_log = structlog.stdlib.get_logger("lateen.jwks")


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
        self._following = Following(self._follow, lambda _: None)

    @property
    def known(self) -> dict[KeySource, str]:
        """The last good keys of every source, also of those from before a restart."""
        return dict(self._known)

    def want(self, sources: Iterable[KeySource]) -> None:
        """Says which sources are needed from now on."""
        self._following.want(sources)

    async def run(self) -> None:
        """Fetches until cancelled."""
        await self._following.run()

    async def _follow(self, source: KeySource) -> None:
        failures = 0
        while True:
            try:
                found = await fetch(source, self._roots)
            except FetchError as error:
                if failures == 0:
                    _log.warning("keys not fetched", source=source.url, reason=str(error), kept=source in self._known)
                self.failed += 1
                failures += 1
                delay_s = backoff_s(failures)
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
    """The keys of a source now. FetchError when it has none within its time limit."""
    try:
        async with asyncio.timeout(source.timeout_s), pool(roots) as connections:
            url = source.url
            if source.discovery:
                found = await get(connections, source.url.rstrip("/") + WELL_KNOWN, _JSON, MAX_BYTES)
                url = msgspec.json.decode(found.body, type=_Discovery).jwks_uri
            found = await get(connections, url, _JSON, MAX_BYTES)
    except TimeoutError:
        raise FetchError(f"no answer within {source.timeout_s:g} s") from None
    except (msgspec.MsgspecError, RecursionError):
        raise FetchError("the discovery document names no jwks_uri") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
        raise FetchError(f"{type(error).__name__}: {error}") from None
    text = found.body
    return Fetched(_roots(text) if source.bundle else _public(text), _refresh_s(found.headers))


def _refresh_s(headers: Mapping[str, str]) -> float:
    said = re.search(r"max-age=(\d{1,9})", headers.get("cache-control", ""))
    shortest, longest = REFRESH_S
    return min(longest, max(shortest, float(said[1]))) if said else DEFAULT_REFRESH_S


def _public(text: bytes) -> str:
    """The usable public keys of a set as text."""
    keys = [each for each in usable_keys(text) if each["kty"] != "oct"]
    if not keys:
        raise FetchError("there is no public key in it")
    return encoded(keys)


def _roots(text: bytes) -> str:
    """The roots of a SPIFFE bundle as PEM."""
    try:
        return from_spiffe(text)
    except ValueError as error:
        raise FetchError(str(error)) from None
