"""Keys of token issuers between fetcher and graph: queries say what is wanted, what is fetched becomes inputs."""

from __future__ import annotations

from pathlib import Path

from lateen.engine import Q, Transaction
from lateen.model.jwt_keys import KeySource, wanted_sources
from lateen.model.trust import bundle_sources
from lateen.security.jwks import KeyFetcher
from lateen.xds.pump import Pump


def key_fetcher(pump: Pump, cache: Path | None = None) -> KeyFetcher:
    """A fetcher for a graph; run it as a task. Keys kept in `cache` are in the graph at once."""

    def publish(source: KeySource, keys: str) -> None:
        pump.submit(Transaction(put=[(source, keys)]))

    def want() -> None:
        fetcher.want(handle.value())

    fetcher = KeyFetcher(publish, cache)
    if fetcher.known:
        pump.graph.commit(Transaction(put=list(fetcher.known.items())))
    handle = pump.watch(want, _wanted)
    want()
    return fetcher


def _wanted(q: Q) -> tuple[KeySource, ...]:
    return (*q(wanted_sources), *q(bundle_sources))
