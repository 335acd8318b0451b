"""A graph from YAML, and what the checks say about it."""

from __future__ import annotations

from lateen.analysis.findings import all_findings
from lateen.api import codec
from lateen.api.objects import transaction
from lateen.engine import Graph
from lateen.lib.yaml import documents

BASE = """
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v1, namespace: default}
spec:
  selector: {matchLabels: {app: reviews, version: v1}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      containers: [{name: a, command: [x], ports: [{name: web, containerPort: 9080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: edge}
spec:
  selector: {istio: ingress}
  ports: [{name: http2, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}]
---
apiVersion: v1
kind: Pod
metadata:
  name: ingress-1
  namespace: edge
  labels: {istio: ingress}
  annotations: {inject.istio.io/templates: gateway}
spec:
  containers: [{name: istio-proxy, image: auto}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web, namespace: default}
spec:
  selector: {istio: ingress}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*.example.com"]}]
"""
"""Two services with their workloads, one of them a gateway, and nothing wrong with them."""


def graph(*texts: str) -> Graph:
    """The objects of YAML texts, in namespace default unless they say another."""
    made = Graph()
    raw = [each.raw for text in texts for each in documents(text)]
    for each in raw:
        each["metadata"].setdefault("namespace", "default")
    made.commit(transaction(put=[codec.decode(each) for each in raw]))
    return made


def said(*texts: str) -> list[str]:
    """`CODE kind name path: message (remedy)` of all findings about the base mesh and these texts."""
    return [
        f"{each.code} {each.ref.kind} {each.ref.name} {each.path}: {each.message} ({each.remedy})"
        for each in graph(BASE, *texts).pull(all_findings)
        if each.ref is not None
    ]
