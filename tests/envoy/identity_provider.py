"""An identity provider for tests: OpenID discovery, keys that rotate, and tokens, on joserfc."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

SLOW_S = 1.0


class IdentityProvider:
    """Serves `/.well-known/openid-configuration`, `/keys`, the same after a while as `/slow`, and `/nothing`."""

    def __init__(self) -> None:
        self._number = 0
        self._keys: list[RSAKey] = []
        self.rotate()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = provider.answer(self.path).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
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

    def rotate(self, *, keep: int = 1) -> None:
        """Signs with a new key from now on; so many older ones are still shown."""
        self._number += 1
        new = RSAKey.generate_key(2048, {"kid": f"key-{self._number}", "use": "sig", "alg": "RS256"})
        self._keys = [new, *self._keys[:keep]]

    def answer(self, path: str) -> str:
        """The document at a path."""
        if path.startswith("/.well-known/openid-configuration"):
            return json.dumps({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"})
        if path.startswith("/nothing"):
            return '{"keys": []}'
        if path.startswith("/slow"):
            time.sleep(SLOW_S)
        return self.keys

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
