"""Inputs, memoised queries and watches: see `lateen.engine.graph`."""

from lateen.engine.cells import CycleError, Index, Key, Transaction, Why
from lateen.engine.graph import Graph, Q, Watch

__all__ = ["CycleError", "Graph", "Index", "Key", "Q", "Transaction", "Watch", "Why"]
