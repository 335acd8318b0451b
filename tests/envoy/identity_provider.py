"""An identity provider for tests: OpenID discovery, logins, keys that rotate, and tokens, on joserfc."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

SLOW_S = 1.0


class LoginError(Exception):
    """A login that the provider refuses."""


class IdentityProvider:
    """Serves `/.well-known/openid-configuration`, `/keys`, the same after a while as `/slow`, and `/nothing`.

    Who has a password (`users`: name to password and claims) logs in at `/login` (a form for browsers), which sends the
    browser back with a code, and gets tokens for it at `/oauth/token` (authorization code with PKCE, RFC 6749 and
    7636), with an ID token for the client if it asked with a nonce (OpenID Connect).
    """

    def __init__(self) -> None:
        self.users: dict[str, tuple[str, dict[str, Any]]] = {}
        self._codes: dict[str, dict[str, str]] = {}
        self._number = 0
        self.discovered = 0
        """How often its discovery document was asked for."""
        self._keys: list[RSAKey] = []
        self.rotate()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, provider.answer(self.path), kind="text/html" if "/login" in self.path else "")

            def do_POST(self) -> None:
                form = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
                try:
                    if self.path == "/login":
                        self._answer(302, "", provider.log_in(form))
                    else:
                        self._answer(200, provider.tokens(form))
                except LoginError as error:
                    self._answer(401, str(error))

            def _answer(self, status: int, text: str, location: str = "", kind: str = "") -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                if kind:
                    self.send_header("content-type", kind)
                if location:
                    self.send_header("location", location)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def issuer(self) -> str:
        """What its tokens say they are from."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def keys(self) -> str:
        """Its public keys as a JSON Web Key Set."""
        return json.dumps(KeySet(list(self._keys)).as_dict(private=False))

    def stage(self) -> None:
        """Shows a new key that nothing is signed with yet."""
        self._number += 1
        new = RSAKey.generate_key(2048, {"kid": f"key-{self._number}", "use": "sig", "alg": "RS256"})
        self._keys = [*self._keys, new]

    def promote(self) -> None:
        """Signs with the newest key from now on."""
        self._keys = [self._keys[-1], *self._keys[:-1]]

    def retire(self, *, keep: int = 0) -> None:
        """Shows the key that signs, and so many others, no longer the rest."""
        self._keys = self._keys[: keep + 1]

    def rotate(self, *, keep: int = 1) -> None:
        """Signs with a new key from now on; so many older ones are still shown."""
        self.stage()
        self.promote()
        self.retire(keep=keep)

    def answer(self, path: str) -> str:
        """The document at a path."""
        if path.startswith("/.well-known/openid-configuration"):
            self.discovered += 1
            named = {"authorization_endpoint": "login", "token_endpoint": "oauth/token", "jwks_uri": "keys"}
            return json.dumps({"issuer": self.issuer, **{name: f"{self.issuer}/{at}" for name, at in named.items()}})
        if path.startswith("/login"):
            return _form(dict(parse_qsl(urlsplit(path).query)))
        if path.startswith("/nothing"):
            return '{"keys": []}'
        if path.startswith("/slow"):
            time.sleep(SLOW_S)
        return self.keys

    def log_in(self, form: dict[str, str]) -> str:
        """Where the browser is sent with the code of a login. LoginError for a wrong password."""
        password, _ = self.users.get(form["username"], ("", {}))
        if not password or not secrets.compare_digest(password, form["password"]):
            raise LoginError("wrong user or password")
        code = secrets.token_urlsafe()
        self._codes[code] = form
        return f"{form['redirect_uri']}?{urlencode({'code': code, 'state': form['state']})}"

    def tokens(self, form: dict[str, str]) -> str:
        """Tokens for a code, once. LoginError when the verifier is not that of the login."""
        asked = self._codes.pop(form["code"], {})
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        if not asked or base64.urlsafe_b64encode(digest).decode().rstrip("=") != asked["code_challenge"]:
            raise LoginError("no such code")
        if form.get("redirect_uri", asked["redirect_uri"]) != asked["redirect_uri"]:
            raise LoginError("the code is for another address")
        name = asked["username"]
        claims = self.users[name][1]
        answer = {"access_token": self.token(name, **claims), "token_type": "Bearer", "expires_in": 3600}
        if "nonce" in asked:
            answer["id_token"] = self.token(name, **(claims | {"aud": asked["client_id"], "nonce": asked["nonce"]}))
        return json.dumps(answer)

    def token(self, subject: str = "alice", **claims: Any) -> str:
        """A token good for an hour; a claim None leaves one out."""
        now = int(time.time())
        said = {"iss": self.issuer, "sub": subject, "iat": now, "exp": now + 3600} | claims
        said = {name: value for name, value in said.items() if value is not None}
        key = self._keys[0]
        return jwt.encode({"alg": "RS256", "kid": key.kid}, said, key)

    def close(self) -> None:
        """Goes away."""
        self._server.shutdown()
        self._server.server_close()


def _form(asked: dict[str, str]) -> str:
    hidden = "".join(
        f'<input type=hidden name="{escape(name)}" value="{escape(said)}">' for name, said in asked.items()
    )
    fields = "<input name=username><input name=password type=password><button>Go</button>"
    return f"<!doctype html><title>Provider</title><form method=post action=/login>{hidden}{fields}</form>"
