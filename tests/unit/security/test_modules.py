"""Fetching WebAssembly: what is taken, what is refused and why, and what is kept over a restart."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lateen.lib.secrets import MaskedText
from lateen.model.extensions import Module, ModuleSource
from lateen.security.fetching import FetchError
from lateen.security.modules import ModuleFetcher, fetch
from tests.lab.modules import LOGIN, MODULE_LAYER, Registry, archive, digest, module


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as made:
        yield made


def config(host: str, login: str = LOGIN) -> MaskedText:
    auth = base64.b64encode(login.encode()).decode()
    return MaskedText(json.dumps({"auths": {host: {"auth": auth}}}).encode())


async def test_images_of_both_forms_by_tag_and_by_digest(registry: Registry) -> None:
    plain = registry.image("a/plain", module(), tag="v1", media=MODULE_LAYER)
    packed = registry.image("a/packed", archive(module()), tag="v1", index=True)
    assert await fetch(ModuleSource(plain), None) == module()
    assert await fetch(ModuleSource(packed), None) == module()
    manifest = digest(registry.files["/v2/a/plain/manifests/v1"][1])
    assert await fetch(ModuleSource(f"oci://{registry.host}/a/plain@sha256:{manifest}"), None) == module()
    assert await fetch(ModuleSource(plain, sha256=manifest), None) == module(), "the checksum of the image"
    assert await fetch(ModuleSource(plain, sha256=digest(module())), None) == module(), "or of the module"


async def test_a_private_image_needs_the_secret(registry: Registry) -> None:
    url = f"oci://{registry.host}/team/private:v1"
    with pytest.raises(FetchError, match="answered 401"):
        await fetch(ModuleSource(url), None)
    named = ModuleSource(url, namespace="default", secret="puller")
    with pytest.raises(FetchError, match="there is no Secret default/puller"):
        await fetch(named, None)
    with pytest.raises(FetchError, match="answered 401"):
        await fetch(named, config(registry.host, "somebody:else"))
    assert await fetch(named, config(registry.host)) == module()
    with pytest.raises(FetchError, match="answered 401"):
        await fetch(named, config("other.example"))


async def test_what_is_refused(registry: Registry, tmp_path: Path) -> None:
    forged = registry.image("a/forged", module(), tag="v1", media=MODULE_LAYER)
    blob = next(path for path in registry.files if path.startswith("/v2/a/forged/blobs/"))
    registry.put(blob, module("othr"))
    empty = registry.image("a/empty", archive(b"x", "other.txt"), tag="v1")
    text = registry.put("/text", b"hello")
    (tmp_path / "text").write_text("hello")
    wrong = {
        forged: "something else than the digest says",
        empty: "has no file plugin.wasm",
        text: "it is not WebAssembly",
        f"file://{tmp_path}/text": "it is not WebAssembly",
        f"file://{tmp_path}/none": "cannot be read",
        f"file://{tmp_path}": "is no file",
        f"http://{registry.host}/none": "answered 404",
        "oci://nothing": "no image reference",
        "http://169.254.169.254/latest": "not allowed",
        "http://0.0.0.0/": "not allowed",
    }
    for url, why in wrong.items():
        with pytest.raises(FetchError, match=why):
            await fetch(ModuleSource(url), None)


async def test_modules_are_kept_over_a_restart(registry: Registry, tmp_path: Path) -> None:
    source = ModuleSource(f"http://{registry.host}/wasm.wasm")
    assert await _published(source, tmp_path) == [Module(module())]
    asked = len(registry.asked)
    del registry.files["/wasm.wasm"]
    assert await _published(source, tmp_path) == [Module(module())], "from the file"
    assert len(registry.asked) == asked
    (kept,) = tmp_path.glob("*.wasm")
    kept.write_bytes(kept.read_bytes()[:-1])
    (torn,) = await _published(source, tmp_path)
    assert "answered 404" in torn.problem, "a torn file is nothing"


async def _for_ever(_: float) -> None:
    await asyncio.Event().wait()


async def _published(source: ModuleSource, cache: Path) -> list[Module]:
    found: list[Module] = []
    come = asyncio.Event()

    def publish(_: ModuleSource, made: Module) -> None:
        found.append(made)
        come.set()

    fetcher = ModuleFetcher(publish, lambda _: None, cache, _for_ever)
    fetcher.want([source])
    task = asyncio.create_task(fetcher.run())
    async with asyncio.timeout(20):
        await come.wait()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return found
