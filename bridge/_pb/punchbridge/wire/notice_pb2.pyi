from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Notice(_message.Message):
    __slots__ = ("code",)
    class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[Notice.Code]
        REPLACED_BY_SAME_KEY: _ClassVar[Notice.Code]
        SAME_KEY_ELSEWHERE: _ClassVar[Notice.Code]
    NONE: Notice.Code
    REPLACED_BY_SAME_KEY: Notice.Code
    SAME_KEY_ELSEWHERE: Notice.Code
    CODE_FIELD_NUMBER: _ClassVar[int]
    code: Notice.Code
    def __init__(self, code: _Optional[_Union[Notice.Code, str]] = ...) -> None: ...
