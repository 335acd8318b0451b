"""The pages and the API for people: tokens of service accounts, and an identity provider (a real one, on joserfc).

The browser here is httpx with its cookies; `test_browser` does the same in Chromium.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit, urlunsplit

import httpx
import pytest
import pytest_asyncio
from joserfc.jwk import RSAKey

from lateen.daemon.settings import SettingsError, load
from tests.envoy.identity_provider import IdentityProvider
from tests.security.plane import Attacked, Json, attacked

pytestmark = pytest.mark.asyncio(loop_scope="module")
HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    made = IdentityProvider()
    made.users["alice"] = ("wonderland", {"groups": ["bankers", "system:masters"]})
    made.users["eve"] = ("eve", {})
    yield made
    made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(provider: IdentityProvider) -> AsyncIterator[Attacked]:
    async with attacked(oidc_issuer=provider.issuer, oidc_client_id="lateen") as made:
        await made.bind("view", {"kind": "Group", "name": "oidc:bankers"}, "bank")
        yield made


def browser(plane: Attacked) -> httpx.AsyncClient:
    """One that keeps cookies and follows nothing by itself."""
    return httpx.AsyncClient(base_url=f"http://localhost:{plane.settings.console_port}", headers=HTML, timeout=30)


async def provider_login(client: httpx.AsyncClient, at: str, user: str, password: str) -> httpx.Response:
    """Fills in the provider's form; where the browser is sent next."""
    asked = dict(parse_qsl(urlsplit(at).query))
    assert asked["code_challenge_method"] == "S256"
    target = urlunsplit((*urlsplit(at)[:3], "", ""))
    return await client.post(target, data={**asked, "username": user, "password": password})


async def log_in(client: httpx.AsyncClient, user: str, password: str, where: str = "/") -> httpx.Response:
    """The whole way, to the page that one wanted."""
    sent = await client.get(f"/login/oidc?next={where}")
    assert sent.status_code == 303
    back = await provider_login(client, sent.headers["location"], user, password)
    assert back.status_code == 302
    entered = await client.get(back.headers["location"])
    assert entered.status_code == 303, entered.text
    return await client.get(entered.headers["location"])


async def test_nobody_sees_anything_without_a_login(plane: Attacked) -> None:
    async with browser(plane) as client:
        page = await client.get("/")
        assert (page.status_code, page.headers["location"]) == (303, "/login?next=/")
        form = await client.get("/login?next=/")
        assert f"Log in with {plane.settings.oidc_issuer}" in form.text
        for path in ("/api/overview", "/api/objects", "/api/proxies", "/metrics"):
            answer = await client.get(path, headers={"accept": "application/json"})
            assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized"), path
        assert (await client.get("/healthz")).status_code == 200


async def test_a_login_with_the_provider_shows_what_the_groups_roles_allow(plane: Attacked) -> None:
    async with browser(plane) as client:
        page = await log_in(client, "alice", "wonderland", "/api/objects")
        listed = {(each["kind"], each["metadata"].get("namespace", "")) for each in page.json()["items"]}
        assert ("Pod", "bank") in listed
        assert {namespace for _, namespace in listed} == {"bank"}, (
            "the group system:masters of the provider is nobody's"
        )
        assert not [kind for kind, _ in listed if kind == "Secret"]
        overview = await client.get("/")
        assert "oidc:alice" in overview.text
        assert "bank/vault-1" in overview.text
        assert "gateway-1" not in overview.text
        assert "no-store" in overview.headers["cache-control"]
        assert (await client.get("/metrics")).status_code == 403
        left = await client.post("/logout", headers={"origin": str(client.base_url).rstrip("/")})
        assert left.status_code == 303
        assert (await client.get("/")).status_code == 303
    async with browser(plane) as client:
        assert "vault-1" not in (await log_in(client, "eve", "eve")).text, "she has no roles"


async def test_cookies_are_for_the_pages_alone(plane: Attacked) -> None:
    async with browser(plane) as client:
        sent = await client.get("/login/oidc")
        back = await provider_login(client, sent.headers["location"], "alice", "wonderland")
        entered = await client.get(back.headers["location"])
        (cookie,) = [each for each in entered.headers.get_list("set-cookie") if each.startswith("lateen-t=")]
        assert "HttpOnly" in cookie
        assert "samesite=lax" in cookie.lower()
        session = cookie.partition("=")[2].partition(";")[0]
        assert "." not in session, "the token stays with the control plane"
        assert session not in plane.log.read_text()


async def test_a_login_is_ended_by_the_browser_that_began_it_once_and_with_its_own_state(
    plane: Attacked, provider: IdentityProvider
) -> None:
    async with browser(plane) as victim, browser(plane) as attacker:
        sent = await attacker.get("/login/oidc")
        back = await provider_login(attacker, sent.headers["location"], "eve", "eve")
        forced = await victim.get(back.headers["location"])
        assert (forced.status_code, "not begun here" in forced.text) == (400, True), "login CSRF"
        assert (await attacker.get(back.headers["location"])).status_code == 400, "and the state is used up"
        query = {"state": "made-up", "code": "x"}
        assert (await victim.get(f"/login/callback?{urlencode(query)}")).status_code == 400
        sent = await victim.get("/login/oidc")
        state = parse_qs(urlsplit(sent.headers["location"]).query)["state"][0]
        wrong = await victim.get(f"/login/callback?{urlencode({'state': state, 'code': 'guessed'})}")
        assert (wrong.status_code, "answered 401" in wrong.text) == (401, True)
        sent = await victim.get("/login/oidc")
        state = parse_qs(urlsplit(sent.headers["location"]).query)["state"][0]
        error = {"state": state, "error": "<script>access_denied"}
        refused = await victim.get(f"/login/callback?{urlencode(error)}")
        assert (refused.status_code, "<script" in refused.text) == (401, False)


async def test_many_beginnings_ask_the_provider_little_and_do_not_end_others(
    plane: Attacked, provider: IdentityProvider
) -> None:
    async with browser(plane) as client, browser(plane) as flood:
        sent = await client.get("/login/oidc")
        before = provider.discovered
        for _ in range(100):
            assert (await flood.get("/login/oidc")).status_code == 303
        assert provider.discovered <= before + 1  # one may be for its keys
        back = await provider_login(client, sent.headers["location"], "eve", "eve")
        assert (await client.get(back.headers["location"])).status_code == 303


async def test_after_a_login_one_stays_on_these_pages(plane: Attacked) -> None:
    for where in ("https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"):
        async with browser(plane) as client:
            sent = await client.get(f"/login/oidc?{urlencode({'next': where})}")
            back = await provider_login(client, sent.headers["location"], "eve", "eve")
            entered = await client.get(back.headers["location"])
            assert entered.headers["location"] == "/", where


async def test_a_token_of_a_service_account_logs_in_until_its_account_is_gone(plane: Attacked) -> None:
    token = await plane.account_token("shop", "reader", "view")
    async with browser(plane) as client:
        wrong = await client.post("/login", data={"token": token[:-4] + "AAAA"})
        assert (wrong.status_code, "not known" in wrong.text) == (401, True)
        other = await client.post("/login", data={"token": token}, headers={"origin": "http://evil.example"})
        assert other.status_code == 403
        entered = await client.post("/login", data={"token": token, "next": "/api/overview"})
        assert (entered.status_code, entered.headers["location"]) == (303, "/api/overview")
        assert (await client.get("/api/overview")).json()["objects"]["Pod"] == 2
        await plane.client.delete("ServiceAccount", "reader", "shop")
        assert (await client.get("/")).status_code == 303


async def test_the_api_takes_the_providers_tokens_for_this_mesh(plane: Attacked, provider: IdentityProvider) -> None:
    context = ssl.create_default_context(cafile=str(plane.layout.api / "ca.crt"))
    groups: Json = {"groups": ["bankers"]}
    good = provider.token("alice", aud="lateen", **groups)
    other = IdentityProvider()
    forged = other.token("alice", aud="lateen", iss=provider.issuer, **groups)
    other.close()
    async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{plane.settings.api_port}", verify=context) as client:

        async def code(token: str, namespace: str = "bank") -> int:
            headers = {"authorization": f"Bearer {token}"}
            return (await client.get(f"/api/v1/namespaces/{namespace}/pods", headers=headers)).status_code

        assert await code(good) == 200
        assert await code(good, "shop") == 403
        assert await code(provider.token("alice", aud=["x", "lateen"], **groups)) == 200
        refused: dict[str, str] = {
            "forged": forged,
            "another audience": provider.token("alice", aud="shop", **groups),
            "none": provider.token("alice", aud=None, **groups),
            "ended": provider.token("alice", aud="lateen", exp=int(time.time()) - 60, **groups),
            "not yet": provider.token("alice", aud="lateen", nbf=int(time.time()) + 600, **groups),
            "without an end": provider.token("alice", aud="lateen", exp=None, **groups),
            "another issuer": provider.token("alice", aud="lateen", iss="https://evil.example", **groups),
            "nobody": provider.token("", aud="lateen", **groups),
            "unsigned": unsigned(good),
            "signed with the public key": confused(good, provider),
        }
        for name, token in refused.items():
            assert await code(token) == 401, name
        headers = {"authorization": f"Bearer {good}"}
        review: Json = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = await client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json=review, headers=headers)
        said: dict[str, Any] = answer.json()["status"]["userInfo"]
        assert said == {"username": "oidc:alice", "groups": ["oidc:bankers", "system:authenticated"]}
        provider.rotate()
        fresh = provider.token("alice", aud="lateen", **groups)
        async with asyncio.timeout(30):
            while await code(fresh) != 200:
                await asyncio.sleep(0.1)
        assert good not in plane.log.read_text()


def unsigned(token: str) -> str:
    """The same claims, and the word that no signature is needed."""
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    return f"{head}.{token.split('.')[1]}."


def confused(token: str, provider: IdentityProvider) -> str:
    """The same claims, signed with HMAC and what everybody knows: the provider's public key."""
    (first, *_) = json.loads(provider.keys)["keys"]
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": first["kid"]}).encode()).decode().rstrip("=")
    said = f"{head}.{token.split('.')[1]}"
    signature = hmac.digest(RSAKey.import_key(first).as_pem(private=False), said.encode(), "sha256")
    return f"{said}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


async def test_lateen_token_makes_one_that_ends_with_its_account(plane: Attacked) -> None:
    account = {"kind": "ServiceAccount", "metadata": {"name": "person", "namespace": "bank"}}
    await plane.client.create({"apiVersion": "v1", **account})
    await plane.bind("view", {"kind": "ServiceAccount", "name": "person", "namespace": "bank"}, "bank")
    token = (await plane.lateen("token", "person", "-n", "bank", "--duration", "10m")).strip()
    url = f"http://localhost:{plane.settings.console_port}/api/objects/pod"

    async def answer() -> httpx.Response:
        return await asyncio.to_thread(httpx.get, url, headers={"authorization": f"Bearer {token}"}, timeout=30)

    assert [each["metadata"]["name"] for each in (await answer()).json()["items"]] == ["vault-1"]
    assert "--duration" in await plane.lateen("token", "person", "--duration", "soon", code=2)
    assert "nobody" in await plane.lateen("token", "nobody", "-n", "bank", code=1)
    await plane.client.delete("ServiceAccount", "person", "bank")
    assert (await answer()).status_code == 401


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"oidc_issuer": "http://idp.example", "oidc_client_id": "x"}, "is no issuer"),
        ({"oidc_issuer": "https://idp.example"}, "no oidc_client_id"),
        ({"oidc_client_id": "x"}, "no oidc_issuer"),
        ({"oidc_issuer": "https://i.example", "oidc_client_id": "x", "oidc_ca_file": "/nowhere"}, "cannot be read"),
    ],
)
async def test_settings_that_cannot_work_are_refused(flags: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load(None, {}, {"name": "t", **flags})
