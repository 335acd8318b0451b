"""YAML and JSON documents as JSON values, with the place of every value.

A file is cut at its document markers and each document parsed alone, so that one broken document says where
it is broken and the others are still looked at. libyaml composes nodes (they carry line and column); plain
scalars become JSON values by the rules Kubernetes' tools use (go-yaml v2: `yes`, `on` and `y` are true, `0o7`
and `07` are octal, dates stay text), with one kindness: a mapping key is always its literal text, where those
tools turn the key `on` into `true`. Duplicate keys are errors. Depth, size and what aliases expand to are
bounded, because files come from strangers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias, cast

from yaml import MappingNode, Node, ScalarNode, SequenceNode, YAMLError
from yaml._yaml import CParser, Mark

from lateen.lib.findings import Finding, Level, Position

Path: TypeAlias = tuple[str | int, ...]
"""Keys and indexes from the root of a document to one value."""

SYNTAX: Final = "LTN0002"
"""The code of findings about text that is not YAML."""

_MAX_CHARACTERS: Final = 32 * 1024 * 1024
_MAX_DEPTH: Final = 100
_MAX_NODES: Final = 2_000_000
_MARKER: Final = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_DIRECTIVE: Final = re.compile(r"\s*%")
_BLANK: Final = re.compile(r"(?:\s|#[^\n]*(?:\n|$))*")
_INTEGER: Final = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NUMERIC_START: Final = frozenset("+-.0123456789")
_WORDS: Final[dict[str, object]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_NOT_JSON: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TAG: Final = "tag:yaml.org,2002:"


class YamlError(ValueError):
    """Text that could not be read; `findings` has one entry per broken document."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(map(str, findings)))
        self.findings = tuple(findings)


class Document:
    """One object of a file: `raw` is its JSON value, `position` gives the place of a part of it."""

    __slots__ = ("_node", "_offset", "file", "raw")

    def __init__(self, raw: Any, file: str, node: Node | None = None, offset: int = 0) -> None:
        self.raw = raw
        self.file = file
        self._node = node
        self._offset = offset

    def position(self, path: Path | str = (), *, key: bool = False) -> Position:
        """The place of the value at a path (`spec.http[0].timeout`, or its parts as a tuple).

        For a mapping or list it is the place of the key that holds it, as for every value with `key=True`.
        When there is no such value, the nearest one around it.
        """
        node, place = self._node, self._node
        for step in parse_path(path) if isinstance(path, str) else path:
            found = _child(node, step)
            if found is None:
                break
            place, node = found
        if node is None or place is None:
            return Position(self.file, 1, 1)
        mark = cast("Mark", (node if isinstance(node, ScalarNode) and not key else place).start_mark)
        return Position(self.file, mark.line + self._offset + 1, mark.column + 1)

    def part(self, path: Path) -> Document:
        """The value at a path as a document of its own. KeyError or IndexError when there is none."""
        raw, node = self.raw, self._node
        for step in path:
            raw = raw[step]
            found = _child(node, step)
            node = found[1] if found else None
        return Document(raw, self.file, node, self._offset)


def documents(text: str, file: str = "") -> list[Document]:
    """The objects of a YAML or JSON text, `kind: List` taken apart. YamlError names all that is broken."""
    found, findings = parse(text, file)
    if findings:
        raise YamlError(findings)
    return found


def parse(text: str, file: str = "") -> tuple[list[Document], list[Finding]]:
    """Like `documents`, but gives the good documents together with findings about the broken ones."""
    if len(text) > _MAX_CHARACTERS:
        return [], [_finding(f"the file has {len(text)} characters", file, 0, 0, f"at most {_MAX_CHARACTERS}")]
    found: list[Document] = []
    findings: list[Finding] = []
    for part, offset in _parts(text):
        result = _document(part, offset, file)
        if isinstance(result, Finding):
            findings.append(result)
        elif result is not None:
            found.extend(_expanded(result))
    return found, findings


def value(text: str, file: str = "") -> Document:
    """The only document of a text, as it is; an empty text is null. YamlError otherwise."""
    found, findings = parse(text, file)
    if not findings and len(found) > 1:
        findings = [_finding("there is more than one document", file, 0, 0, "keep one")]
    if findings:
        raise YamlError(findings)
    return found[0] if found else Document(None, file)


def format_path(path: Path) -> str:
    """A path as people read it: `spec.http[0].headers["x.y"]`."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif _PLAIN_KEY.fullmatch(step):
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f"[{json.dumps(step, ensure_ascii=False)}]")
    return "".join(parts)


def parse_path(text: str) -> Path:
    """The inverse of `format_path`. ValueError for a text that it does not make."""
    steps: list[str | int] = []
    at = 0
    for match in _STEP.finditer(text):
        if match.start() != at or (match[1] is not None and (match[0][0] == ".") != (at > 0)):
            break
        at = match.end()
        name, index, quoted = match.groups()
        steps.append(name if name is not None else int(index) if index is not None else json.loads(quoted))
    if at != len(text):
        raise ValueError(f"{text!r} is not a path")
    return tuple(steps)


_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_STEP: Final = re.compile(r"\.?([A-Za-z_][A-Za-z0-9_-]*)|\[([0-9]+)\]|\[(\"(?:[^\"\\]|\\.)*\")\]")


# -- documents of a text -------------------------------------------------------------------------------


def _parts(text: str) -> Iterator[tuple[str, int]]:
    """The texts of the documents and the number of lines before each."""
    text = text.removeprefix("\ufeff")
    start, line, directives = 0, 0, False
    for marker in [*_MARKER.finditer(text), None]:
        end = marker.start() if marker else len(text)
        part = text[start:end]
        if marker and not directives and _DIRECTIVE.match(part):
            directives = True  # they belong to the document after the marker
            continue
        yield part, line
        line += part.count("\n")
        start, directives = end, False


def _document(text: str, offset: int, file: str) -> Document | Finding | None:
    if _BLANK.fullmatch(text):
        return None
    try:
        node = _compose(text)
        raw = None if node is None else _Builder(file, offset).build(node)
    except _Refused as refusal:
        return refusal.finding
    except YAMLError as error:
        if text.lstrip().startswith("{"):
            try:
                return Document(json.loads(text), file, None, offset)
            except (ValueError, RecursionError):
                pass
        return _syntax(error, text, file, offset)
    return None if raw is None else Document(raw, file, node, offset)


def _expanded(document: Document) -> Iterator[Document]:
    raw = document.raw
    if isinstance(raw, dict):
        body = cast("dict[str, Any]", raw)
        kind, items = body.get("kind"), body.get("items")
        if isinstance(kind, str) and kind.endswith("List") and isinstance(items, list):
            for index in range(len(cast("list[Any]", items))):
                yield from _expanded(document.part(("items", index)))
            return
    yield document


class _Composer(CParser):
    """libyaml's nodes with plain scalars left untyped, and the depth bounded before the C stack is."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def resolve(self, kind: object, value: object, implicit: object) -> None:
        return None

    def descend_resolver(self, node: object, index: object) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _TooDeep

    def ascend_resolver(self) -> None:
        self._depth -= 1


class _TooDeep(YAMLError):
    pass


def _compose(text: str) -> Node | None:
    parser = _Composer(text)
    try:
        return parser.get_single_node()
    finally:
        parser.dispose()


def _syntax(error: YAMLError, text: str, file: str, offset: int) -> Finding:
    if isinstance(error, _TooDeep):
        return _finding(f"lists and mappings are nested more than {_MAX_DEPTH} deep", file, offset, 0, "")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    context = getattr(error, "context", None)
    message = f"{problem} {context}" if context else problem
    if isinstance(mark, Mark):
        return _finding(message, file, mark.line + offset, mark.column, _advice(text, mark))
    at = getattr(error, "position", None)
    before = text[:at] if isinstance(at, int) else ""
    column = len(before) - before.rfind("\n") - 1
    return _finding(f"a character that YAML does not allow: {problem}", file, before.count("\n") + offset, column, "")


def _advice(text: str, mark: Mark) -> str:
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "indent with blanks, not tabs"
    if line.count(": ") > 1:
        return "put a value with a colon in quotes"
    return "look at the indentation and quotes here and on the line before"


class _Refused(Exception):
    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def _finding(message: str, file: str, line: int, column: int, remedy: str) -> Finding:
    position = Position(file, line + 1, column + 1)
    return Finding(code=SYNTAX, level=Level.ERROR, message=message, position=position, remedy=remedy)


# -- values of nodes -----------------------------------------------------------------------------------


class _Builder:
    """JSON values of nodes; what aliases stand for is built anew each time, and counted."""

    def __init__(self, file: str, offset: int) -> None:
        self._file = file
        self._offset = offset
        self._count = 0

    def build(self, node: Node, depth: int = 0) -> Any:
        self._count += 1
        if self._count > _MAX_NODES:
            raise self._refused(node, f"aliases expand to more than {_MAX_NODES} values", "write fewer aliases")
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if depth > _MAX_DEPTH:  # an alias inside of what it stands for
            raise self._refused(node, f"values are nested more than {_MAX_DEPTH} deep", "an alias may hold itself")
        if node.tag and node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            raise self._refused(node, f"tag {node.tag!r} has no JSON form", "leave the tag out")
        if isinstance(node, SequenceNode):
            return [self.build(each, depth + 1) for each in cast("list[Node]", node.value)]
        assert isinstance(node, MappingNode)
        result: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        for key_node, value_node in cast("list[tuple[Node, Node]]", node.value):
            if not isinstance(key_node, ScalarNode):
                raise self._refused(key_node, "a key must be text", "put it in quotes if it has brackets")
            key = cast("str", key_node.value)
            if key == "<<" and _plain(key_node):
                merged.extend(self._merged(value_node, depth))
                continue
            if key in result:
                first = next(k for k, _ in cast("list[tuple[Node, Node]]", node.value) if k.value == key)
                line = cast("Mark", first.start_mark).line + self._offset + 1
                raise self._refused(key_node, f"key {key!r} is here a second time", f"the first is on line {line}")
            result[key] = self.build(value_node, depth + 1)
        for each in merged:
            for key, item in each.items():
                result.setdefault(key, item)
        return result

    def _merged(self, node: Node, depth: int) -> list[dict[str, Any]]:
        values: Any = self.build(node, depth + 1)
        every = cast("list[Any]", values) if isinstance(values, list) else [values]
        if not all(isinstance(each, dict) for each in every):
            raise self._refused(node, "only mappings can be merged with <<", "name a mapping")
        return cast("list[dict[str, Any]]", every)

    def _scalar(self, node: ScalarNode) -> Any:
        text = cast("str", node.value)
        tag = cast("str | None", node.tag)
        if tag == f"{_TAG}str" or (tag is None and not _plain(node)):
            return text
        if tag is not None and tag not in (f"{_TAG}{name}" for name in ("int", "float", "bool", "null", "timestamp")):
            raise self._refused(node, f"tag {tag!r} has no JSON form", "leave the tag out")
        if not text or text[0] not in _NUMERIC_START:
            result = _WORDS.get(text, text)
            return self._checked(node, result, tag)
        return self._checked(node, self._number(node, text), tag)

    def _number(self, node: ScalarNode, text: str) -> object:
        plain = text.replace("_", "")
        if _INTEGER.fullmatch(plain):
            sign = -1 if plain[0] == "-" else 1
            digits = plain.lstrip("+-").lower()
            base = 10
            if len(digits) > 1 and digits[0] == "0":
                base = {"x": 16, "b": 2, "o": 8}.get(digits[1], 8)
                digits = digits.lstrip("0xbo") if base != 16 else digits[2:]
            if len(digits) > 80:
                raise self._refused(node, "the number is too long", "put it in quotes if it is text")
            number = sign * int(digits or "0", base)
            return number if -(2**63) <= number < 2**64 else float(number)
        if _FLOAT.fullmatch(plain):
            number = float(plain)
            if math.isinf(number):
                raise self._refused(node, f"{text} is too large for JSON", "put it in quotes if it is text")
            return number
        if _NOT_JSON.fullmatch(text):
            raise self._refused(node, f"{text} has no JSON form", "put it in quotes if it is text")
        return text

    def _checked(self, node: ScalarNode, result: object, tag: str | None) -> object:
        if tag is None or tag == f"{_TAG}timestamp":
            return result
        kinds = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}[tag.removeprefix(_TAG)]
        if not isinstance(result, kinds):
            raise self._refused(node, f"{node.value!r} is not what its tag says", "leave the tag out")
        return result

    def _refused(self, node: Node, message: str, remedy: str) -> _Refused:
        mark = cast("Mark", node.start_mark)
        return _Refused(_finding(message, self._file, mark.line + self._offset, mark.column, remedy))


def _plain(node: ScalarNode) -> bool:
    return not node.style


def _child(node: Node | None, step: str | int) -> tuple[Node, Node] | None:
    """The node that says where a member is (its key, or itself in a list), and the member."""
    if isinstance(node, SequenceNode) and isinstance(step, int):
        items = cast("list[Node]", node.value)
        return (items[step], items[step]) if 0 <= step < len(items) else None
    if isinstance(node, MappingNode):
        pairs = cast("list[tuple[Node, Node]]", node.value)
        for key, member in pairs:
            if key.value == step:
                return key, member
        for key, member in pairs:
            if key.value == "<<":
                for source in cast("list[Node]", member.value) if isinstance(member, SequenceNode) else [member]:
                    if found := _child(source, step):
                        return found
    return None
