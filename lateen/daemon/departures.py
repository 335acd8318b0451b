"""The end of streams whose proxy has lost its place: its Pod, its WorkloadEntry or its service account is gone.

A certificate lives on for a while, and a stream was let in once; neither may keep the configuration of the mesh coming
to who is no part of it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lateen.apiserver.rows import Change
from lateen.intent.scope import Proxy


class Departures:
    """A subscriber of the store. `account_of(namespace, name)` is the service account of a Pod or WorkloadEntry, None
    where there is none; `expel` ends the streams that a function has a reason for."""

    def __init__(
        self,
        account_of: Callable[[str, str], str | None],
        expel: Callable[[Callable[[Proxy], str]], None],
    ) -> None:
        self._account_of = account_of
        self._expel = expel

    def __call__(self, changes: Sequence[Change]) -> None:
        gone = [change.row.ref for change in changes if change.after is None]
        names = {(ref.namespace, ref.name) for ref in gone if ref.kind in ("Pod", "WorkloadEntry")}
        accounts = {ref.namespace for ref in gone if ref.kind == "ServiceAccount"}
        if not names and not accounts:
            return

        def reason(proxy: Proxy) -> str:
            if (proxy.namespace, proxy.name) not in names and proxy.namespace not in accounts:
                return ""
            if self._account_of(proxy.namespace, proxy.name) == proxy.service_account:
                return ""
            return f"{proxy.namespace}/{proxy.name} is no Pod or WorkloadEntry with a service account any more"

        self._expel(reason)
