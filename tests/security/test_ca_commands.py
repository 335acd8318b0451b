"""`lateen ca` against a control plane: show, rotate, import, export; and a Secret that brings the key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509

from lateen.lib.bundles import from_spiffe
from lateen.lib.keypair import new_request
from lateen.lib.signing import issuer_identifier
from lateen.security.ca_files import FILES, open_ca
from tests.envoy.plug_in import PlugIn
from tests.security.plane import Attacked, attacked

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane() -> AsyncIterator[Attacked]:
    async with attacked() as made:
        yield made


async def lateen(plane: Attacked, *arguments: str, code: int = 0) -> str:
    """What a command about the CA prints; never a key."""
    said = await plane.lateen("ca", *arguments, code=code)
    assert "PRIVATE KEY" not in said
    return said


async def signer(plane: Attacked) -> str:
    """The identifier of the CA that signs a Pod's certificate now; the chain leads to what the mesh says it trusts."""
    chain = await plane.signer.sign(new_request()[1], token=await plane.token("bank"))
    return issuer_identifier(x509.load_pem_x509_certificate(chain[0].encode()))


async def shown(plane: Attacked) -> dict[str, Any]:
    return json.loads(await lateen(plane, "show", "-o", "json"))


async def test_a_rotation_by_steps(plane: Attacked) -> None:
    before, old = await signer(plane), await shown(plane)
    assert [each["fingerprint"] for each in old["roots"]] == [old["signing"]["fingerprint"]]
    assert old["signing"]["subject"] in await lateen(plane, "show")
    said = await lateen(plane, "rotate", "--wait")
    assert "the former CA is trusted until" in said
    now = await shown(plane)
    assert (now["stage"], len(now["roots"])) == ("retiring", 2)
    assert await signer(plane) != before
    assert "are still trusted" in await lateen(plane, "rotate", code=1)
    await lateen(plane, "rotate", "--retire")
    now = await shown(plane)
    assert (now["stage"], len(now["roots"])) == ("steady", 1)
    assert now["signing"]["fingerprint"] != old["signing"]["fingerprint"]
    assert "different steps" in await lateen(plane, "rotate", "--retire", "--force", code=2)


async def test_export_gives_what_others_need(plane: Attacked, tmp_path: Path) -> None:
    roots = (plane.layout.ca / "root-cert.pem").read_text()
    pem = await lateen(plane, "export")
    assert x509.load_pem_x509_certificate(pem.encode()) == x509.load_pem_x509_certificate(roots.encode())
    bundle = await lateen(plane, "export", "--format", "spiffe")
    assert from_spiffe(bundle.encode()).split() == pem.split()
    copy = tmp_path / "copy"
    assert "keep them safe" in await lateen(plane, "export", "--private-key", str(copy))
    assert copy.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in copy.iterdir()} == {0o600}
    assert {each.name for each in copy.iterdir()} >= set(FILES)
    assert open_ca(copy).signer == await signer(plane)
    assert "is there already" in await lateen(plane, "export", "--private-key", str(copy), code=1)


async def test_import_takes_an_intermediate_and_refuses_what_cannot_sign(plane: Attacked, tmp_path: Path) -> None:
    plug_in = PlugIn()
    good = open_ca(plug_in.write(tmp_path / "good"))
    before = await signer(plane)
    (PlugIn(days=-1).write(tmp_path / "over"))
    mixed = PlugIn().write(tmp_path / "mixed")
    (mixed / "ca-key.pem").write_text(plug_in.files()["ca-key.pem"])
    missing = PlugIn().write(tmp_path / "missing")
    (missing / "cert-chain.pem").unlink()
    rubbish = PlugIn().write(tmp_path / "rubbish")
    (rubbish / "ca-cert.pem").write_text("nonsense")
    for name, words in (("over", "ended at"), ("mixed", "key"), ("missing", "there is no"), ("rubbish", "ca-cert.pem")):
        assert words in await lateen(plane, "import", str(tmp_path / name), code=1), name
        assert await signer(plane) == before
    await lateen(plane, "import", str(tmp_path / "good"), "--wait")
    assert await signer(plane) == good.signer
    assert (plane.layout.ca / "ca-key.pem").stat().st_mode & 0o777 == 0o600
    assert (await shown(plane))["intermediates"] >= 1
    await lateen(plane, "rotate", "--retire")


async def test_a_secret_brings_the_key(plane: Attacked, tmp_path: Path) -> None:
    plug_in = PlugIn()
    made = open_ca(plug_in.write(tmp_path / "secret"))
    metadata = {"name": "cacerts", "namespace": "istio-system"}
    secret: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    await plane.client.create({**secret, "stringData": plug_in.files()})
    async with asyncio.timeout(60):
        while (await shown(plane))["signing"]["serial"] != f"{made.certificate.serial_number:x}":
            await asyncio.sleep(0.2)
    assert await signer(plane) == made.signer
    assert "PRIVATE KEY" not in plane.log.read_text()
