"""Who a TCP caller is: by bearer token, else by client certificate; and whom the owner acts as (`--as`).

A certificate was verified against the API's CA in the handshake; its common name is the user, its organizations are
the groups. Only the owner of the mesh (`system:masters`) may act as somebody else.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from starlette.requests import HTTPConnection

from lateen.apiserver.errors import ForbiddenError, UnauthorizedError
from lateen.apiserver.users import AUTHENTICATED, MASTERS, Authenticator, User

_ACCOUNT: Final = "system:serviceaccount:"
_AS: Final = "impersonate-"


Identify = Callable[[HTTPConnection], User | None]


def by_credentials(authenticate: Authenticator) -> Identify:
    """Tells callers on TCP apart; `authenticate` knows tokens. UnauthorizedError for a token that is nobody's."""
    return by_token(authenticate, lambda connection: of_certificate(connection.scope["state"].get("peer")))


def by_token(authenticate: Authenticator, otherwise: Identify) -> Identify:
    """Tells callers apart by bearer token, those without one `otherwise`; UnauthorizedError for a token that is
    nobody's."""

    def identify(connection: HTTPConnection) -> User | None:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            user = authenticate(token.strip())
            if user is None:
                raise UnauthorizedError("Unauthorized", remedy="the token is not known, or has ended")
            return user
        return otherwise(connection)

    return identify


def of_certificate(peer: Any) -> User | None:
    """The user that a certificate (as `ssl` describes it) is for."""
    if not peer:
        return None
    parts = [part for group in peer.get("subject", ()) for part in group]
    name = next((value for key, value in parts if key == "commonName"), "")
    groups = tuple(value for key, value in parts if key == "organizationName")
    return User(name, (*groups, AUTHENTICATED)) if name else None


def account_user(namespace: str, name: str, uid: str = "") -> User:
    """The user that a service account is."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(f"{_ACCOUNT}{namespace}:{name}", groups, uid)


def acting_as(connection: HTTPConnection, user: User) -> User:
    """The user that the request is to be taken for. ForbiddenError when the caller may not act as another."""
    name = connection.headers.get(f"{_AS}user", "")
    groups = tuple(connection.headers.getlist(f"{_AS}group"))
    others = [key for key in connection.headers if key.startswith(_AS)]
    if not others:
        return user
    if MASTERS not in user.groups:
        raise ForbiddenError(f'User "{user.name}" cannot impersonate', remedy="only the owner of the mesh can")
    if not name:
        raise ForbiddenError("requested impersonation without a user", remedy="set Impersonate-User")
    if name.startswith(_ACCOUNT) and name.count(":") == 3:
        account = account_user(*name.split(":")[2:])
        return User(account.name, (*account.groups, *groups))
    return User(name, tuple(dict.fromkeys((*groups, AUTHENTICATED))))
