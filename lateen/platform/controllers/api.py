"""The API as controllers and the kubelet use it, over the client of the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from lateen.api.struct import Json
from lateen.apiserver.client import Client, Listing
from lateen.lib.findings import Finding
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.cluster import Cluster

CA_AUDIENCE = "istio-ca"


class NodeApi:
    """What `lateen.platform.controllers.work.Api` and `lateen.platform.kubelet.PodApi` ask for."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(self, document: Json) -> Json:
        """The object as made."""
        return await self._client.create(document)

    async def delete(self, kind: str, key: d.Key, uid: str) -> Json | None:
        """The object on its way out, None when it is gone."""
        return await self._client.delete(kind, key[1], key[0], uid=uid)

    async def patch(self, kind: str, key: d.Key, patch: Json) -> Json:
        """The object as changed by a JSON merge patch."""
        return await self._client.patch(kind, key[1], key[0], patch)

    async def replace_status(self, document: Json) -> Json:
        """The object with this document's status."""
        return await self._client.replace_status(document)

    async def finalize(self, pod: Json) -> None:
        """The end of a Pod's object."""
        await self._client.delete("Pod", d.name(pod), d.namespace(pod), uid=d.uid(pod), grace_s=0)

    async def token(self, pod: Json, lifetime_s: int) -> str:
        """A token of the Pod's service account, bound to the Pod, for the certificate authority.

        https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
        """
        account = d.spec(pod).get("serviceAccountName") or "default"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [CA_AUDIENCE],
                "expirationSeconds": lifetime_s,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": d.name(pod), "uid": d.uid(pod)},
            },
        }
        path = f"/api/v1/namespaces/{d.namespace(pod)}/serviceaccounts/{account}/token"
        return (await self._client.post(path, request))["status"]["token"]

    async def findings(self, pod: Json, findings: Iterable[Finding]) -> None:
        """What the node has to say about a Pod."""
        await self._client.set_findings("Pod", d.name(pod), d.namespace(pod), "node", findings)


async def follow(client: Client, cluster: Cluster, kind: str, listed: asyncio.Event) -> None:
    """Keep one kind of the cluster as the API has it, until cancelled; `listed` is set once it is complete."""
    async for news in client.follow(kind):
        if isinstance(news, Listing):
            cluster.replace(kind, news.items, int(news.revision))
            listed.set()
        elif news.type == "DELETED":
            cluster.remove(news.object)
        elif news.type != "BOOKMARK":
            cluster.put(news.object)
