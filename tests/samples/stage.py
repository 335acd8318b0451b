"""A lab with all programs of the samples, and the files as they are published applied to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from lateen.intent.scope import Scope
from tests.lab.client import ask, shares
from tests.lab.lab import Lab
from tests.lab.world import World
from tests.paths import shared
from tests.samples.programs import Programs, documents

BOOKINFO = "istio/bookinfo/platform/kube"
TUTORIAL = "istio-tutorial"
WORKLOADS = (
    *(f"{BOOKINFO}/{each}.yaml" for each in ("bookinfo", "bookinfo-details-v2", "bookinfo-ratings-v2")),
    *(f"{BOOKINFO}/bookinfo-ratings-v2-{each}.yaml" for each in ("mysql", "mysql-vm")),
    "istio/helloworld/helloworld.yaml",
    "istio/httpbin/httpbin.yaml",
    "istio/tcp-echo/tcp-echo-services.yaml",
    "istio/websockets/app.yaml",
    *(f"{TUTORIAL}/{each}/kubernetes/Service.yml" for each in ("customer", "preference", "recommendation")),
    *(f"{TUTORIAL}/{each}/kubernetes/Deployment.yml" for each in ("customer", "preference", "recommendation")),
    *(
        f"{TUTORIAL}/recommendation/kubernetes/Deployment-{each}.yml"
        for each in ("v2", "v3", "v4", "v5", "v6", "v7", "virtualized")
    ),
)
INSIDE = (
    # Services that samples expect of the mesh itself: namespace, name, ports
    ("istio-system", "istiod", (("https-dns", 15012), ("https-webhook", 443))),
    ("istio-system", "cert-manager-resolver", (("http", 8089),)),
    ("tutorial", "preference", (("http", 8080),)),
)
OUTSIDE = {
    "10.88.90.1": "googleapis",
    "10.88.90.2": "worldtimeapi",
    "10.88.90.3": "github",
    "140.82.112.3": "github-ssh",
    "127.0.0.1": "beside",
}
HOSTS = {
    "www.googleapis.com": ("10.88.90.1",),
    "github.com": ("10.88.90.3",),
    "istiod.istio-system.svc.cluster.local": (),
    "istiod.shop.test": (),
}
LISTENING = (
    ("10.88.90.1", 443),
    ("10.88.90.2", 80),
    ("10.88.90.3", 443),
    ("140.82.112.3", 22),
    ("127.0.0.1", 8000),
    ("127.0.0.1", 9000),
)
REPLICAS = {"recommendation-v2": 2}


def world() -> World:
    """All programs at once."""
    programs = Programs()
    root = shared("samples")
    programs.take((raw for path in WORKLOADS for raw in documents(root / path)), replicas=REPLICAS)
    for namespace, name, ports in INSIDE:
        spec = {"selector": {"app": name}, "ports": [{"name": each, "port": number} for each, number in ports]}
        programs.take(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": spec,
                }
            ]
        )
    programs.missing()
    return programs.world(hosts=HOSTS, outside=OUTSIDE, ports=LISTENING)


@dataclass
class Stage:
    """The lab and what a case does with it."""

    lab: Lab

    def apply(self, *files: str, more: str = "", edit: Callable[[str], str] = str) -> None:
        """Replaces the configuration by files of the samples; `edit` changes their text, `more` is applied besides."""
        root = shared("samples")
        self.lab.configure(*("---\n" + edit((root / each).read_text()) for each in files), "---\n" + more)

    def client(self, namespace: str = "default", **labels: str) -> None:
        """Who asks through the sidecar from the next `apply` on; without labels the usual one."""
        labels = labels or {"app": "app", "version": "v1"}
        self.lab.sidecar.scope = _scope(self.lab.sidecar.scope, namespace, labels)

    def gateway(self, name: str = "ingressgateway") -> None:
        """Which gateway it is from the next `apply` on, by its label `istio`."""
        self.lab.gateway.scope = _scope(self.lab.gateway.scope, "istio-system", {"istio": name})

    def who(self, host: str, port: int = 9080, path: str = "/", **headers: str) -> str:
        """Which program answers a request, or the status of an answer without one."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = ask(self.lab, host, path, port, headers=names)
        return answer.server if answer.status == 200 else str(answer.status)

    def shares(self, host: str, times: int, port: int = 9080) -> Counter[str]:
        """Who answers how many of many requests, replicas together."""
        found: Counter[str] = Counter()
        for server, count in shares(self.lab, times, host, port=port).items():
            found[server.removesuffix("-2")] += count
        return found

    def edge(self, path: str, port: int = 80, **headers: str) -> str:
        """Which program answers a request to the gateway, or the status."""
        answer = ask(self.lab, "gateway", path, port, authority="any.test", headers=headers)
        return answer.server if answer.status == 200 else str(answer.status)


def _scope(before: Scope, namespace: str, labels: dict[str, str]) -> Scope:
    return msgspec.structs.replace(before, namespace=namespace, labels=tuple(sorted(labels.items())))
