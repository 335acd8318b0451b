"""What a check is: a pure query over the graph that says what does not fit together.

    @check("IST0101", Level.WARNING, "Unknown gateway", VirtualService)
    def unknown_gateway(q: Q, subject: VirtualService) -> Iterator[Said]:
        \"\"\"What, why, example, fix: this becomes the page of the code.\"\"\"

A check looks at one object and reads others through `q`; so its answer is re-made when, and only when, something
it read changes. Checks are listed in `lateen.analysis.checks.CHECKS`; nothing registers itself. They never say
ERROR: that level keeps an object out, and what a check finds may be right again as soon as another object comes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from lateen.api.struct import Object
from lateen.engine import Q
from lateen.lib.findings import Level

T = TypeVar("T", bound=Object)


class Said(msgspec.Struct, frozen=True):
    """One statement of a check; `path` is the field's path inside of the object."""

    path: str
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """A check of one kind of objects. `text` is its documentation in Markdown."""

    code: str
    level: Level
    title: str
    kind: type[Object]
    run: Callable[[Q, Any], Iterator[Said]]
    text: str


def check(code: str, level: Level, title: str, kind: type[T]) -> Callable[[Callable[[Q, T], Iterator[Said]]], Check]:
    """Makes a check of a function; its docstring is the documentation of the code."""
    assert level is not Level.ERROR, "checks do not keep objects out"

    def made(run: Callable[[Q, T], Iterator[Said]]) -> Check:
        return Check(code, level, title, kind, run, inspect.getdoc(run) or "")

    return made
