"""Extensions in listeners: a stage between translation and the patches of EnvoyFilters.

    LDS = patched(extended(ResourceType(...)))

A listener gets a reference by name for each extension that sees its traffic; the configuration behind the name comes
by discovery (ECDS). So a new version of a module or another configuration changes no listener and no connection.
While a module is not there, its place is taken by a filter that lets nothing through, or everything with FAIL_OPEN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from envoy.config.core.v3.config_source_pb2 import ExtensionConfigSource
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.lua.v3.lua_pb2 import Lua
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac
from envoy.extensions.filters.http.wasm.v3.wasm_pb2 import Wasm as HttpWasm
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac
from envoy.extensions.filters.network.wasm.v3.wasm_pb2 import Wasm as NetworkWasm
from envoy.extensions.wasm.v3 import wasm_pb2
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from lateen.engine import Q
from lateen.envoy import ext_authz, jwt
from lateen.envoy.http_manager import MANAGER
from lateen.envoy.inbound_listener import VIRTUAL_INBOUND
from lateen.envoy.resource import Resource, ResourceType, resource
from lateen.envoy.security_filters import NETWORK_RBAC
from lateen.envoy.security_log import HTTP_RBAC
from lateen.envoy.sources import set_ads
from lateen.features.encoding import TYPE_PREFIX, pack
from lateen.intent.scope import Scope
from lateen.model.extensions import Extension, Module, Phase, Wasm, extensions, module, wasm_of
from lateen.model.policy_attachment import Workloads

RUNTIME: Final = "envoy.wasm.runtime.v8"
RELOAD_S: Final = (0.01, 1.0)
"""A module that has failed is started anew for the next request, later and later within these when it fails again.
(With a first wait of 1 ms this Envoy divides by zero.)"""
_AUTHENTICATION: Final = (jwt.NAME,)
_SECURITY: Final = (jwt.NAME, HTTP_RBAC, ext_authz.HTTP_NAME, NETWORK_RBAC, ext_authz.NETWORK_NAME)
_POLICIES: Final = {
    "FAIL_CLOSE": wasm_pb2.FAIL_CLOSED,
    "FAIL_OPEN": wasm_pb2.FAIL_OPEN,
    "FAIL_RELOAD": wasm_pb2.FAIL_RELOAD,
    "": wasm_pb2.FAIL_RELOAD,
}
_TYPES: Final[dict[bool, tuple[type[Message], ...]]] = {
    False: (HttpWasm, http_rbac.RBAC, Lua),
    True: (NetworkWasm, network_rbac.RBAC),
}
"""What stands behind the names, for HTTP and for the network."""


def extended(kind: ResourceType) -> ResourceType:
    """The listeners of a type with the extensions of their proxies."""

    def made(q: Q, scope: Scope, name: str) -> Resource | None:
        base = kind.resource(q, scope, name)
        found = q(extensions, _workloads(scope)) if base is not None else ()
        if base is None or not found:
            return base
        return q(_with_extensions, kind, scope, name)

    made.__name__ = kind.resource.__name__  # what traces and reports call it
    return msgspec.structs.replace(kind, resource=made)


def _with_extensions(q: Q, kind: ResourceType, scope: Scope, name: str) -> Resource | None:
    base = kind.resource(q, scope, name)
    if base is None:
        return None
    listener = Listener.FromString(base.body)
    inbound = name == VIRTUAL_INBOUND
    used: list[Extension] = []
    for chain in (*listener.filter_chains, *((listener.default_filter_chain,) if _has_default(listener) else ())):
        port = chain.filter_chain_match.destination_port.value if inbound else _port(name)
        seen = [each for each in q(extensions, _workloads(scope)) if each.sees(client=not inbound, port=port)]
        used += _add(chain, seen)
    if not used:
        return base
    refs = tuple(dict.fromkeys((*base.origins, *(each.ref for each in used))))
    return resource(name, listener.SerializeToString(deterministic=True), refs)


def _add(chain: FilterChain, seen: Sequence[Extension]) -> list[Extension]:
    """Adds the extensions that see a chain's traffic to its filters; those that had a place there."""
    used = [each for each in seen if each.network]
    if used:
        _place(chain.filters, used, _network_reference)
    manager = next((each for each in chain.filters if each.name == MANAGER), None)
    requests = [each for each in seen if not each.network]
    if manager is None or not requests:
        return used
    config = hcm.HttpConnectionManager.FromString(manager.typed_config.value)
    _place(config.http_filters, requests, _http_reference)
    pack(manager.typed_config, config)
    return used + requests


def _place(filters: Any, found: Sequence[Extension], make: Callable[[Extension], Message]) -> None:
    """Puts references where their phases say; those of one phase stay in order. The last filter stays last."""
    before: list[Message] = list(filters)
    names = [each.name for each in filters]
    places = {
        Phase.AUTHN: 0,
        Phase.AUTHZ: _behind(names, _AUTHENTICATION),
        Phase.STATS: _behind(names, _SECURITY),
        Phase.LAST: len(before) - 1,
    }
    after: list[Message] = []
    for index, each in enumerate(before):
        after += [make(one) for phase in Phase for one in found if one.phase is phase and places[phase] == index]
        after.append(each)
    del filters[:]
    filters.extend(after)


def _behind(names: Sequence[str], those: Sequence[str]) -> int:
    return max((index + 1 for index, name in enumerate(names) if name in those), default=0)


def _http_reference(extension: Extension) -> hcm.HttpFilter:
    message = hcm.HttpFilter()
    message.name = extension.name
    _discover(message.config_discovery, extension)
    return message


def _network_reference(extension: Extension) -> Filter:
    message = Filter()
    message.name = extension.name
    _discover(message.config_discovery, extension)
    return message


def _discover(source: ExtensionConfigSource, extension: Extension) -> None:
    set_ads(source.config_source)
    source.type_urls.extend(f"{TYPE_PREFIX}{each.DESCRIPTOR.full_name}" for each in _TYPES[extension.network])


def extension_names(q: Q, scope: Scope) -> tuple[str, ...]:
    """The extension configurations of a proxy."""
    return tuple(each.name for each in q(extensions, _workloads(scope)))


def extension_resource(q: Q, scope: Scope, name: str) -> Resource | None:
    """The configuration of an extension by name."""
    found = next((each for each in q(extensions, _workloads(scope)) if each.name == name), None)
    return q(_configuration, found) if found is not None else None


def _configuration(q: Q, extension: Extension) -> Resource | None:
    message = TypedExtensionConfig()
    message.name = extension.name
    if extension.lua:
        code = Lua()
        code.default_source_code.inline_string = extension.lua
        pack(message.typed_config, code)
    elif (wasm := q(wasm_of, extension.ref)) is not None:
        pack(message.typed_config, _wasm(extension, wasm, q(module, wasm.source)))
    else:
        return None
    return resource(extension.name, message.SerializeToString(deterministic=True), (extension.ref,))


def _wasm(extension: Extension, wasm: Wasm, found: Module) -> Message:
    if found.problem:
        return _stand_in(extension, refuses=wasm.strategy != "FAIL_OPEN")
    plugin = wasm_pb2.PluginConfig()
    plugin.name = f"{extension.ref.namespace}.{extension.ref.name}"
    plugin.root_id = wasm.root
    plugin.failure_policy = _POLICIES[wasm.strategy]
    if plugin.failure_policy == wasm_pb2.FAIL_RELOAD:
        first_s, longest_s = RELOAD_S
        plugin.reload_config.backoff.base_interval.FromMilliseconds(round(first_s * 1000))
        plugin.reload_config.backoff.max_interval.FromMilliseconds(round(longest_s * 1000))
    if wasm.configuration:
        pack(plugin.configuration, StringValue(value=msgspec.json.encode(wasm.configuration).decode()))
    machine = plugin.vm_config
    machine.vm_id = extension.name  # no module shares a machine with another object's
    machine.runtime = RUNTIME
    machine.code.local.inline_bytes = found.body
    for each in wasm.vm.env:
        if each.value_from == "HOST":
            machine.environment_variables.host_env_keys.append(each.name)
        else:
            machine.environment_variables.key_values[each.name] = each.value or ""
    made = NetworkWasm() if extension.network else HttpWasm()
    made.config.CopyFrom(plugin)
    return made


def _stand_in(extension: Extension, *, refuses: bool) -> Message:
    """What stands for a module that is not there."""
    rules = rbac_pb2.RBAC()
    rules.action = rbac_pb2.RBAC.DENY if refuses else rbac_pb2.RBAC.ALLOW
    policy = rules.policies[f"{extension.name} is not there"]
    policy.permissions.add().any = True
    policy.principals.add().any = True
    if extension.network:
        gate = network_rbac.RBAC(stat_prefix="extension.")
        gate.rules.CopyFrom(rules)
        return gate
    refusal = http_rbac.RBAC()
    refusal.rules.CopyFrom(rules)
    return refusal


def _workloads(scope: Scope) -> Workloads:
    return Workloads(scope.namespace, scope.labels, scope.router)


def _has_default(listener: Listener) -> bool:
    return listener.HasField("default_filter_chain")


def _port(name: str) -> int:
    """The port in the name of an outbound or a gateway's listener; 0 when there is none."""
    number = name.rpartition("_")[2]
    return int(number) if number.isdigit() else 0
