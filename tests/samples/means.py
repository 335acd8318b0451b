"""What several cases do with a stage: shares, subsets, certificates, what is said of a file."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator

import yaml

from lateen.api.check import check_raw
from tests.paths import shared
from tests.samples.programs import documents
from tests.samples.stage import Stage

Case = Callable[[Stage], None]
SIGMAS = 5
SELF = "spiffe://cluster.local/ns/default/sa/default"
REGISTRY_ONLY = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"}
"""


def near(found: Counter[str], wanted: dict[str, float]) -> None:
    """Shares within five standard deviations, and nobody else."""
    times = sum(found.values())
    assert found.keys() <= wanted.keys(), found
    for name, share in wanted.items():
        sigma = math.sqrt(times * share * (1 - share))
        assert abs(found[name] - times * share) <= SIGMAS * sigma, found


def said(file: str) -> set[tuple[str, str]]:
    """What is said of the documents of a file by themselves: codes and fields."""
    return {(each.code, each.path) for raw in documents(shared("samples") / file) for each in check_raw(raw)}


@contextlib.contextmanager
def identified(stage: Stage, certificates: dict[str, str]) -> Iterator[None]:
    """Servers show the certificates of workloads for a while."""
    known = stage.lab.certificates.identified
    before = dict(known)
    known.update(certificates)
    yield
    known.clear()
    known.update(before)


def trusting(text: str) -> str:
    """TLS origination with the lab's root, since its servers are not the internet's."""
    return text.replace("mode: SIMPLE", "mode: SIMPLE\n        caCertificates: '@files/root.pem'")


def each_subset(stage: Stage, file: str, host: str, port: int = 9080) -> None:
    """Chooses each subset of a DestinationRule by a header and looks who answers."""
    rules = [each for each in documents(shared("samples") / file) if each["kind"] == "DestinationRule"]
    subsets = next(each["spec"]["subsets"] for each in rules if each["spec"]["host"] == host)
    http = [
        {
            "match": [{"headers": {"x-subset": {"exact": each["name"]}}}],
            "route": [{"destination": {"host": host, "subset": each["name"]}}],
        }
        for each in subsets
    ]
    spec = {"hosts": [host], "http": http}
    metadata = {"name": f"{host}-by-subset"}
    route = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata, "spec": spec}
    stage.apply(file, more=yaml.safe_dump(route))
    for each in subsets:
        found = stage.who(host, port, x_subset=each["name"]).removesuffix("-2")
        version = each["labels"].get("version")
        assert found == f"{host}-{version}" if version else found.startswith(host), (each, found)
