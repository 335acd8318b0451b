"""Code of one's own in proxies: WasmPlugins and TrafficExtensions, which proxies they mean and in what order.

WebAssembly is fetched by the control plane and put in the graph, as keys of token issuers are: queries say which
modules are wanted and read what the fetcher has put in. A proxy never fetches anything, so a registry that is away
hurts nobody's requests, and what every proxy runs is the same bytes.

Source: https://istio.io/latest/docs/reference/config/proxy_extensions/wasm-plugin/
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec

from lateen.api.core.secret import Secret
from lateen.api.istio.selectors import TrafficSelector, VmConfig
from lateen.api.istio.traffic_extension import TrafficExtension, WasmExtension
from lateen.api.istio.wasm_plugin import WasmPlugin, WasmPluginSpec
from lateen.api.objects import everywhere, get, in_namespace
from lateen.engine import Q
from lateen.lib.ids import Ref
from lateen.lib.secrets import Masked
from lateen.model.mesh import root_namespace
from lateen.model.policy_attachment import Attachment, Workloads, attachment

DOCKER_CONFIG = ".dockerconfigjson"


class ModuleSource(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """Where a module is fetched from; the key of the input that holds it.

    `url` has a scheme (oci, http, https or file). `always`: it is looked at again while it is wanted. `secret` is the
    name of a Secret in `namespace` with credentials for the registry, may be empty.
    """

    url: str
    sha256: str = ""
    always: bool = False
    namespace: str = ""
    secret: str = ""

    @property
    def collection(self) -> str:
        """What inputs of this kind have in common."""
        return "wasm"


class Module(msgspec.Struct, frozen=True):
    """What came of fetching: the module, or why there is none."""

    body: bytes = b""
    problem: str = ""


class Phase(enum.StrEnum):
    """Where an extension stands: before what authenticates, before what authorises, behind both, or last."""

    AUTHN = "AUTHN"
    AUTHZ = "AUTHZ"
    STATS = "STATS"
    LAST = ""


class Extension(msgspec.Struct, frozen=True):
    """One extension of a proxy. `lua` is its code, empty for WebAssembly."""

    ref: Ref
    phase: Phase
    network: bool = False
    match: tuple[TrafficSelector, ...] = ()
    lua: str = ""

    @property
    def name(self) -> str:
        """The name of its configuration, as Istio gives it; one for connections has another, since Envoy would take
        the new sort of filter for an update of the old."""
        sort = f"{self.ref.kind.lower()}{'/network' if self.network else ''}"
        return f"{self.ref.group}/{sort}/{self.ref.namespace}.{self.ref.name}"

    def sees(self, *, client: bool, port: int) -> bool:
        """Whether traffic is meant: out (at a gateway too) or in, to a port (0: one that nothing declares)."""
        return not self.match or any(_selects(each, client=client, port=port) for each in self.match)


class Wasm(msgspec.Struct, frozen=True):
    """What a WebAssembly extension runs and how."""

    source: ModuleSource
    root: str = ""
    configuration: Mapping[str, Any] = {}
    strategy: str = ""
    """FAIL_CLOSE, FAIL_OPEN or FAIL_RELOAD; empty: nothing is said."""
    vm: VmConfig = VmConfig()


def extensions(q: Q, workloads: Workloads) -> tuple[Extension, ...]:
    """The extensions of a proxy, those that see traffic first before others."""
    namespaces = dict.fromkeys((q(root_namespace), workloads.namespace))
    found = [each for namespace in namespaces for each in q(_listed, namespace) if each.attachment.means(workloads)]
    found.sort(key=lambda each: each.rank)
    return tuple(each.extension for each in found)


def selecting_labels(q: Q, namespace: str) -> frozenset[tuple[str, str]]:
    """The labels by which extensions tell proxies of a namespace apart."""
    namespaces = dict.fromkeys((q(root_namespace), namespace))
    return frozenset(label for each in namespaces for found in q(_listed, each) for label in found.attachment.selector)


def wasm_of(q: Q, ref: Ref) -> Wasm | None:
    """The WebAssembly of an extension, or None when it has none (any more)."""
    found = _wasm_spec(q, ref)
    if found is None:
        return None
    return Wasm(
        source=_source(found, ref.namespace),
        root=found.plugin_name or "",
        configuration=found.plugin_config,
        strategy=found.fail_strategy or "",
        vm=found.vm_config or VmConfig(),
    )


def module(q: Q, source: ModuleSource) -> Module:
    """What the fetcher has brought."""
    found: Module | None = q.read(source)
    return found if found is not None else Module(problem="it is not fetched yet")


def wanted_modules(q: Q) -> tuple[ModuleSource, ...]:
    """All modules that some extension names."""
    refs = [each.ref for each in (*everywhere(q, WasmPlugin), *everywhere(q, TrafficExtension))]
    return tuple(sorted({found.source for ref in refs if (found := q(wasm_of, ref)) is not None}))


def pull_secret(q: Q, source: ModuleSource) -> Masked | None:
    """The Docker configuration in the Secret of a source."""
    found = get(q, Secret, source.namespace, source.secret) if source.secret else None
    return found.value(DOCKER_CONFIG) if found is not None else None


class _Listed(msgspec.Struct, frozen=True):
    attachment: Attachment
    extension: Extension
    rank: tuple[int, str, str]


def _listed(q: Q, namespace: str) -> tuple[_Listed, ...]:
    found: list[_Listed] = []
    for each in in_namespace(q, WasmPlugin, namespace):
        spec = each.spec
        attached = attachment(each.ref, spec.selector, spec.target_ref, spec.target_refs)
        made = Extension(each.ref, _phase(spec.phase), spec.type == "NETWORK", spec.match)
        found.append(_Listed(attached, made, _rank(spec.priority, each)))
    for each in in_namespace(q, TrafficExtension, namespace):
        spec = each.spec
        attached = attachment(each.ref, spec.selector, None, spec.target_refs)
        network = spec.wasm is not None and spec.wasm.type == "NETWORK"
        code = spec.lua.inline_code if spec.lua is not None else ""
        made = Extension(each.ref, _phase(spec.phase), network, spec.match, code)
        found.append(_Listed(attached, made, _rank(spec.priority, each)))
    return tuple(found)


def _rank(priority: int | None, each: WasmPlugin | TrafficExtension) -> tuple[int, str, str]:
    """High priorities first, then the older."""
    return (-(priority or 0), each.metadata.creation_timestamp or "9999", each.name)


def _phase(said: str | None) -> Phase:
    return Phase(said) if said in ("AUTHN", "AUTHZ", "STATS") else Phase.LAST


def _selects(selector: TrafficSelector, *, client: bool, port: int) -> bool:
    mode = selector.mode or "CLIENT_AND_SERVER"
    way = mode in ("UNDEFINED", "CLIENT_AND_SERVER", "CLIENT" if client else "SERVER")
    return way and (not selector.ports or any(each.number == port for each in selector.ports))


def _wasm_spec(q: Q, ref: Ref) -> WasmPluginSpec | WasmExtension | None:
    if ref.kind == WasmPlugin.KIND:
        plugin = get(q, WasmPlugin, ref.namespace, ref.name)
        return plugin.spec if plugin is not None else None
    extension = get(q, TrafficExtension, ref.namespace, ref.name)
    return extension.spec.wasm if extension is not None else None


def _source(spec: WasmPluginSpec | WasmExtension, namespace: str) -> ModuleSource:
    url = spec.url if "://" in spec.url else f"oci://{spec.url}"
    policy = spec.image_pull_policy or "UNSPECIFIED_POLICY"
    always = policy == "Always" or (policy == "UNSPECIFIED_POLICY" and not spec.sha256 and _moves(url))
    secret = spec.image_pull_secret or ""
    return ModuleSource(url, spec.sha256 or "", always, namespace if secret else "", secret)


def _moves(url: str) -> bool:
    """Whether what an address names is expected to change: an image without a tag, or with `latest`."""
    last = url.rpartition("/")[2]
    return url.startswith("oci://") and "@" not in last and last.partition(":")[2] in ("", "latest")
