"""What the API refuses, as exceptions on both sides and as Kubernetes Status objects between them.

LateenError
`- ApiError             code, reason, causes
   |- BadRequestError   400 BadRequest      the request itself cannot be read
   |- NotFoundError     404 NotFound        no such object, kind or namespace
   |- ExistsError       409 AlreadyExists
   |- UnauthorizedError 401 Unauthorized    nobody knows who asks
   |- ForbiddenError    403 Forbidden       who asks may not do that
   |- NoMethodError     405 MethodNotAllowed
   |- NotAcceptableError 406 NotAcceptable  no form that is asked for can be given
   |- ConflictError     409 Conflict        the object has changed since it was read
   |  `- FieldConflictError                 somebody else owns fields of a server-side apply
   |- GoneError         410 Expired         the revision to watch from is no longer kept
   |- TooLargeError     413 RequestEntityTooLarge
   |- MediaTypeError    415 UnsupportedMediaType
   |- InvalidError      422 Invalid         causes say what and where
   |- UnreachableError  503 ServiceUnavailable
   |- SlowError         504 Timeout         somebody who had to be asked did not answer in time
   `- StorageError      507 InsufficientStorage  the disk said no
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from lateen.api.struct import Json
from lateen.lib.errors import LateenError
from lateen.lib.findings import Finding


class About(msgspec.Struct, frozen=True):
    """The object or kind that a refusal is about."""

    group: str = ""
    plural: str = ""
    name: str = ""


class ApiError(LateenError):
    """A refusal with its HTTP code and Kubernetes reason."""

    CODE: ClassVar[int] = 500
    REASON: ClassVar[str] = "InternalError"
    about: About | None = None

    def __init__(self, message: str, *, remedy: str = "", causes: Sequence[Finding] = ()) -> None:
        super().__init__(message, remedy=remedy)
        self.causes = tuple(causes)


class BadRequestError(ApiError):
    """400: not JSON, an unknown parameter, a wrong path."""

    CODE = 400
    REASON = "BadRequest"


class NotFoundError(ApiError):
    """404."""

    CODE = 404
    REASON = "NotFound"


class ExistsError(ApiError):
    """409: create of an object that is there."""

    CODE = 409
    REASON = "AlreadyExists"


class ConflictError(ApiError):
    """409: the resourceVersion or uid given is not that of the object."""

    CODE = 409
    REASON = "Conflict"


class UnauthorizedError(ApiError):
    """401: no credentials, or none that are known."""

    CODE = 401
    REASON = "Unauthorized"


class ForbiddenError(ApiError):
    """403."""

    CODE = 403
    REASON = "Forbidden"


class NoMethodError(ApiError):
    """405."""

    CODE = 405
    REASON = "MethodNotAllowed"


class NotAcceptableError(ApiError):
    """406."""

    CODE = 406
    REASON = "NotAcceptable"


class MediaTypeError(ApiError):
    """415: a body in a form that is not read here."""

    CODE = 415
    REASON = "UnsupportedMediaType"


class FieldConflict(msgspec.Struct, frozen=True):
    """A field that another manager owns."""

    path: str
    manager: str


class FieldConflictError(ConflictError):
    """409: an apply would change what others own."""

    def __init__(self, conflicts: Sequence[FieldConflict], *, remedy: str = "") -> None:
        by: dict[str, list[str]] = {}
        for each in conflicts:
            by.setdefault(each.manager, []).append(each.path)
        said = "\n".join(f"conflict with {manager}:" + "".join(f" {path}" for path in by[manager]) for manager in by)
        count = f"{len(conflicts)} conflict{'s' if len(conflicts) > 1 else ''}"
        super().__init__(
            f"Apply failed with {count}: {said}", remedy=remedy or "leave the fields out, or force the apply"
        )
        self.conflicts = tuple(conflicts)


class SlowError(ApiError):
    """504."""

    CODE = 504
    REASON = "Timeout"


class GoneError(ApiError):
    """410: list again and watch from there; or, with `resume`, go on with a list by that token."""

    CODE = 410
    REASON = "Expired"
    resume: str = ""


class TooLargeError(ApiError):
    """413."""

    CODE = 413
    REASON = "RequestEntityTooLarge"


class InvalidError(ApiError):
    """422: the object breaks the rules of its kind."""

    CODE = 422
    REASON = "Invalid"


class StorageError(ApiError):
    """507: SQLite or the disk failed; nothing of the transaction is kept."""

    CODE = 507
    REASON = "InsufficientStorage"


class UnreachableError(ApiError):
    """The control plane does not answer. What it last told proxies stays in force."""

    CODE = 503
    REASON = "ServiceUnavailable"


_BY_REASON = {
    each.REASON: each
    for each in (
        BadRequestError,
        UnauthorizedError,
        ForbiddenError,
        NotFoundError,
        NoMethodError,
        NotAcceptableError,
        ExistsError,
        ConflictError,
        GoneError,
        TooLargeError,
        MediaTypeError,
        InvalidError,
        SlowError,
        StorageError,
        UnreachableError,
    )
}


def to_status(error: ApiError) -> Json:
    """The Kubernetes Status object; each cause keeps its Finding whole under `finding`."""
    causes: list[Json] = [
        {
            "reason": "FieldValueInvalid",
            "message": each.message,
            "field": each.path,
            "finding": msgspec.to_builtins(each),
        }
        for each in error.causes
    ]
    if isinstance(error, FieldConflictError):
        causes = [
            {"reason": "FieldManagerConflict", "message": f"conflict with {each.manager}", "field": each.path}
            for each in error.conflicts
        ]
    if isinstance(error, InvalidError) and not causes:  # kubectl shows nothing of a 422 but its causes
        causes = [{"reason": "FieldValueInvalid", "message": str(error), "field": ""}]
    details: Json = {"causes": causes, "remedy": error.remedy}
    resume = error.resume if isinstance(error, GoneError) else ""
    if error.about is not None:
        details |= {"group": error.about.group, "kind": error.about.plural, "name": error.about.name}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {"continue": resume} if resume else {},
        "status": "Failure",
        "message": str(error),
        "reason": error.REASON,
        "details": {key: value for key, value in details.items() if value},
        "code": error.CODE,
    }


def from_status(status: Json) -> ApiError:
    """The exception that a Status object stands for."""
    details: Json = status.get("details") or {}
    causes = [msgspec.convert(each["finding"], Finding) for each in details.get("causes", ()) if "finding" in each]
    kind = _BY_REASON.get(status.get("reason", ""), ApiError)
    return kind(status.get("message", "the API failed"), remedy=details.get("remedy", ""), causes=causes)
