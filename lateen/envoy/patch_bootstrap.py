"""Patches of the bootstrap: the document that a proxy starts with, before it knows any control plane.

They apply once, when the proxy starts. A bootstrap has what starts a proxy: its admin interface, statistics, tracing,
overload manager, runtime and static clusters; its listeners and clusters come later, from the control plane.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from google.protobuf.json_format import MessageToDict

from lateen.envoy.messages import NoMessageError, merge, parse
from lateen.model.envoy_filters import BootstrapPatch


def patched_bootstrap(document: Mapping[str, Any], patches: Iterable[BootstrapPatch]) -> dict[str, Any]:
    """A bootstrap with patches merged in; a patch whose value is no bootstrap changes nothing."""
    message = parse(document, Bootstrap())
    for each in patches:
        try:
            value = parse(each.value, Bootstrap())
        except NoMessageError:
            continue
        merge(message, value, replace_lists=each.operation != "MERGE")
    return MessageToDict(message, preserving_proto_field_name=True)
