"""WasmPlugins and TrafficExtensions on real proxies: modules fetched each way, what they are told, and what becomes of
traffic when one fails or is not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lateen.model.extensions import module as module_of
from lateen.model.extensions import wanted_modules
from tests.coverage.case import new
from tests.lab.client import ask, exchange, outside
from tests.lab.lab import Lab, Refused
from tests.lab.modules import MODULE_LAYER, Registry, archive, digest, module


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry() as made:
        made.put("/m.wasm", module())
        yield made


def plugin(url: str, name: str = "one", **more: Any) -> str:
    spec: dict[str, Any] = {"url": url, "pluginConfig": {"say": "hello"}, **more}
    document = new("WasmPlugin", name, {key: each for key, each in spec.items() if each is not None})
    return yaml.safe_dump(document) + "---\n"


def seen(lab: Lab, name: str = "wasm", **headers: str) -> str | int | None:
    """The header that the module gives to requests of the application, or the status when it is not 200."""
    answer = ask(lab, "ratings", headers={key.replace("_", "-"): value for key, value in headers.items()})
    return answer.seen["headers"].get(name) if answer.status == 200 else answer.status


def problem(lab: Lab) -> str:
    """Why the module of the configuration is not there."""
    (source,) = lab.sidecar.graph.pull(wanted_modules)
    return lab.sidecar.graph.pull(module_of, source).problem


HELLO = '{"say":"hello"}'


def test_a_module_by_file_by_http_and_by_image(lab: Lab, registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "m.wasm").write_bytes(module("file"))
    lab.configure(plugin(f"file://{tmp_path}/m.wasm"))
    assert seen(lab, "file") == HELLO
    lab.configure(plugin(f"http://{registry.host}/m.wasm", sha256=digest(module())))
    assert seen(lab) == HELLO
    artifact = registry.image("team/artifact", module("arti"), tag="v1", media=MODULE_LAYER)
    lab.configure(plugin(artifact))
    assert seen(lab, "arti") == HELLO
    registry.image("team/image", archive(module("imag")), tag="v1", index=True)
    lab.configure(plugin(f"{registry.host}/team/image:v1"))
    assert seen(lab, "imag") == HELLO


@pytest.mark.parametrize(
    ("strategy", "status"), [(None, 403), ("FAIL_CLOSE", 403), ("FAIL_RELOAD", 403), ("FAIL_OPEN", 200)]
)
def test_a_module_that_is_not_there(lab: Lab, registry: Registry, strategy: str | None, status: int) -> None:
    wrong = {
        "nothing.wasm": "answered 404",
        "text.wasm": "it is not WebAssembly",
        "m.wasm": f"its checksum is {digest(module())}",
    }
    registry.put("/text.wasm", b"this is no module")
    for file, why in wrong.items():
        lab.configure(plugin(f"http://{registry.host}/{file}", failStrategy=strategy, sha256="0" * 64))
        assert ask(lab, "ratings").status == status
        assert why in problem(lab)
    assert outside(lab, authority="app").status == status, "on the way in too"


def test_a_module_that_is_cut_off_is_refused_by_the_proxy(lab: Lab, registry: Registry) -> None:
    """It begins as a module does; the proxy's answer leads to the object (tests/envoy/test_xds_server.py)."""
    registry.put("/cut.wasm", module()[:100])
    with pytest.raises(Refused, match="Wasm"):
        lab.configure(plugin(f"http://{registry.host}/cut.wasm"))
    lab.configure(plugin(f"http://{registry.host}/m.wasm"))
    assert seen(lab) == HELLO


def test_a_module_that_fails_harms_one_request(lab: Lab, registry: Registry) -> None:
    lab.configure(plugin(f"http://{registry.host}/m.wasm"))
    for _ in range(3):
        assert [seen(lab), seen(lab, x_trap="now")] == [HELLO, 503]
        lab.wait(lambda: seen(lab) == HELLO)
    lab.configure(plugin(f"http://{registry.host}/m.wasm", failStrategy="FAIL_CLOSE"))
    assert [seen(lab), seen(lab, x_trap="now"), seen(lab), seen(lab)] == [HELLO, 503, 503, 503]
    lab.configure(plugin(f"http://{registry.host}/m.wasm", failStrategy="FAIL_OPEN"))
    assert [seen(lab), seen(lab, x_trap="now"), seen(lab), seen(lab)] == [HELLO, 503, None, None]


def test_one_module_that_fails_leaves_another_alone(lab: Lab, registry: Registry) -> None:
    """The same bytes in two objects are two machines."""
    url = f"http://{registry.host}/m.wasm"
    first, second = ([{"mode": "CLIENT", "ports": [{"number": port}]}] for port in (9080, 9081))
    one = plugin(url, "one", failStrategy="FAIL_CLOSE", match=first)
    lab.configure(one, plugin(url, "two", failStrategy="FAIL_CLOSE", match=second))
    assert [seen(lab, x_trap="now"), seen(lab)] == [503, 503]
    assert ask(lab, "ratings", port=9081).seen["headers"]["wasm"] == HELLO


def test_phases_and_priorities(lab: Lab, registry: Registry) -> None:
    """Against a policy that refuses: what stands before it sees the request, what stands behind it does not."""
    registry.put("/a.wasm", module("aaaa"))
    registry.put("/b.wasm", module("bbbb"))
    listed = [
        plugin(f"http://{registry.host}/{file}.wasm", file, phase=phase, priority=priority)
        for file, phase, priority in (("a", "AUTHN", 1), ("b", "STATS", 5))
    ]
    needs = {"rules": [{"when": [{"key": "request.headers[aaaa]", "values": [HELLO]}]}]}
    allowed = yaml.safe_dump(new("AuthorizationPolicy", "needs-a", needs)) + "---\n"
    lab.configure(*listed, allowed)
    assert outside(lab, authority="app").status == 200, "AUTHN stands before authorisation"
    lab.configure(*listed, allowed.replace("aaaa", "bbbb"))
    assert outside(lab, authority="app").status == 403, "STATS stands behind it"
    for one, two, order in ((1, 2, "bbbb aaaa"), (2, 1, "aaaa bbbb")):
        first, second = (plugin(f"http://{registry.host}/{n}.wasm", n, priority=p) for n, p in (("a", one), ("b", two)))
        lab.configure(first, second)
        names = [name for name in ask(lab, "ratings").seen["headers"] if name in ("aaaa", "bbbb")]
        assert " ".join(names) == order


def test_a_module_that_sees_connections(lab: Lab, registry: Registry) -> None:
    registry.put("/stop.wasm", module("stop", stops=True))
    stopping = plugin(f"http://{registry.host}/stop.wasm", type="NETWORK", match=[{"ports": [{"number": 9000}]}])
    lab.configure(stopping.replace("NETWORK", "HTTP"))
    with lab.connect("ratings", 9000) as one:
        assert exchange(one)["server"] == "ratings-v1"
    lab.configure(stopping)
    with lab.connect("ratings", 9000) as one:
        one.settimeout(0.5)
        assert exchange(one) == {}
    assert ask(lab, "ratings").status == 200, "another port"
    lab.configure(stopping.replace("stop.wasm", "none.wasm"))
    with lab.connect("ratings", 9000) as one:
        assert exchange(one) == {}, "refused while the module is not there"


LUA = """
function envoy_on_request(handle)
  handle:headers():add("x-lua", "here")
end
"""


def test_lua(lab: Lab) -> None:
    lab.configure(yaml.safe_dump(new("TrafficExtension", "lua", {"lua": {"inlineCode": LUA}})))
    assert seen(lab, "x-lua") == "here"
    with pytest.raises(Refused, match="script load error"):
        lab.configure(yaml.safe_dump(new("TrafficExtension", "lua", {"lua": {"inlineCode": "this is no Lua"}})))
