"""Processes of a mesh, put together."""

from importlib import import_module

from lateen.lib.imports import without

with without("rich"):
    import_module("structlog")  # first, so that whoever imports it later gets it like this
