"""Tables for people, JSON and YAML for programs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints aligned columns. On a terminal long cells fold; elsewhere lines are as long as they must be."""
    from rich.console import Console
    from rich.table import Table

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    console = Console(width=width, highlight=False, markup=False, soft_wrap=False)
    grid = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        grid.add_column(column, no_wrap=not sys.stdout.isatty(), overflow="fold")
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    console.print(grid)


def document(value: Any, form: str) -> None:
    """Prints a JSON-like value as `json` or `yaml`."""
    if form == "json":
        print(msgspec.json.format(msgspec.json.encode(value)).decode())
    else:
        import yaml

        print(yaml.safe_dump(msgspec.to_builtins(value), sort_keys=False, allow_unicode=True), end="")
