"""A login with an identity provider, end to end: password, code, token, what the token may, and keys that rotate while
requests go on."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from lateen.engine import Transaction
from lateen.model.jwt_keys import KeySource, wanted_sources
from lateen.security.jwks import KeyFetcher
from tests.envoy.guarded_pod import APPLICATION_OF_ALL_METHODS, Call, GuardedPod
from tests.envoy.identity_provider import IdentityProvider
from tests.envoy.test_security_authorization import APPLICATION
from tests.envoy.test_security_tokens import tampered

POLICIES = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: login}
spec:
  jwtRules:
  - {issuer: "ISSUER", audiences: [orders], outputClaimToHeaders: [{header: x-user, claim: sub}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: orders}
spec:
  rules:
  - to: [{operation: {paths: [/health]}}]
  - from: [{source: {requestPrincipals: ["ISSUER/*"]}}]
    to: [{operation: {methods: [GET], paths: ["/orders*"]}}]
    when: [{key: "request.auth.claims[permissions]", values: ["read:orders"]}]
  - to: [{operation: {methods: [DELETE], paths: ["/orders/{*}"]}}]
    when: [{key: "request.auth.claims[permissions]", values: ["delete:orders"]}]
---
"""


class Keys:
    """The control plane's fetcher for a Pod; `look` has it look at the provider again."""

    def __init__(self, pod: GuardedPod, *texts: str) -> None:
        self._pod = pod
        self._texts = texts
        self._arrived: asyncio.Queue[None] = asyncio.Queue()
        self._ticks: asyncio.Queue[None] = asyncio.Queue()
        self.fetcher = KeyFetcher(self._publish, wait=self._wait)

    def _publish(self, source: KeySource, keys: str) -> None:
        self._pod.graph.commit(Transaction(put=[(source, keys)]))
        self._arrived.put_nowait(None)

    async def _wait(self, _: float) -> None:
        await self._ticks.get()

    async def look(self) -> None:
        """Returns when what has changed at the provider is in force."""
        self._ticks.put_nowait(None)
        await self.arrive()

    async def arrive(self) -> None:
        """Returns when keys have come and are in force."""
        async with asyncio.timeout(30):
            await self._arrived.get()
        await asyncio.to_thread(self._pod.configure, *self._texts)


@pytest.fixture(scope="module")
def pod() -> Iterator[GuardedPod]:
    with GuardedPod() as made:
        made.application(APPLICATION_OF_ALL_METHODS, 9080)
        yield made


def post(provider: IdentityProvider, path: str, **form: str) -> tuple[int, str, str]:
    """Status, `location` and body."""
    connection = http.client.HTTPConnection(urlsplit(provider.issuer).netloc, timeout=10)
    try:
        connection.request("POST", path, urlencode(form), {"content-type": "application/x-www-form-urlencoded"})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("location", ""), answer.read().decode()
    finally:
        connection.close()


def log_in(provider: IdentityProvider, user: str, password: str) -> str:
    """The access token of a login, as a browser and an application get it together; empty when it is refused."""
    verifier, state = secrets.token_urlsafe(32), secrets.token_urlsafe()
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    form = {"redirect_uri": "https://shop.test/back", "state": state, "code_challenge": challenge}
    status, location, _ = post(provider, "/login", username=user, password=password, **form)
    if status != 302:
        return ""
    sent = parse_qs(urlsplit(location).query)
    assert sent["state"] == [state]
    code = sent["code"][0]
    assert post(provider, "/oauth/token", code="another", code_verifier=verifier)[0] == 401
    status, _, body = post(provider, "/oauth/token", code=code, code_verifier=verifier)
    assert status == 200
    return str(json.loads(body)["access_token"])


def with_token(token: str, path: str = "/orders", method: str = "GET") -> Call:
    return Call(path=path, method=method, headers=(("authorization", f"Bearer {token}"),))


async def test_a_login_and_keys_that_rotate_under_traffic(pod: GuardedPod) -> None:
    provider = IdentityProvider()
    reads = {"aud": ["orders", "userinfo"], "permissions": ["read:orders"]}
    provider.users["alice"] = ("wonderland", reads)
    provider.users["root"] = ("toor", {**reads, "permissions": ["read:orders", "delete:orders"]})
    provider.users["other"] = ("x", {**reads, "aud": "invoices"})
    texts = (APPLICATION, POLICIES.replace("ISSUER", provider.issuer))
    pod.configure(*texts)
    keys = Keys(pod, *texts)
    keys.fetcher.want(pod.graph.pull(wanted_sources))
    task = asyncio.create_task(keys.fetcher.run())
    await keys.arrive()

    assert log_in(provider, "alice", "wrong") == ""
    alice, root, other = (log_in(provider, name, provider.users[name][0]) for name in ("alice", "root", "other"))
    calls = [
        Call(path="/health"),
        Call(path="/orders"),
        with_token(alice),
        with_token(alice, "/orders/7", "DELETE"),
        with_token(root, "/orders/7", "DELETE"),
        with_token(other),
        with_token(tampered(alice)),
    ]
    assert pod.statuses(calls) == [200, 403, 200, 403, 200, 403, 401]
    assert pod.call(path="/orders", headers=calls[2].headers).seen_headers["x-user"] == "alice"

    traffic = Traffic(pod, provider)
    for _ in range(2):
        provider.stage()
        await keys.look()
        provider.promote()
        await asyncio.to_thread(traffic.renew)
        provider.retire()
        await keys.look()
    assert pod.statuses([with_token(alice)]) == [401]  # its key is gone
    await asyncio.to_thread(traffic.end)
    assert traffic.wrong == []
    assert traffic.answers[200] >= 2 * traffic.rounds > 10
    assert set(traffic.answers) == {200, 401, 403}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    provider.close()


class Traffic:
    """Requests that go on in a thread: with the token of the last login, with a forged one, and without."""

    def __init__(self, pod: GuardedPod, provider: IdentityProvider) -> None:
        self._pod = pod
        self._provider = provider
        self._token = log_in(provider, "alice", "wonderland")
        self._turned = threading.Condition()
        self._over = False
        self.rounds = 0
        self.answers: Counter[int] = Counter()
        self.wrong: list[Any] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        expected = [200, 200, 401, 403]
        while not self._over:
            token = self._token
            calls = [
                with_token(token),
                with_token(token, "/orders/1"),
                with_token(tampered(token)),
                Call(path="/orders"),
            ]
            answered = self._pod.statuses(calls)
            # 0: cut off, since listeners are replaced here without any draining; asked again
            got = [status or self._pod.statuses([call])[0] for status, call in zip(answered, calls, strict=True)]
            if got != expected:
                self.wrong.append(got)
            with self._turned:
                self.rounds += 1
                self.answers.update(got)
                self._turned.notify_all()

    def renew(self) -> None:
        """Logs in again, and returns when no request is under way with the token from before."""
        self._token = log_in(self._provider, "alice", "wonderland")
        with self._turned:
            reached = self.rounds + 2
            assert self._turned.wait_for(lambda: self.rounds >= reached, 60)

    def end(self) -> None:
        """Returns after the last request."""
        with self._turned:
            reached = max(self.rounds + 1, 6)
            assert self._turned.wait_for(lambda: self.rounds >= reached, 60)
        self._over = True
        self._thread.join()
