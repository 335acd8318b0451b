"""ServiceAccounts: every namespace has one named `default`, for Pods that ask for none."""

from __future__ import annotations

from collections.abc import Collection

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Create, Outcome


def reconcile(namespace: Json, accounts: Collection[d.Key]) -> Outcome:
    """What to do for one Namespace, given the keys of all ServiceAccounts."""
    name = d.name(namespace)
    if d.terminating(namespace) or (name, "default") in accounts:
        return Outcome()
    metadata = {"name": "default", "namespace": name}
    return Outcome((Create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),))
