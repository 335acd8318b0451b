"""Garbage: objects whose owner is gone go too.

An object with owner references is kept as long as one of those owners exists; an owner of the same name but
another uid is another object. Owners of kinds that are not looked at here count as existing.
"""

from __future__ import annotations

from collections.abc import Mapping

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Delete, Outcome

Owners = Mapping[str, Mapping[d.Key, str]]
"""The uids of existing objects, by kind and key."""


def reconcile(document: Json, owners: Owners) -> Outcome:
    """What to do for one object with owner references."""
    references = d.parts(document["metadata"], "ownerReferences")
    if not references or d.terminating(document):
        return Outcome()
    for reference in references:
        existing = owners.get(reference["kind"])
        if existing is None:
            return Outcome()
        for owner_key in ((d.namespace(document), reference["name"]), ("", reference["name"])):
            if existing.get(owner_key) == reference.get("uid"):
                return Outcome()
    return Outcome((Delete(document["kind"], d.key(document), d.uid(document)),))
