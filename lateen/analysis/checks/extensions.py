"""Checks of WasmPlugins and TrafficExtensions."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.check import Check, Said, check
from lateen.analysis.lookup import key, nearest_labels, selected, selected_anywhere
from lateen.api.istio.selectors import PolicySelector
from lateen.api.istio.traffic_extension import TrafficExtension
from lateen.api.istio.wasm_plugin import WasmPlugin
from lateen.api.struct import Object
from lateen.engine import Q
from lateen.lib.findings import Level
from lateen.lib.ids import Ref
from lateen.model.extensions import module, wasm_of
from lateen.model.mesh import root_namespace


def _not_there(q: Q, subject: Object) -> Iterator[Said]:
    """The control plane could not fetch the module, or what it got is not what was asked for: no WebAssembly, another
    checksum, no such image, a registry that asks for credentials. It tries again by itself. Until then the place of
    the module is taken: with `failStrategy: FAIL_OPEN` traffic passes as if it were not there, otherwise requests are
    answered with 403 and connections closed.

        url: oci://registry.example/filters/limits:v1
        sha256: 1ef0...

    Correct the address or the checksum, or name a Secret of type kubernetes.io/dockerconfigjson in `imagePullSecret`.
    """
    wasm = q(wasm_of, subject.ref)
    found = q(module, wasm.source) if wasm is not None else None
    if wasm is not None and found is not None and found.problem:
        effect = "traffic passes without it" if wasm.strategy == "FAIL_OPEN" else "what it would see is refused"
        place = "spec.url" if subject.ref.kind == WasmPlugin.KIND else "spec.wasm.url"
        yield Said(place, f"the module is not there: {found.problem}; {effect}", "correct it; fetching goes on")


def _selects_nothing(q: Q, ref: Ref, selector: PolicySelector | None) -> Iterator[Said]:
    """No workload has all labels of the `selector`, so no proxy runs the extension.

    Correct the labels, or leave the selector out to mean every workload of the namespace.
    """
    if selector is None or not selector.match_labels:
        return
    labels = selector.match_labels
    everywhere = ref.namespace == q(root_namespace)
    found = q(selected_anywhere, key(labels)) if everywhere else q(selected, ref.namespace, key(labels))
    if not found:
        yield Said("spec.selector", "no workload has these labels", nearest_labels(q, ref.namespace, labels))


def _checks() -> Iterator[Check]:
    def of_plugin(q: Q, subject: WasmPlugin) -> Iterator[Said]:
        yield from _selects_nothing(q, subject.ref, subject.spec.selector)

    def of_extension(q: Q, subject: TrafficExtension) -> Iterator[Said]:
        yield from _selects_nothing(q, subject.ref, subject.spec.selector)

    of_plugin.__doc__ = of_extension.__doc__ = _selects_nothing.__doc__
    yield check("LTN0101", Level.WARNING, "An extension selects no workload", WasmPlugin)(of_plugin)
    yield check("LTN0101", Level.WARNING, "An extension selects no workload", TrafficExtension)(of_extension)
    yield check("LTN0266", Level.WARNING, "A WebAssembly module is not there", WasmPlugin)(_not_there)
    yield check("LTN0266", Level.WARNING, "A WebAssembly module is not there", TrafficExtension)(_not_there)


CHECKS = tuple(_checks())
