"""Service account tokens: how a Pod or machine proves who it is before it has a certificate.

A token is a JWT with Kubernetes' claims, bound to one Pod (or WorkloadGroup) by name and uid, for one audience, for
hours. The
signing keys are a JWK set in a file of the state directory, newest first; after `rotate` the older ones still
verify, named by `kid`, until no token of theirs can be alive.

Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/ (bound tokens), RFC 7519.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from lateen.security.files import write_secret

CA_AUDIENCE = "istio-ca"
ISSUER = "https://kubernetes.default.svc.cluster.local"
DEFAULT_LIFETIME_S = 12 * 3600
MAX_LIFETIME_S = 24 * 3600
LEEWAY_S = 30
"""Seconds that clocks may differ: the processes of one mesh mostly share one."""

_ALGORITHM = "ES256"


class TokenError(Exception):
    """A token is not accepted; the message says why and holds nothing of the token."""


class TokenClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified token says. `expires` is in seconds since 1970. Either `pod` or `group` (a WorkloadGroup) is the
    name of what it is bound to, and `uid` that object's."""

    namespace: str
    service_account: str
    pod: str
    uid: str
    group: str
    audiences: tuple[str, ...]
    expires: int
    account_uid: str = ""


class TokenIssuer:
    """Signs and verifies tokens with the keys of one file, which is made if absent."""

    def __init__(self, file: Path, now: Callable[[], float] = time.time) -> None:
        self._file = file
        self._now = now
        try:
            text = file.read_text()
        except FileNotFoundError:
            self._keys: list[dict[str, Any]] = []
            self.rotate()
        else:
            self._keys = json.loads(text)["keys"]
            self._set = KeySet([ECKey.import_key(key) for key in self._keys])

    def rotate(self) -> None:
        """Signs with a new key from now on. Keys replaced longer ago than a token lives are forgotten."""
        now = int(self._now())
        fresh: dict[str, Any] = dict(ECKey.generate_key("P-256").as_dict(private=True))
        fresh |= {"kid": secrets.token_hex(8), "alg": _ALGORITHM, "use": "sig"}
        kept = [key if "replaced" in key else key | {"replaced": now} for key in self._keys]
        self._keys = [fresh, *(key for key in kept if key["replaced"] + MAX_LIFETIME_S + LEEWAY_S > now)]
        write_secret(self._file, json.dumps({"keys": self._keys}).encode())
        self._set = KeySet([ECKey.import_key(key) for key in self._keys])

    def public_keys(self) -> dict[str, Any]:
        """The JWK set others verify with."""
        return dict(KeySet([ECKey.import_key(key.as_dict(private=False)) for key in self._set]).as_dict())

    def issue(
        self,
        *,
        namespace: str,
        service_account: str,
        uid: str,
        pod: str = "",
        group: str = "",
        audiences: tuple[str, ...] = (CA_AUDIENCE,),
        lifetime_s: int = DEFAULT_LIFETIME_S,
        account_uid: str = "",
    ) -> str:
        """A token for one Pod, or for the machines of one group. The lifetime is cut to a day. With `account_uid` it
        ends with that very account."""
        now = int(self._now())
        claims = {
            "iss": ISSUER,
            "sub": f"system:serviceaccount:{namespace}:{service_account}",
            "aud": list(audiences),
            "iat": now,
            "nbf": now,
            "exp": now + min(lifetime_s, MAX_LIFETIME_S),
            "jti": secrets.token_hex(16),
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": service_account, "uid": account_uid},
                "workloadgroup" if group else "pod": {"name": group or pod, "uid": uid},
            },
        }
        key = self._set.keys[0]
        header = {"alg": _ALGORITHM, "kid": key.kid}
        return jwt.encode(header, claims, key, algorithms=[_ALGORITHM])

    def verify(self, token: str, audience: str) -> TokenClaims:
        """The claims of a token that is ours, alive, bound and meant for the audience. TokenError if not."""
        try:
            claims = jwt.decode(token, self._set, algorithms=[_ALGORITHM]).claims
            jwt.JWTClaimsRegistry(
                now=int(self._now()),
                leeway=LEEWAY_S,
                iss={"essential": True, "value": ISSUER},
                sub={"essential": True},
                aud={"essential": True, "value": audience},
                exp={"essential": True},
            ).validate(claims)
        except (JoseError, ValueError) as error:
            raise TokenError(f"the token is not accepted: {error}") from None
        bound = claims.get("kubernetes.io", {})
        group = bound.get("workloadgroup", {})
        holder = group or bound.get("pod", {})
        subject = f"system:serviceaccount:{bound.get('namespace')}:{bound.get('serviceaccount', {}).get('name')}"
        if claims["sub"] != subject or not holder.get("name") or not holder.get("uid"):
            raise TokenError("the token is not bound to a Pod or WorkloadGroup")
        return TokenClaims(
            namespace=bound["namespace"],
            service_account=bound["serviceaccount"]["name"],
            pod="" if group else holder["name"],
            uid=holder["uid"],
            group=group.get("name", ""),
            audiences=tuple(claims["aud"]),
            expires=claims["exp"],
            account_uid=bound["serviceaccount"].get("uid", ""),
        )
