"""The reference pages of all codes, in Markdown, from the docstrings of the checks and the table of other codes."""

from __future__ import annotations

import msgspec

from lateen.analysis.checks import CHECKS
from lateen.analysis.codes import CODES
from lateen.lib.findings import Level

_INDEX = """# Findings

What lateen has to say about configuration. Each finding has a code, a level, the object and the field it is about,
and what to do. ERROR keeps an object out, WARNING and INFO accept it and say so; all are stored with the object and
shown by `lateen apply` and `lateen get`. Codes `IST....` mean what they mean to istioctl, `LTN....` are lateen's own.

An object silences codes by the annotation `galley.istio.io/analyze-suppress: IST0101,LTN0106`.

| code | level | |
|---|---|---|
"""


class _Part(msgspec.Struct, frozen=True):
    level: Level
    title: str
    text: str
    kinds: tuple[str, ...] = ()


def pages() -> dict[str, str]:
    """All pages by file name; `README.md` is the index."""
    parts = _parts()
    rows: list[str] = []
    found: dict[str, str] = {}
    for code in sorted(parts):
        found[f"{code}.md"] = _page(code, parts[code])
        levels = ", ".join(sorted({each.level.name for each in parts[code]}))
        titles = "; ".join(dict.fromkeys(each.title for each in parts[code]))
        rows.append(f"| [{code}]({code}.md) | {levels} | {titles} |\n")
    return {"README.md": _INDEX + "".join(rows), **found}


def _parts() -> dict[str, list[_Part]]:
    parts: dict[str, list[_Part]] = {}
    for each in CODES:
        parts.setdefault(each.code, []).append(_Part(each.level, each.title, each.text.strip()))
    for check in CHECKS:
        of_code = parts.setdefault(check.code, [])
        same = next(
            (index for index, part in enumerate(of_code) if (part.title, part.text) == (check.title, check.text)), None
        )
        if same is None:
            of_code.append(_Part(check.level, check.title, check.text, (check.kind.KIND,)))
        else:
            part = of_code[same]
            of_code[same] = msgspec.structs.replace(part, kinds=(*part.kinds, check.kind.KIND))
    return parts


def _page(code: str, parts: list[_Part]) -> str:
    if len(parts) == 1:
        (part,) = parts
        return f"# {code}: {part.title}\n\n{_facts(part)}\n\n{part.text}\n"
    sections = "\n\n".join(f"## {part.title}\n\n{_facts(part)}\n\n{part.text}" for part in parts)
    return f"# {code}\n\n{sections}\n"


def _facts(part: _Part) -> str:
    kinds = f" Said of: {', '.join(part.kinds)}." if part.kinds else ""
    return f"Level: {part.level.name}.{kinds}"
