"""The fetcher of keys: discovery, refresh, back-off, last good keys, and what it refuses to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from joserfc.jwk import ECKey, RSAKey

from lateen.model.jwt_keys import KeySource
from lateen.security.fetching import FetchError
from lateen.security.following import BACKOFF_S
from lateen.security.jwks import DEFAULT_REFRESH_S, MAX_BYTES, REFRESH_S, KeyFetcher, fetch
from tests.unit.security_policies.key_server import Answer, KeyServer

ONE = RSAKey.generate_key(2048, {"kid": "one"}).as_dict(private=False)
TWO = ECKey.generate_key("P-256", {"kid": "two"}).as_dict(private=False)


def keys(*each: Mapping[str, object]) -> bytes:
    return json.dumps({"keys": each}).encode()


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    async with KeyServer() as made:
        made.answers["/keys"] = Answer(keys(ONE))
        yield made


def ignore(source: KeySource, text: str) -> None:
    """A publisher for who only looks at what is known."""


class Clock:
    """Waits that a test lets pass one by one."""

    def __init__(self) -> None:
        self.waits: asyncio.Queue[float] = asyncio.Queue()
        self._go = asyncio.Semaphore(0)

    async def wait(self, seconds: float) -> None:
        self.waits.put_nowait(seconds)
        await self._go.acquire()

    async def slept(self) -> float:
        """The next wait; what comes before it has been done."""
        async with asyncio.timeout(10):
            return await self.waits.get()

    def go(self) -> None:
        self._go.release()


@asynccontextmanager
async def running(fetcher: KeyFetcher) -> AsyncIterator[None]:
    task = asyncio.create_task(fetcher.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_keys_by_address(server: KeyServer) -> None:
    found = await fetch(KeySource(f"{server.url}/keys"))
    assert json.loads(found.keys) == {"keys": [ONE]}
    assert found.refresh_s == DEFAULT_REFRESH_S


async def test_keys_by_discovery(server: KeyServer) -> None:
    document = json.dumps({"issuer": server.url, "jwks_uri": f"{server.url}/keys"}).encode()
    server.answers["/realm/.well-known/openid-configuration"] = Answer(document)
    assert json.loads((await fetch(KeySource(f"{server.url}/realm/", discovery=True))).keys) == {"keys": [ONE]}


async def test_only_public_parts_are_kept_and_order_means_nothing(server: KeyServer) -> None:
    symmetric = {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"}
    server.answers["/keys"] = Answer(keys(ONE | {"d": "secret", "p": "secret"}, TWO, symmetric))
    found = await fetch(KeySource(f"{server.url}/keys"))
    assert "secret" not in found.keys
    server.answers["/keys"] = Answer(keys(TWO, ONE))
    assert (await fetch(KeySource(f"{server.url}/keys"))).keys == found.keys


@pytest.mark.parametrize(
    ("said", "refresh_s"), [("max-age=60", 60), ("max-age=1", REFRESH_S[0]), ("max-age=999999", REFRESH_S[1])]
)
async def test_the_server_says_how_long_keys_are_good(server: KeyServer, said: str, refresh_s: float) -> None:
    server.answers["/keys"] = Answer(keys(ONE), headers={"Cache-Control": f"public, {said}"})
    assert (await fetch(KeySource(f"{server.url}/keys"))).refresh_s == refresh_s


REFUSED: list[tuple[str, Answer, str]] = [
    ("an error", Answer(status=500), "answered 500"),
    ("no JSON", Answer(b"<html>"), "no public key"),
    ("a list", Answer(b"[]"), "no public key"),
    ("no keys", Answer(b"{}"), "no public key"),
    ("keys of other kinds", Answer(keys({"kty": "oct", "k": "x"})), "no public key"),
    ("too much", Answer(b'{"keys":[', endless=True), f"more than {MAX_BYTES}"),
    ("silence", Answer(silent=True), "no answer within 0.3 s"),
    ("going round in circles", Answer(status=302, headers={"location": "/keys"}), "redirects"),
    ("a file", Answer(status=302, headers={"location": "file:///etc/passwd"}), "not an address"),
    ("a cloud's metadata", Answer(status=302, headers={"location": "http://169.254.169.254/"}), "not allowed"),
]


@pytest.mark.parametrize(("answer", "reason"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED])
async def test_what_gives_no_keys_is_refused_with_the_reason(server: KeyServer, answer: Answer, reason: str) -> None:
    server.answers["/keys"] = answer
    with pytest.raises(FetchError, match=reason):
        await fetch(KeySource(f"{server.url}/keys", timeout_s=0.3 if answer.silent else 10))


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "http://0.0.0.0:80/",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "file:///etc/passwd",
        "gopher://x/",
        "http:///",
    ],
)
async def test_addresses_that_no_key_server_has(url: str) -> None:
    with pytest.raises(FetchError, match=r"not allowed|not an address"):
        await fetch(KeySource(url))


async def test_nobody_listens() -> None:
    with pytest.raises(FetchError, match="ConnectError"):
        await fetch(KeySource("http://127.0.0.1:1/keys"))


async def test_new_keys_are_published_and_the_same_ones_are_not(server: KeyServer) -> None:
    published: list[str] = []
    clock = Clock()
    source = KeySource(f"{server.url}/keys")
    fetcher = KeyFetcher(lambda _, text: published.append(text), wait=clock.wait)
    async with running(fetcher):
        fetcher.want([source])
        assert await clock.slept() == DEFAULT_REFRESH_S
        clock.go()
        await clock.slept()
        server.answers["/keys"] = Answer(keys(ONE, TWO))
        clock.go()
        await clock.slept()
    assert [len(json.loads(each)["keys"]) for each in published] == [1, 2]
    assert fetcher.fetched == 3


async def test_a_server_that_is_away_is_asked_less_and_less_and_its_keys_stay(server: KeyServer) -> None:
    published: list[str] = []
    clock = Clock()
    source = KeySource(f"{server.url}/keys")
    fetcher = KeyFetcher(lambda _, text: published.append(text), wait=clock.wait)
    async with running(fetcher):
        fetcher.want([source])
        await clock.slept()
        server.answers["/keys"] = Answer(status=503)
        waits: list[float] = []
        for _ in range(12):
            clock.go()
            waits.append(await clock.slept())
        assert 0.7 < waits[0] / BACKOFF_S[0] < 1.3
        assert waits[3] > 4 * BACKOFF_S[0]
        assert max(waits) <= BACKOFF_S[1] * 1.25
        assert json.loads(fetcher.known[source]) == {"keys": [ONE]}
        assert len(published) == 1
        server.answers["/keys"] = Answer(keys(TWO))
        clock.go()
        assert await clock.slept() == DEFAULT_REFRESH_S
    assert json.loads(published[-1]) == {"keys": [TWO]}


async def test_sources_come_and_go(server: KeyServer) -> None:
    clock = Clock()
    server.answers["/other"] = Answer(keys(TWO))
    first, second = KeySource(f"{server.url}/keys"), KeySource(f"{server.url}/other")
    fetcher = KeyFetcher(ignore, wait=clock.wait)
    async with running(fetcher):
        fetcher.want([first, second])
        await clock.slept()
        await clock.slept()
        assert fetcher.known.keys() == {first, second}
        asked = server.asked
        fetcher.want([second])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        clock.go()
        await clock.slept()
        assert server.asked == asked + 1


async def test_keys_outlive_a_restart(server: KeyServer, tmp_path: Path) -> None:
    clock = Clock()
    source = KeySource(f"{server.url}/keys")
    fetcher = KeyFetcher(ignore, tmp_path / "jwks.json", clock.wait)
    async with running(fetcher):
        fetcher.want([source])
        await clock.slept()
    assert json.loads(KeyFetcher(ignore, tmp_path / "jwks.json").known[source]) == {"keys": [ONE]}
    (tmp_path / "jwks.json").write_text("torn")
    assert KeyFetcher(ignore, tmp_path / "jwks.json").known == {}
