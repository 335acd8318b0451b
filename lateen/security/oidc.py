"""People who log in with an identity provider: OpenID Connect, as a client of the authorization code flow with PKCE,
and as a reader of the tokens that it gives.

A token is somebody's when the provider signed it, for this client, and it has not ended. Names and groups get a prefix,
and never begin with `system:`, so a provider cannot name the API's own users and groups.

Sources: https://openid.net/specs/openid-connect-core-1_0.html, RFC 7636 (PKCE), RFC 9207, and
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#openid-connect-tokens for the claims.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import secrets
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote, urlencode

import httpcore
import msgspec
import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from lateen.model.jwt_keys import KeySource
from lateen.security.fetching import FetchError, get, pool, post
from lateen.security.jwks import MAX_BYTES, WELL_KNOWN, KeyFetcher

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA")
TIMEOUT_S: Final = 10.0
_LEEWAY_S: Final = 30
_LOOK_AGAIN_S: Final = 10.0
_ENDPOINTS_S: Final = 300.0
_RESERVED: Final = "system:"

_log = structlog.stdlib.get_logger("lateen.security.oidc")


class LoginError(Exception):
    """A login that came to nothing; the message says why, without anything secret."""


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """What is agreed with an identity provider. `secret_file` holds the client's secret, if it has one; `ca_file` a CA
    (PEM) that the provider's certificate may be from, beside those of the machine."""

    issuer: str
    client_id: str
    secret_file: str = ""
    ca_file: str = ""
    scopes: str = "openid profile email"
    username_claim: str = "sub"
    username_prefix: str = "oidc:"
    groups_claim: str = "groups"
    groups_prefix: str = "oidc:"

    @property
    def keys(self) -> KeySource:
        """Where its keys are."""
        return KeySource(self.issuer, discovery=True, timeout_s=TIMEOUT_S)


class Person(msgspec.Struct, frozen=True):
    """Who a token is for."""

    name: str
    groups: tuple[str, ...]


class _Endpoints(msgspec.Struct, frozen=True):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str = ""


class Started(msgspec.Struct, frozen=True):
    """A login under way: what its end is compared with."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str


class Oidc:
    """One provider. `run` keeps its keys until cancelled; those of before a restart are in `cache`."""

    def __init__(self, provider: Provider, cache: Path | None = None, now: Callable[[], float] = time.time) -> None:
        self._provider = provider
        self._now = now
        self._keys = KeySet([])
        self._looked = 0.0
        roots = ssl.create_default_context(cafile=provider.ca_file) if provider.ca_file else None
        self._roots = roots
        self._wanted = asyncio.Event()
        self._known: tuple[float, _Endpoints] | None = None
        self._fetcher = KeyFetcher(self._publish, cache, self._wait, roots)
        for source, keys in self._fetcher.known.items():
            self._publish(source, keys)

    @property
    def issuer(self) -> str:
        """Whose tokens are read."""
        return self._provider.issuer

    async def run(self) -> None:
        """Fetches keys until cancelled."""
        self._fetcher.want([self._provider.keys])
        await self._fetcher.run()

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wanted.wait()
        self._wanted.clear()

    def _publish(self, source: KeySource, keys: str) -> None:
        if source == self._provider.keys:
            self._keys = KeySet.import_key_set(msgspec.json.decode(keys))

    # -- tokens ----------------------------------------------------------------------------------------

    def read(self, token: str, nonce: str | None = None) -> Person | None:
        """Who a token is for; None when it is nobody's: not from the provider, not for this client, ended, or (with
        `nonce`) not of that login."""
        provider = self._provider
        try:
            claims = jwt.decode(token, self._keys, algorithms=list(ALGORITHMS)).claims
            jwt.JWTClaimsRegistry(
                now=int(self._now()),
                leeway=_LEEWAY_S,
                iss={"essential": True, "value": provider.issuer},
                aud={"essential": True, "value": provider.client_id},
                exp={"essential": True},
            ).validate(claims)
        except (JoseError, ValueError, TypeError, KeyError):
            return None
        if nonce is not None and claims.get("nonce") != nonce:
            return None
        name = claims.get(provider.username_claim)
        verified = provider.username_claim != "email" or claims.get("email_verified", True) is True
        if not isinstance(name, str) or not name or not verified:
            return None
        name = provider.username_prefix + name
        groups = [f"{provider.groups_prefix}{each}" for each in _texts(claims.get(provider.groups_claim))]
        if name.startswith(_RESERVED):
            return None
        return Person(name, tuple(each for each in groups if not each.startswith(_RESERVED)))

    def look_again(self) -> None:
        """Fetches keys now, unless that was done just before: a token is signed with a key that is not known."""
        if self._now() - self._looked > _LOOK_AGAIN_S:
            self._looked = self._now()
            self._wanted.set()

    # -- logins ----------------------------------------------------------------------------------------

    async def start(self, redirect_uri: str) -> tuple[Started, str]:
        """A new login, and where the browser goes for it. LoginError when the provider cannot be asked."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        started = Started(state, nonce, verifier, redirect_uri)
        digest = hashlib.sha256(started.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._provider.client_id,
            "redirect_uri": redirect_uri,
            "scope": self._provider.scopes,
            "state": started.state,
            "nonce": started.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        where = (await self._endpoints()).authorization_endpoint
        return started, f"{where}{'&' if '?' in where else '?'}{urlencode(query)}"

    async def finish(self, started: Started, code: str) -> str:
        """The token for the code that a login ended with. LoginError when there is none that is good."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": started.redirect_uri,
            "client_id": self._provider.client_id,
            "code_verifier": started.verifier,
        }
        headers = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}
        if self._provider.secret_file:
            secret = await asyncio.to_thread(Path(self._provider.secret_file).read_text)
            pair = f"{quote(self._provider.client_id, '')}:{quote(secret.strip(), '')}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        where = (await self._endpoints()).token_endpoint
        try:
            async with asyncio.timeout(TIMEOUT_S), pool(self._roots) as connections:
                found = await post(connections, where, urlencode(form).encode(), headers, MAX_BYTES)
            token = msgspec.json.decode(found.body, type=_Tokens).id_token
        except FetchError as error:
            raise LoginError(f"the identity provider gave no token: {error}") from None
        except (msgspec.MsgspecError, RecursionError):
            raise LoginError("the identity provider's answer is no token") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            raise LoginError(f"the identity provider does not answer: {type(error).__name__}") from None
        if self.read(token, started.nonce) is None:
            raise LoginError("the identity provider's token is not good: signature, audience, time or nonce")
        return token

    async def _endpoints(self) -> _Endpoints:
        """Kept for a while: anybody may begin a login, and not every one is worth a question to the provider."""
        if self._known is None or self._now() - self._known[0] > _ENDPOINTS_S:
            self._known = (self._now(), await self._ask_endpoints())
        return self._known[1]

    async def _ask_endpoints(self) -> _Endpoints:
        url = self._provider.issuer.rstrip("/") + WELL_KNOWN
        try:
            async with asyncio.timeout(TIMEOUT_S), pool(self._roots) as connections:
                found = await get(connections, url, {"accept": "application/json"}, MAX_BYTES)
            endpoints = msgspec.json.decode(found.body, type=_Endpoints)
        except FetchError as error:
            raise LoginError(f"the identity provider cannot be asked: {error}") from None
        except (msgspec.MsgspecError, RecursionError):
            raise LoginError("the identity provider's discovery document lacks what a login needs") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            raise LoginError(f"the identity provider does not answer: {type(error).__name__}") from None
        if endpoints.issuer != self._provider.issuer:
            raise LoginError(f"the discovery document is of {endpoints.issuer!r}, not of {self._provider.issuer!r}")
        return endpoints


def issuer_of(token: str) -> str:
    """Who a token says it is from, unverified; empty when it says nothing."""
    try:
        body = token.split(".")[1]
        said: Any = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError, msgspec.DecodeError):
        return ""
    issuer = cast("dict[str, Any]", said).get("iss") if isinstance(said, dict) else ""
    return issuer if isinstance(issuer, str) else ""


def _texts(claim: Any) -> list[str]:
    if isinstance(claim, str):
        return [claim]
    return [each for each in cast("list[Any]", claim) if isinstance(each, str)] if isinstance(claim, list) else []
