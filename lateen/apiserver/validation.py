"""What a document must be before it is stored, whatever kind it is of.

lateen's own kinds are looked at by `lateen.api.check`; custom resources by the schema of their definition. What a
document says that its kind does not know is refused, dropped with a warning, or dropped, as the client asks by
`fieldValidation`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol, cast

import msgspec

from lateen.api.check import about_unknown_field
from lateen.api.metadata import label_problems
from lateen.api.struct import Json, map_at
from lateen.apiserver.defaults import filled
from lateen.apiserver.errors import BadRequestError, InvalidError
from lateen.apiserver.resources import Form, Resource
from lateen.lib.findings import Finding, Level
from lateen.lib.yaml import Document, parse_path

FieldValidation = Literal["Strict", "Warn", "Ignore"]


class Check(Protocol):
    """All that is wrong with one document of lateen's own kinds; `namespace` is for one that names none."""

    def __call__(self, document: Document, *, namespace: str = "default") -> list[Finding]: ...


class Validated(msgspec.Struct, frozen=True):
    """A document as it may be stored, what its author should hear, and what there is to say of it that is no error."""

    document: Json
    warnings: Sequence[str] = ()
    findings: tuple[Finding, ...] = ()


class Validator:
    """Looks at documents. `structural` is for custom resources."""

    def __init__(self, check: Check, structural: Callable[[Resource, Form, Json, Json | None], _Structural]) -> None:
        self._check = check
        self._structural = structural

    def __call__(
        self,
        resource: Resource,
        form: Form,
        document: Json,
        before: Json | None,
        unknown: FieldValidation,
    ) -> Validated:
        """The document with defaults and without what its kind does not know. InvalidError with everything that is
        wrong; BadRequestError for unknown fields when those are not to be."""
        if resource.kind_of is None:
            return self._custom(resource, form, document, before, unknown)
        if form.view is None:  # else it is filled in as it is stored
            document = filled(resource, document)
        found = self._check(Document(document, ""))
        strange = [each for each in found if about_unknown_field(each)]
        warnings: list[str] = []
        if strange:
            wrong = [each for each in found if each.level is Level.ERROR]
            warnings = self._strange(resource, [each.path for each in strange], wrong, unknown)
            document = without(document, [each.path for each in strange])
            found = self._check(Document(document, ""))
        _refuse(resource, document, [each for each in found if each.level is Level.ERROR])
        warnings += [_words(each) for each in found if each.level is Level.WARNING]
        return Validated(document, warnings, tuple(each for each in found if each.level is not Level.ERROR))

    def _custom(
        self, resource: Resource, form: Form, document: Json, before: Json | None, unknown: FieldValidation
    ) -> Validated:
        seen = self._structural(resource, form, document, before)
        warnings = self._strange(resource, seen.unknown, (), unknown) if seen.unknown else []
        _refuse(resource, document, [*_metadata(document), *seen.faults])
        if form.warning:
            warnings.append(form.warning)
        return Validated(seen.document, warnings)

    def _strange(
        self, resource: Resource, paths: Sequence[str], causes: Sequence[Finding], unknown: FieldValidation
    ) -> list[str]:
        said = [f'unknown field "{path}"' for path in paths]
        if unknown == "Strict":
            raise BadRequestError(
                f"{resource.kind} cannot be handled as a {resource.kind}: strict decoding error: {', '.join(said)}",
                remedy=next((each.remedy for each in causes if each.remedy), "leave them out"),
                causes=causes,
            )
        return said if unknown == "Warn" else []


class _Structural(Protocol):
    """What the schema of a custom resource makes of a document."""

    @property
    def document(self) -> Json: ...
    @property
    def unknown(self) -> Sequence[str]: ...
    @property
    def faults(self) -> Sequence[Finding]: ...


def without(document: Json, paths: Sequence[str]) -> Json:
    """A copy of the document without some of its fields."""
    left = copy.deepcopy(document)
    for path in paths:
        at: Any = left
        *steps, last = parse_path(path)
        for step in steps:
            at = at[step]
        if isinstance(at, dict):
            cast("Json", at).pop(str(last), None)
    return left


def _refuse(resource: Resource, document: Json, errors: Sequence[Finding]) -> None:
    if errors:
        name = map_at(document, "metadata").get("name", "")
        said = [f"{each.path}: {each.message}" if each.path else each.message for each in errors]
        shown = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
        what = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
        raise InvalidError(f'{what} "{name}" is invalid: {shown}', remedy=errors[0].remedy, causes=errors)


def _metadata(document: Json) -> list[Finding]:
    metadata: Json = map_at(document, "metadata")
    found = [
        Finding(code=_CODE, level=Level.ERROR, message=each.message, path=f"metadata.{each.path}", remedy=each.remedy)
        for each in label_problems("labels", metadata.get("labels"))
    ]
    for name in ("labels", "annotations"):
        pairs = metadata.get(name)
        if pairs is not None and not (
            isinstance(pairs, dict) and all(isinstance(each, str) for each in cast("Json", pairs).values())
        ):
            found.append(
                Finding(code=_CODE, level=Level.ERROR, message="it must map texts to texts", path=f"metadata.{name}")
            )
    return found


def _words(finding: Finding) -> str:
    place = f"{finding.path}: " if finding.path else ""
    return f"{place}{finding.message} ({finding.code})"


_CODE: Final = "LTN0360"
