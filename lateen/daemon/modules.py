"""WebAssembly modules between fetcher and graph: queries say what is wanted, what is fetched becomes inputs."""

from __future__ import annotations

from pathlib import Path

from lateen.engine import Transaction
from lateen.lib.secrets import Masked
from lateen.model.extensions import Module, ModuleSource, pull_secret, wanted_modules
from lateen.security.modules import ModuleFetcher
from lateen.xds.pump import Pump


def module_fetcher(pump: Pump, cache: Path | None = None) -> ModuleFetcher:
    """A fetcher for a graph; run it as a task."""

    def publish(source: ModuleSource, found: Module) -> None:
        pump.submit(Transaction(put=[(source, found)]))

    def login(source: ModuleSource) -> Masked | None:
        return pump.graph.pull(pull_secret, source)

    def want() -> None:
        fetcher.want(handle.value())

    fetcher = ModuleFetcher(publish, login, cache)
    handle = pump.watch(want, wanted_modules)
    want()
    return fetcher
