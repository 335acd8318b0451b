from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class TrustAnswer(_message.Message):
    __slots__ = ("version", "pods")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    version: str
    pods: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[str] = ..., pods: _Optional[_Iterable[str]] = ...) -> None: ...

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
