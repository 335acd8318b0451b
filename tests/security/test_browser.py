"""Logging in to the pages in a real Chromium, with the identity provider and with a token."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.envoy.identity_provider import IdentityProvider
from tests.security.chromium import Chromium
from tests.security.plane import Attacked, attacked

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    made = IdentityProvider()
    made.users["alice"] = ("wonderland", {"groups": ["bankers"]})
    yield made
    made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(provider: IdentityProvider) -> AsyncIterator[Attacked]:
    async with attacked(oidc_issuer=provider.issuer, oidc_client_id="lateen") as made:
        await made.bind("view", {"kind": "Group", "name": "oidc:bankers"}, "bank")
        yield made


async def test_with_the_provider(plane: Attacked) -> None:
    await asyncio.to_thread(with_the_provider, f"http://localhost:{plane.settings.console_port}")


def with_the_provider(pages: str) -> None:
    with Chromium() as chromium:
        chromium.go(f"{pages}/")
        chromium.click("#provider")
        chromium.fill("[name=username]", "alice")
        chromium.fill("[name=password]", "wonderland")
        chromium.click("button")
        chromium.until(f"location.href == '{pages}/' && document.body.innerText.includes('bank/vault-1')")
        text = str(chromium.run("document.body.innerText"))
        assert "oidc:alice" in text
        assert "gateway-1" not in text, "her role is for another namespace"
        assert chromium.run("document.cookie") == "", "no script reads the session"
        assert {each["name"] for each in chromium.cookies() if each["httpOnly"]} >= {"lateen-t"}
        chromium.click("form[action='/logout'] button")
        chromium.until("location.pathname == '/login'")
        chromium.go(f"{pages}/")
        chromium.until("location.pathname == '/login' && location.search == '?next=/'")


async def test_with_a_token(plane: Attacked) -> None:
    token = await plane.account_token("shop", "reader", "view")
    await asyncio.to_thread(with_a_token, f"http://localhost:{plane.settings.console_port}", token)


def with_a_token(pages: str, token: str) -> None:
    with Chromium() as chromium:
        chromium.go(f"{pages}/")
        chromium.fill("[name=token]", "nonsense")
        chromium.click("button")
        chromium.until("document.body.innerText.includes('The token is not known')")
        chromium.fill("[name=token]", token)
        chromium.click("button")
        chromium.until(f"location.href == '{pages}/' && document.body.innerText.includes('shop/gateway-1')")
        assert "system:serviceaccount:shop:reader" in str(chromium.run("document.body.innerText"))


async def test_another_sites_form_does_not_log_anybody_in(plane: Attacked, provider: IdentityProvider) -> None:
    """A page of the provider's origin posts a token of somebody else to the pages."""
    token = await plane.account_token("shop", "attacker", "view")
    await asyncio.to_thread(with_anothers_form, f"http://localhost:{plane.settings.console_port}", provider, token)


def with_anothers_form(pages: str, provider: IdentityProvider, token: str) -> None:
    with Chromium() as chromium:
        chromium.go(f"{provider.issuer}/login?x=1")
        chromium.until("!!document.querySelector('form')")
        chromium.run(
            f"document.body.innerHTML = \"<form method=post action='{pages}/login'><input name=token value='{token}'>"
            '</form>"; document.forms[0].submit()'
        )
        chromium.until("document.body.innerText.includes('forms of other sites are not taken')")
        assert "lateen-t" not in {each["name"] for each in chromium.cookies()}
