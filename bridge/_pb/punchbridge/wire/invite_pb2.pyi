from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InviteRequest(_message.Message):
    __slots__ = ("secret",)
    SECRET_FIELD_NUMBER: _ClassVar[int]
    secret: bytes
    def __init__(self, secret: _Optional[bytes] = ...) -> None: ...

class InviteAnswer(_message.Message):
    __slots__ = ("status", "text")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[InviteAnswer.Status]
        GRANTED: _ClassVar[InviteAnswer.Status]
        USED_UP: _ClassVar[InviteAnswer.Status]
        EXPIRED: _ClassVar[InviteAnswer.Status]
        REVOKED: _ClassVar[InviteAnswer.Status]
        UNKNOWN: _ClassVar[InviteAnswer.Status]
    NONE: InviteAnswer.Status
    GRANTED: InviteAnswer.Status
    USED_UP: InviteAnswer.Status
    EXPIRED: InviteAnswer.Status
    REVOKED: InviteAnswer.Status
    UNKNOWN: InviteAnswer.Status
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    status: InviteAnswer.Status
    text: str
    def __init__(self, status: _Optional[_Union[InviteAnswer.Status, str]] = ..., text: _Optional[str] = ...) -> None: ...
