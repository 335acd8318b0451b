"""KIND/NAME on the command line as the API's `ref`."""

from __future__ import annotations

import click

from lateen.api import kinds
from lateen.lib.ids import Ref


def reference(text: str, namespace: str) -> Ref:
    """The Ref that `vs/reviews` means in a namespace. A usage error when there is no such kind."""
    word, _, name = text.partition("/")
    kind = kinds.by_name(word)
    if kind is None or not name:
        raise click.UsageError(f"{text} is not KIND/NAME of a kind that there is")
    return Ref(kind.group, kind.kind, namespace if kind.namespaced else "", name)
