"""Tokens with which service accounts use the Kubernetes API: `kubectl create token`.

They are JWTs with Kubernetes' claims, signed by a key that signs nothing else: a token for the API gets no certificate,
and a Pod's token for the CA opens no API. A token is for one account by its uid, so an account that is made anew does
not inherit the tokens of the old one.

Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from lateen.security.files import write_secret

ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
AUDIENCE: Final = ISSUER
MIN_LIFETIME_S: Final = 600
MAX_LIFETIME_S: Final = 365 * 24 * 3600
_LEEWAY_S: Final = 30
_ALGORITHM: Final = "ES256"


class Account(msgspec.Struct, frozen=True):
    """A service account, and until when (seconds since 1970) a token of it is good."""

    namespace: str
    name: str
    uid: str
    expires: int = 0


class AccountTokens:
    """Signs and reads tokens with the key of one file, which is made if absent."""

    def __init__(self, file: Path, now: Callable[[], float] = time.time) -> None:
        self._now = now
        if not file.exists():
            key: dict[str, Any] = dict(ECKey.generate_key("P-256").as_dict(private=True))
            write_secret(file, json.dumps(key).encode())
        self._key = ECKey.import_key(json.loads(file.read_text()))

    def issue(self, account: Account, audiences: Sequence[str], lifetime_s: int) -> tuple[str, int]:
        """A token, and when it ends. The lifetime is at least ten minutes and at most a year."""
        now = int(self._now())
        expires = now + max(MIN_LIFETIME_S, min(lifetime_s, MAX_LIFETIME_S))
        claims = {
            "iss": ISSUER,
            "sub": _subject(account),
            "aud": list(audiences or (AUDIENCE,)),
            "iat": now,
            "nbf": now,
            "exp": expires,
            "jti": secrets.token_hex(16),
            "kubernetes.io": {
                "namespace": account.namespace,
                "serviceaccount": {"name": account.name, "uid": account.uid},
            },
        }
        return jwt.encode({"alg": _ALGORITHM}, claims, self._key, algorithms=[_ALGORITHM]), expires

    def read(self, token: str) -> Account | None:
        """Whose token for the API it is; None when it is not ours, has ended, or is for somebody else."""
        try:
            claims = jwt.decode(token, self._key, algorithms=[_ALGORITHM]).claims
            jwt.JWTClaimsRegistry(
                now=int(self._now()),
                leeway=_LEEWAY_S,
                iss={"essential": True, "value": ISSUER},
                aud={"essential": True, "value": AUDIENCE},
                exp={"essential": True},
            ).validate(claims)
            bound = claims["kubernetes.io"]
            account = Account(
                bound["namespace"], bound["serviceaccount"]["name"], bound["serviceaccount"]["uid"], claims["exp"]
            )
        except (JoseError, ValueError, KeyError, TypeError):
            return None
        return account if claims["sub"] == _subject(account) else None


def _subject(account: Account) -> str:
    return f"system:serviceaccount:{account.namespace}:{account.name}"
