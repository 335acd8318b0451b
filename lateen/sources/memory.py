"""Objects from a text that is in memory already: for tests, benchmarks and tools that look at files once."""

from __future__ import annotations

from lateen.api.codec import decode
from lateen.api.objects import transaction
from lateen.api.struct import Object
from lateen.engine import Transaction
from lateen.lib.yaml import documents
from lateen.sources.folder import in_namespace


def objects(text: str, file: str = "") -> list[Object]:
    """The objects of a YAML text. YamlError or DecodeError when it has others than good ones."""
    return [decode(in_namespace(each.raw)) for each in documents(text, file)]


def load(text: str, file: str = "") -> Transaction:
    """A transaction that puts the objects of a YAML text."""
    return transaction(objects(text, file))
