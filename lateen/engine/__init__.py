"""Inputs, memoised queries and watches: see `lateen.engine.graph`."""

from lateen.engine.graph import CycleError, Graph, Index, Key, Q, Transaction, Watch, Why

__all__ = ["CycleError", "Graph", "Index", "Key", "Q", "Transaction", "Watch", "Why"]
