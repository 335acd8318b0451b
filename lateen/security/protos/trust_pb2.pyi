from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrustAnswer(_message.Message):
    __slots__ = ("version", "pods", "counts", "seconds")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    version: str
    pods: _containers.RepeatedScalarFieldContainer[str]
    counts: _containers.RepeatedCompositeFieldContainer[RequestCount]
    seconds: float
    def __init__(self, version: _Optional[str] = ..., pods: _Optional[_Iterable[str]] = ..., counts: _Optional[_Iterable[_Union[RequestCount, _Mapping]]] = ..., seconds: _Optional[float] = ...) -> None: ...

class RequestCount(_message.Message):
    __slots__ = ("target", "requests", "client_errors", "server_errors")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ERRORS_FIELD_NUMBER: _ClassVar[int]
    SERVER_ERRORS_FIELD_NUMBER: _ClassVar[int]
    target: str
    requests: int
    client_errors: int
    server_errors: int
    def __init__(self, target: _Optional[str] = ..., requests: _Optional[int] = ..., client_errors: _Optional[int] = ..., server_errors: _Optional[int] = ...) -> None: ...

class Trust(_message.Message):
    __slots__ = ("version", "roots", "secret", "signer")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    version: str
    roots: str
    secret: bytes
    signer: str
    def __init__(self, version: _Optional[str] = ..., roots: _Optional[str] = ..., secret: _Optional[bytes] = ..., signer: _Optional[str] = ...) -> None: ...
