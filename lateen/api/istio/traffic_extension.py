"""TrafficExtension: code of one's own in the proxy, in Lua or WebAssembly (extensions.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from lateen.api import rules
from lateen.api.istio.selectors import PolicySelector, PolicyTargetReference, TrafficSelector, VmConfig
from lateen.api.problems import Problem
from lateen.api.struct import Int32, Meta, NonEmpty, Object, Struct


class LuaExtension(Struct, frozen=True):
    """A Lua filter, its code written here."""

    inline_code: Annotated[str, Meta(min_length=1, max_length=65536)]


class WasmExtension(Struct, frozen=True):
    """A WebAssembly module and how it is fetched and started."""

    url: NonEmpty
    fail_strategy: Literal["FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD"] | None = None
    image_pull_policy: Literal["UNSPECIFIED_POLICY", "IfNotPresent", "Always"] | None = None
    image_pull_secret: Annotated[str, Meta(min_length=1, max_length=253)] | None = None
    plugin_config: Mapping[str, Any] = {}
    plugin_name: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    sha256: Annotated[str, Meta(pattern=r"(^$|^[a-f0-9]{64}$)")] | None = None
    type: Literal["UNSPECIFIED_PLUGIN_TYPE", "HTTP", "NETWORK"] | None = None
    verification_key: str | None = None
    vm_config: VmConfig | None = None

    def problems(self) -> Iterator[Problem]:
        if "://" in self.url:
            yield from rules.url("url", self.url, ("oci", "https", "http", "file"))


class TrafficExtensionSpec(Struct, frozen=True):
    """Where code of one's own runs in the proxy, and which code."""

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = (("wasm", "lua"),)

    lua: LuaExtension | None = None
    match: tuple[TrafficSelector, ...] = ()
    phase: Literal["UNSPECIFIED", "AUTHN", "AUTHZ", "STATS"] | None = None
    priority: Int32 | None = None
    selector: PolicySelector | None = None
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Meta(max_length=16)] = ()
    wasm: WasmExtension | None = None

    def problems(self) -> Iterator[Problem]:
        yield from rules.one_selector(self.selector, None, self.target_refs)
        if self.lua is None and self.wasm is None:
            yield Problem("", "the code is missing", 'set "lua" or "wasm"')


class TrafficExtension(Object, frozen=True):
    """Lua or WebAssembly in the proxy."""

    GROUP: ClassVar[str] = "extensions.istio.io"
    KIND: ClassVar[str] = "TrafficExtension"

    spec: TrafficExtensionSpec
