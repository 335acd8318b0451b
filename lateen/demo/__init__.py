"""Bookinfo, rewritten: the demo application of the mesh.

Four small programs with the names, ports, paths and JSON of Istio's sample of that name, so that the YAML
published for it (routes, subsets, faults) applies unmodified. They use the standard library only: each starts
in a fraction of a second and shows nothing but what the mesh does to its requests.

`bookinfo.yaml` runs them together with an ingress gateway, `bookinfo-gateway.yaml` opens it to the outside.
"""
