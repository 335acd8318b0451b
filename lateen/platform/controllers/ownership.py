"""Whose an object is: a controller takes on what its selector matches and nobody owns, and lets go what no longer fits.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#how-a-replicaset-works
"""

from __future__ import annotations

from collections.abc import Sequence

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Action, Patch


def claim(owner: Json, objects: Sequence[Json]) -> tuple[list[Json], list[Action]]:
    """The owner's objects among those of its namespace, and the changes of ownership that follow from its selector."""
    selector, owned, claims = d.spec(owner).get("selector"), list[Json](), list[Action]()
    for each in objects:
        matched = d.matches(selector, d.labels(each))
        if d.owned_by(each, owner):
            if matched:
                owned.append(each)
            elif not d.terminating(each):
                claims.append(Patch(each["kind"], d.key(each), {"metadata": {"ownerReferences": None}}))
        elif matched and d.owner(each) is None and not d.terminating(each):
            owned.append(each)
            references = [d.owner_reference(owner)]
            claims.append(Patch(each["kind"], d.key(each), {"metadata": {"ownerReferences": references}}))
    return owned, claims
