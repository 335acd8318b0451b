"""Requests that write: what they ask for beside their document, and what that document must be."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable
from typing import Any, Final, cast, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lateen.api.struct import Json, map_at
from lateen.apiserver import patches
from lateen.apiserver.bodies import decoded, number
from lateen.apiserver.deletion import Delete, Propagation
from lateen.apiserver.errors import BadRequestError, MediaTypeError
from lateen.apiserver.merge import merge_patch
from lateen.apiserver.positions import locate
from lateen.apiserver.rows import Row
from lateen.apiserver.targets import Target
from lateen.apiserver.users import User
from lateen.apiserver.validation import FieldValidation

SOURCE: Final = "lateen-source"
"""The header that says where each field of a document stands in its file."""
_SOURCE_BYTES: Final = 1 << 20
_FIELD_VALIDATION: Final[tuple[str, ...]] = get_args(FieldValidation)
_PROPAGATION: Final[tuple[str, ...]] = get_args(Propagation)


class Call(msgspec.Struct, frozen=True):
    """One request that writes."""

    request: Request
    target: Target
    user: User

    @property
    def dry_run(self) -> bool:
        """True when nothing is to be kept. BadRequestError for a value other than `All`."""
        said = self.request.query_params.get("dryRun")
        if said not in (None, "", "All"):
            raise BadRequestError(f"dryRun={said} is not possible", remedy="write dryRun=All")
        return bool(said)

    @property
    def stored(self) -> Call:
        """The same on what is stored, for a version with another shape."""
        return msgspec.structs.replace(self, target=self.target.stored)

    @property
    def manager(self) -> str:
        """Who the fields belong to: the field manager, else the program's name."""
        given = self.request.query_params.get("fieldManager", "")
        if len(given) > 128:
            raise BadRequestError("fieldManager has more than 128 characters", remedy="choose a shorter name")
        return given or self.request.headers.get("user-agent", "").partition("/")[0][:128] or "unknown"

    @property
    def author(self) -> str:
        """Whom the change is put down to: the person at lateen's command line, else the manager."""
        program, _, person = self.request.headers.get("user-agent", "").partition(" (")
        return person.removesuffix(")")[:128] if program == "lateen" and person else self.manager

    @property
    def source(self) -> bytes:
        """Where the document was written (see `positions`), as lateen's command line says; empty when nobody does."""
        said = self.request.headers.get(SOURCE, "")
        if not said:
            return b""
        try:
            text = zlib.decompressobj().decompress(base64.b64decode(said, validate=True), _SOURCE_BYTES)
            locate(text, "")
        except (binascii.Error, ValueError, zlib.error, msgspec.DecodeError):
            raise BadRequestError(f"the header {SOURCE} cannot be read", remedy="leave it out") from None
        return text

    @property
    def unknown(self) -> FieldValidation:
        """What becomes of unknown fields."""
        said = self.request.query_params.get("fieldValidation") or "Warn"
        if said not in _FIELD_VALIDATION:
            raise BadRequestError(f"fieldValidation={said} is not possible", remedy="Strict, Warn or Ignore")
        return cast("FieldValidation", said)


def located(asked: Json, target: Target) -> Json:
    """The document with kind and namespace of the path; BadRequestError when it says something else."""
    version, kind = asked.get("apiVersion", target.api_version), asked.get("kind", target.resource.kind)
    if (version, kind) != (target.api_version, target.resource.kind):
        raise BadRequestError(
            f"the API version in the data ({version}, {kind}) does not match the expected "
            f"({target.api_version}, {target.resource.kind})",
            remedy="send it to the path of its kind",
        )
    own = map_at(asked, "metadata")
    if own is not asked.get("metadata") and asked.get("metadata") is not None:
        raise BadRequestError("metadata is no object", remedy="write metadata: {name: ...}")
    there = own.get("namespace") or target.namespace
    if there != target.namespace:
        raise BadRequestError(
            f"the namespace of the provided object does not match the namespace sent on the request ({there}, "
            f"{target.namespace})"
        )
    if target.resource.namespaced:
        own = {**own, "namespace": target.namespace}
    return {**asked, "apiVersion": version, "kind": kind, "metadata": own}


def named(asked: Json, target: Target) -> Json:
    """The document with the name of the path too."""
    there = located(asked, target)
    name = there["metadata"].setdefault("name", target.name)
    if name != target.name:
        raise BadRequestError(
            f"the name of the object ({name}) does not match the name on the URL ({target.name})",
            remedy="use one name in path and document",
        )
    return there


def patch_of(kind: str, content: bytes, target: Target | None) -> Callable[[Json], Json]:
    """What a patch of that type does to a document."""
    match kind:
        case "application/json-patch+json":
            operations = decoded(content, list[Any])
            return lambda current: patches.json_patch(current, operations)
        case "application/merge-patch+json" | "application/json":
            change = decoded(content, dict[str, Any])
            return lambda current: merge_patch(current, change)
        case "application/strategic-merge-patch+json":
            change = decoded(content, dict[str, Any])
            if target is None:
                return lambda current: merge_patch(current, change)
            if target.resource.kind_of is None:
                raise MediaTypeError(
                    "the body of the request was in an unknown format - accepted media types include: "
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
                )
            schema = target.form.schema
            return lambda current: patches.strategic_merge(current, change, schema)
        case _:
            raise MediaTypeError(
                f"patches of type {kind} are not known",
                remedy="application/merge-patch+json, application/json-patch+json, "
                "application/strategic-merge-patch+json or application/apply-patch+yaml",
            )


def deletion_of(request: Request, options: Json, row: Row) -> Delete:
    """What a DELETE asks for, by its options or its query."""
    grace = options.get("gracePeriodSeconds", request.query_params.get("gracePeriodSeconds"))
    said = options.get("propagationPolicy") or request.query_params.get("propagationPolicy")
    if not said:
        said = "Orphan" if options.get("orphanDependents") else "Background"
    if said not in _PROPAGATION:
        raise BadRequestError(f"propagationPolicy {said} is not possible", remedy=", ".join(_PROPAGATION))
    seconds = None if grace is None else number("gracePeriodSeconds", grace)
    return Delete(row.ref, seconds, propagation=cast("Propagation", said))


def with_warnings(answer: Response, warnings: list[str]) -> Response:
    """The answer with what its author should hear (RFC 7234, warn-code 299)."""
    for each in dict.fromkeys(warnings):
        text = "".join(char if char.isprintable() and char.isascii() else " " for char in each)[:500]
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        answer.headers.append("warning", f'299 lateen "{quoted}"')
    return answer
