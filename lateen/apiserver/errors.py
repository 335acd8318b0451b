"""What the API refuses, as exceptions on both sides and as Kubernetes Status objects between them.

LateenError
`- ApiError             code, reason, causes
   |- BadRequestError   400 BadRequest      the request itself cannot be read
   |- NotFoundError     404 NotFound        no such object, kind or namespace
   |- ExistsError       409 AlreadyExists
   |- ConflictError     409 Conflict        the object has changed since it was read
   |- GoneError         410 Expired         the revision to watch from is no longer kept
   |- TooLargeError     413 RequestEntityTooLarge
   |- InvalidError      422 Invalid         causes say what and where
   `- StorageError      500 InternalError   the disk said no
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from lateen.api.struct import Json
from lateen.lib.errors import LateenError
from lateen.lib.findings import Finding


class ApiError(LateenError):
    """A refusal with its HTTP code and Kubernetes reason."""

    CODE: ClassVar[int] = 500
    REASON: ClassVar[str] = "InternalError"

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


class GoneError(ApiError):
    """410: list again and watch from there."""

    CODE = 410
    REASON = "Expired"


class TooLargeError(ApiError):
    """413."""

    CODE = 413
    REASON = "RequestEntityTooLarge"


class InvalidError(ApiError):
    """422: the object breaks the rules of its kind."""

    CODE = 422
    REASON = "Invalid"


class StorageError(ApiError):
    """500: SQLite or the disk failed; nothing of the transaction is kept."""


class UnreachableError(ApiError):
    """The control plane does not answer. What it last told proxies stays in force."""

    CODE = 503
    REASON = "ServiceUnavailable"


_BY_REASON = {
    each.REASON: each
    for each in (
        BadRequestError,
        NotFoundError,
        ExistsError,
        ConflictError,
        GoneError,
        TooLargeError,
        InvalidError,
        StorageError,
        UnreachableError,
    )
}


def to_status(error: ApiError) -> Json:
    """The Kubernetes Status object; each cause keeps its Finding whole under `finding`."""
    causes = [
        {
            "reason": "FieldValueInvalid",
            "message": each.message,
            "field": each.path,
            "finding": msgspec.to_builtins(each),
        }
        for each in error.causes
    ]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": str(error),
        "reason": error.REASON,
        "details": {"causes": causes, "remedy": error.remedy},
        "code": error.CODE,
    }


def from_status(status: Json) -> ApiError:
    """The exception that a Status object stands for."""
    details: Json = status.get("details") or {}
    causes = [msgspec.convert(each["finding"], Finding) for each in details.get("causes", ()) if "finding" in each]
    kind = _BY_REASON.get(status.get("reason", ""), ApiError)
    return kind(status.get("message", "the API failed"), remedy=details.get("remedy", ""), causes=causes)
