"""Security policies that are wrong, or do not do what they seem to: each is refused or found, with the reason, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from lateen.apiserver.applying import apply_files
from lateen.lib.findings import Finding
from lateen.lib.keypair import new_request
from lateen.lib.signing import SigningError
from tests.envoy.plug_in import PlugIn
from tests.security.plane import Attacked, attacked

pytestmark = pytest.mark.asyncio(loop_scope="module")
PRIVATE = "c2VjcmV0LWtleS1vZi1zb21lYm9keQ"

REFUSED = {
    "an unknown condition key": (
        "AuthorizationPolicy",
        '{rules: [{when: [{key: "request.header[x]", values: [a]}]}]}',
        "request.header[x]",
        "spec.rules[0].when[0].key",
    ),
    "a CIDR that is none": (
        "AuthorizationPolicy",
        '{rules: [{from: [{source: {ipBlocks: ["10.0.0.300/8"]}}]}]}',
        "10.0.0.300/8",
        "spec.rules[0].from[0].source.ipBlocks[0]",
    ),
    "a CIDR with too long a prefix": (
        "AuthorizationPolicy",
        '{action: DENY, rules: [{from: [{source: {remoteIpBlocks: ["10.0.0.0/33"]}}]}]}',
        "10.0.0.0/33",
        "spec.rules[0].from[0].source.remoteIpBlocks[0]",
    ),
    "a condition's CIDR": (
        "AuthorizationPolicy",
        '{rules: [{when: [{key: source.ip, notValues: ["fd00::/200"]}]}]}',
        "fd00::/200",
        "spec.rules[0].when[0].notValues[0]",
    ),
    "a JWKS that is no JSON": (
        "RequestAuthentication",
        f'{{jwtRules: [{{issuer: x, jwks: "{{{PRIVATE}"}}]}}',
        "JSON",
        "spec.jwtRules[0].jwks",
    ),
    "a port that is none": (
        "AuthorizationPolicy",
        '{rules: [{to: [{operation: {ports: ["80000"]}}]}]}',
        "80000",
        "spec.rules[0].to[0].operation.ports[0]",
    ),
    "a field that does not exist": (
        "AuthorizationPolicy",
        '{rules: [{from: [{source: {principal: ["a"]}}]}]}',
        "principal",
        "spec.rules[0].from[0].source.principal",
    ),
    "a mode that does not exist": ("PeerAuthentication", "{mtls: {mode: STRICTER}}", "STRICTER", "spec.mtls.mode"),
    "ports without a selector": (
        "PeerAuthentication",
        "{portLevelMtls: {80: {mode: DISABLE}}}",
        "selector",
        "spec.portLevelMtls",
    ),
}
FOUND = {
    "a policy that can never match": (
        "AuthorizationPolicy",
        '{action: DENY, rules: [{to: [{operation: {paths: ["admin"]}}]}]}',
        "LTN0310",
    ),
    "an ALLOW that shuts out everything": ("AuthorizationPolicy", "{}", "LTN0125"),
    "a selector that selects nothing": (
        "AuthorizationPolicy",
        "{selector: {matchLabels: {app: nobody}}, rules: [{}]}",
        "LTN0121",
    ),
    "a provider that nobody declared": (
        "AuthorizationPolicy",
        "{action: CUSTOM, provider: {name: nobody}, rules: [{}]}",
        "LTN0123",
    ),
    "a trust domain that is none of ours": (
        "AuthorizationPolicy",
        '{rules: [{from: [{source: {principals: ["evil.test/ns/a/sa/b"]}}]}]}',
        "LTN0311",
    ),
    "a JWKS without keys": (
        "RequestAuthentication",
        "{jwtRules: [{issuer: x, jwks: '{\"keys\": []}'}]}",
        "no key in it is usable",
    ),
    "an issuer twice": ("RequestAuthentication", "{jwtRules: [{issuer: x}, {issuer: x}]}", "LTN0127"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane() -> AsyncIterator[Attacked]:
    async with attacked() as made:
        yield made


async def applied(plane: Attacked, name: str, kind: str, spec: str) -> tuple[bool, list[Finding]]:
    """Whether an object was taken, and what is said of it."""
    text = f"apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: p, namespace: bank}}\nspec: {spec}\n"
    result = await apply_files(plane.client, [(f"{name}.yaml", text)])
    return result.applied, list(result.findings)


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_wrong_in_itself_is_refused_where_it_stands(plane: Attacked, name: str) -> None:
    kind, spec, words, path = REFUSED[name]
    taken, findings = await applied(plane, name, kind, spec)
    assert not taken
    found = [each for each in findings if each.path == path]
    assert found, findings
    assert words in found[0].message
    assert found[0].remedy
    assert found[0].position is not None
    assert found[0].position.line == 4
    assert PRIVATE not in str(findings), "a key is not repeated"
    assert PRIVATE not in plane.log.read_text()


@pytest.mark.parametrize("name", FOUND)
async def test_what_does_not_do_what_it_seems_to_is_found(plane: Attacked, name: str) -> None:
    kind, spec, wanted = FOUND[name]
    taken, findings = await applied(plane, name, kind, spec)
    assert taken
    said = [each for each in findings if wanted in (each.code, *each.message.split(",")[:1])]
    assert said, findings
    assert all(each.message and each.remedy for each in said)
    await plane.client.delete(kind, "p", "bank")


async def test_a_refusal_of_the_ca_is_logged_once_without_what_was_shown(plane: Attacked) -> None:
    token = (await plane.token("bank"))[:-4] + "AAAA"
    before = len(plane.log.read_text())
    for _ in range(5):
        with pytest.raises(SigningError, match="UNAUTHENTICATED"):
            await plane.signer.sign(new_request()[1], token=token)
    lines = [line for line in plane.log.read_text()[before:].splitlines() if "certificate refused" in line]
    assert len(lines) == 1
    assert token.split(".")[1] not in lines[0]
    assert json.loads(lines[0])["reason"]


async def test_a_secret_with_a_ca_that_is_over_is_found_once(plane: Attacked) -> None:
    over = PlugIn(days=-1).files()
    metadata = {"name": "cacerts", "namespace": "istio-system"}
    before = len(plane.log.read_text())
    secret: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": over}
    await plane.client.create(secret)

    async def findings() -> list[dict[str, Any]]:
        status: dict[str, Any] = (await plane.client.get("secret", "cacerts", "istio-system")).get("status") or {}
        return status.get("findings", [])

    async with asyncio.timeout(60):
        while not await findings():
            await asyncio.sleep(0.1)
    (found,) = await findings()
    assert (found["code"], "ended at" in found["message"]) == ("LTN0340", True)
    await plane.client.patch("secret", "cacerts", "istio-system", {"metadata": {"labels": {"again": "x"}}})
    await asyncio.to_thread(plane.page, "/api/overview")
    lines = [line for line in plane.log.read_text()[before:].splitlines() if "not used" in line]
    assert len(lines) == 1
    assert "PRIVATE" not in plane.log.read_text()
