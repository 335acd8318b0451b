"""The pages of docs/features/gateways do what they say, on the real Envoy, by clients of TLS, HTTP/2 and HTTP/3.

An expectation is a connection: `to` (the server name of the handshake; `http: 0` for none and requests in the clear),
`port` (8443), `http` (1, 2 or 3; 2 unless said), `client` (whose certificate it shows), then `asks` in order: `host`,
`path`, `method`, `headers`, `token` (claims), and what comes of it: `from` (who answers) or `status`, `answer`
(headers; null: absent). `certificate` are the names the server shows. `keep` names a connection that stays open,
`again` goes on with it. `refused: true`: no request gets an answer. With `line` one line is sent instead, `from` says
who answers, and `alpn` is what the client offers.

`$ISSUER` and `$KEYS` are those of a provider, `$CHAIN_1`, `$KEY_1` and so on are certificates and keys for a.shop.test.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import steps
from tests.docs.test_features import PAGES as FEATURES
from tests.envoy.identity_provider import IdentityProvider
from tests.envoy.test_gateway_http3 import headers_over_http3
from tests.lab.client import Answer, Caller, Caller2, exchange
from tests.lab.lab import Lab

KEYS = {
    *("to", "port", "http", "client", "asks", "certificate", "keep", "again", "refused", "line", "alpn", "from"),
}
ASK_KEYS = {"host", "path", "method", "headers", "token", "from", "status", "answer"}
PAGES = FEATURES / "gateways"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_page(page: Path, lab: Lab) -> None:
    visitor = _Visitor(lab)
    checked = 0
    try:
        for step in steps(page):
            if step.kind != "expect":
                lab.configure(visitor.filled(step.text))
                continue
            for expected in yaml.safe_load(step.text):
                try:
                    visitor.check(expected)
                except Exception as error:
                    error.add_note(f"{page.name}:{step.line}: {json.dumps(expected)}")
                    raise
                checked += 1
    finally:
        visitor.close()
    assert checked, f"{page.name} checks nothing"


class _Visitor:
    """Who makes the connections of a page."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._provider = IdentityProvider()
        self._kept: dict[str, Caller | Caller2] = {}
        root = lab.certificates.authorities["root"]
        self._pairs = [root.leaf("", "a.shop.test", f"number-{number}.shop.test") for number in (1, 2)]

    def close(self) -> None:
        for each in self._kept.values():
            each.__exit__()
        self._provider.close()

    def filled(self, text: str) -> str:
        """The configuration of a page with what its placeholders stand for."""
        text = text.replace("$ISSUER", self._provider.issuer).replace("$KEYS", self._provider.keys)
        for number, pair in enumerate(self._pairs, 1):
            for name, value in zip(("CHAIN", "KEY"), pair, strict=True):
                text = text.replace(f"${name}_{number}", base64.b64encode(value).decode())
        return text

    def check(self, expected: Json) -> None:
        """Does what an expectation says. AssertionError when it comes out otherwise, ValueError for an unknown key."""
        asks: list[Json] = expected.get("asks", [])
        if unknown := (expected.keys() - KEYS) | {key for each in asks for key in each.keys() - ASK_KEYS}:
            raise ValueError(f"an expectation has no {', '.join(sorted(unknown))}")
        if "line" in expected:
            assert self._line(expected) == expected.get("from", ""), expected
            return
        if expected.get("http") == 3:
            answers = headers_over_http3(self._lab, expected["to"], *(each["host"] for each in asks))
            found = [Answer(int(each[":status"]), each, b"", 0) for each in answers]
        else:
            found = self._answers(expected, asks)
        if expected.get("refused"):
            assert all(each.status == 0 for each in found), found
            return
        assert len(found) == len(asks)
        for ask, answer in zip(asks, found, strict=True):
            if "from" in ask:
                assert (answer.status, answer.server) == (200, ask["from"]), (ask, answer)
            assert answer.status == ask.get("status", 200), (ask, answer)
            for name, value in ask.get("answer", {}).items():
                assert answer.headers.get(name) == value, (ask, answer)

    def _answers(self, expected: Json, asks: list[Json]) -> list[Answer]:
        if name := expected.get("again"):
            return [self._ask(self._kept[name], each) for each in asks]
        try:
            caller = self._caller(expected)
        except OSError:
            return [Answer(0, {}, b"", 0)]
        try:
            return [self._ask(caller, each) for each in asks or [{"host": expected["to"]}]][: len(asks) or 1]
        finally:
            if "keep" in expected:
                self._kept[expected["keep"]] = caller
            else:
                caller.__exit__()

    def _caller(self, expected: Json) -> Caller | Caller2:
        version, port = expected.get("http", 2), expected.get("port", 8443)
        if version == 0:
            return Caller(self._lab, "gateway", port)
        context = self._lab.certificates.client_context(expected.get("client", ""), ("h2",) if version == 2 else ())
        if "certificate" in expected:
            with self._lab.connect("gateway", port, tls=context, sni=expected["to"]) as one:
                assert isinstance(one, ssl.SSLSocket)
                names = [str(value) for _, value in (one.getpeercert() or {}).get("subjectAltName", ())]
                assert names == expected["certificate"]
        kind = Caller2 if version == 2 else Caller
        return kind(self._lab, "gateway", port, tls=context, sni=expected["to"])

    def _ask(self, caller: Caller | Caller2, ask: Json) -> Answer:
        headers = dict(ask.get("headers", {}))
        if "token" in ask:
            headers["authorization"] = f"Bearer {self._provider.token(**ask['token'])}"
        path = ask.get("path", "/")
        if isinstance(caller, Caller2):
            return caller.ask(ask["host"], path=path, **headers)[0]
        return caller.ask(path, ask["host"], ask.get("method", "GET"), headers)

    def _line(self, expected: Json) -> str:
        context = self._lab.certificates.client_context(expected.get("client", ""), tuple(expected.get("alpn", ())))
        plain = expected.get("http") == 0
        try:
            with self._lab.connect(
                "gateway", expected.get("port", 8443), tls=None if plain else context, sni=expected.get("to", "")
            ) as one:
                return str(exchange(one, expected["line"]).get("server", ""))
        except OSError:
            return ""
