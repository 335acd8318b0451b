"""WasmPlugin: WebAssembly modules in the proxy (extensions.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from lateen.api import rules
from lateen.api.istio.selectors import PolicySelector, PolicyTargetReference, TrafficSelector, VmConfig
from lateen.api.problems import Problem
from lateen.api.struct import Int32, Meta, NonEmpty, Object, Struct


class WasmPluginSpec(Struct, frozen=True):
    """Where a WebAssembly module runs in the proxy, and which module."""

    url: NonEmpty
    fail_strategy: Literal["FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD"] | None = None
    image_pull_policy: Literal["UNSPECIFIED_POLICY", "IfNotPresent", "Always"] | None = None
    image_pull_secret: Annotated[str, Meta(min_length=1, max_length=253)] | None = None
    match: tuple[TrafficSelector, ...] = ()
    phase: Literal["UNSPECIFIED_PHASE", "AUTHN", "AUTHZ", "STATS"] | None = None
    plugin_config: Mapping[str, Any] = {}
    plugin_name: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    priority: Int32 | None = None
    selector: PolicySelector | None = None
    sha256: Annotated[str, Meta(pattern=r"(^$|^[a-f0-9]{64}$)")] | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Meta(max_length=16)] = ()
    type: Literal["UNSPECIFIED_PLUGIN_TYPE", "HTTP", "NETWORK"] | None = None
    verification_key: str | None = None
    vm_config: VmConfig | None = None

    def problems(self) -> Iterator[Problem]:
        yield from rules.one_selector(self.selector, self.target_ref, self.target_refs)
        if "://" in self.url:
            yield from rules.url("url", self.url, ("oci", "https", "http", "file"))


class WasmPlugin(Object, frozen=True):
    """WebAssembly in the proxy."""

    GROUP: ClassVar[str] = "extensions.istio.io"
    KIND: ClassVar[str] = "WasmPlugin"

    spec: WasmPluginSpec
