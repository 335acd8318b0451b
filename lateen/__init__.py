"""lateen: a service mesh on one machine and on Kubernetes, speaking Istio's configuration language."""

__version__ = "0.1.0"
