"""Who a caller is, looked up in the store: its Pod or the group of its machine, the account of that, and what its
certificate is to say.

The store is asked and not the graph, so that a Pod counts from the moment its creation was acknowledged, however
much the graph has to drain.
"""

from __future__ import annotations

from collections.abc import Callable

from lateen.api.codec import decode
from lateen.api.core.pod import Pod
from lateen.api.istio.workload_entry import WorkloadEntry
from lateen.api.objects import ref_of, transaction
from lateen.apiserver.store import Store
from lateen.daemon.inputs import typed
from lateen.daemon.machines import Groups, Refused
from lateen.engine import Graph
from lateen.lib.machines import PEER_TYPE
from lateen.lib.spiffe import SpiffeId
from lateen.model.registration import entry_document, entry_name
from lateen.model.workloads import Workload, entry_workload, pod_workload
from lateen.security.csr import Caller, Denied
from lateen.security.peer import PeerIdentity
from lateen.security.tokens import CA_AUDIENCE, TokenClaims, TokenError, TokenIssuer

CLUSTER = "Kubernetes"
"""Istio's name of the local cluster."""


class Identities:
    """Lookups for the certificate service and for xDS streams."""

    def __init__(self, store: Store, tokens: TokenIssuer, trust_domain: Callable[[], str]) -> None:
        self._store = store
        self._tokens = tokens
        self._trust_domain = trust_domain

    def certificate_of(self, caller: Caller) -> PeerIdentity | None:
        """What a caller's certificate says; None when its Pod or its account is gone, or another. Denied when it is a
        machine that its group does not let in."""
        if caller.group:
            return self._machine(caller)
        pod = self._pod(caller.namespace, caller.pod)
        if pod is None or pod.metadata.uid != caller.uid:
            return None
        if not self._alive(caller.namespace, caller.service_account, caller.account_uid):
            return None
        workload = _workload(pod)
        if workload is None or workload.service_account != caller.service_account:
            return None
        return PeerIdentity(
            spiffe=SpiffeId(self._trust_domain(), caller.namespace, caller.service_account),
            pod=caller.pod,
            uid=caller.uid,
            workload=workload.workload,
            type=_type(pod),
            service=workload.canonical_name,
            revision=workload.canonical_revision,
            cluster=CLUSTER,
            network=workload.network,
        )

    def _machine(self, caller: Caller) -> PeerIdentity:
        groups = Groups(self._store)
        try:
            group = groups.of(caller.namespace, caller.group, caller.uid, caller.service_account, caller.account_uid)
            groups.check_address(group, caller.address)
        except Refused as refused:
            raise Denied(str(refused)) from None
        entry = decode(entry_document(group, caller.address))
        assert isinstance(entry, WorkloadEntry)
        workload = _workload(entry)
        assert workload is not None
        return PeerIdentity(
            spiffe=SpiffeId(self._trust_domain(), caller.namespace, caller.service_account),
            pod=entry_name(group, caller.address),
            uid=caller.uid,
            workload=caller.group,
            type=PEER_TYPE,
            service=workload.canonical_name,
            revision=workload.canonical_revision,
            cluster=CLUSTER,
            network=workload.network,
        )

    def peer_of_token(self, token: str) -> TokenClaims | None:
        """Who holds that token; None when it is not valid, or its Pod or its account is gone."""
        try:
            claims = self._tokens.verify(token, CA_AUDIENCE)
        except TokenError:
            return None
        pod = self._pod(claims.namespace, claims.pod)
        if not self._alive(claims.namespace, claims.service_account, claims.account_uid):
            return None
        return claims if pod is not None and pod.metadata.uid == claims.uid else None

    def account_of(self, namespace: str, name: str) -> str | None:
        """The service account of a Pod or WorkloadEntry; None when there is none of that name, or no such account."""
        pod = self._pod(namespace, name)
        workload = _workload(pod if pod is not None else self._entry(namespace, name))
        if workload is None or self.account_uid(namespace, workload.service_account) is None:
            return None
        return workload.service_account

    def account_uid(self, namespace: str, name: str) -> str | None:
        """The uid of a service account; None when there is none. Who deletes an account ends what it could do."""
        return Groups(self._store).account_uid(namespace, name)

    def _alive(self, namespace: str, name: str, uid: str) -> bool:
        """Whether an account is there and, where a credential names its uid, still the same."""
        found = self.account_uid(namespace, name)
        return found is not None and uid in ("", found)

    def _pod(self, namespace: str, name: str) -> Pod | None:
        row = self._store.get(ref_of(Pod, namespace, name))
        found = typed(row) if row is not None else None
        return found if isinstance(found, Pod) else None

    def _entry(self, namespace: str, name: str) -> WorkloadEntry | None:
        row = self._store.get(ref_of(WorkloadEntry, namespace, name))
        found = typed(row) if row is not None else None
        return found if isinstance(found, WorkloadEntry) else None


def _workload(behind: Pod | WorkloadEntry | None) -> Workload | None:
    """The model's view of one object by itself."""
    if behind is None:
        return None
    graph = Graph()
    graph.commit(transaction([behind]))
    query = pod_workload if isinstance(behind, Pod) else entry_workload
    return graph.pull(query, behind.namespace, behind.name)


def _type(pod: Pod) -> str:
    """What made the Pod, as telemetry names it."""
    owner = next((each for each in pod.metadata.owner_references if each.controller), None)
    return "pod" if owner is None else "job" if owner.kind == "Job" else "deployment"
