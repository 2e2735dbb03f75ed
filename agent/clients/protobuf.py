"""Protocol Buffers' wire format, as far as CRI's messages need it: texts, flags and messages.

Source: https://protobuf.dev/programming-guides/encoding/. What nobody reads is passed over by its
length; a group, which proto3 does not have, is refused. tests/agent/test_protobuf.py holds this
against the protobuf library.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
# The most bytes that 64 bits take, seven in each.
_LONGEST_VARINT = 10
_MOST_FIELDS = (1 << 29) - 1


class DecodeError(ValueError):
    """Bytes that are not a message; what is wrong with them."""


def text(number: int, value: str) -> bytes:
    """A string as field ``number``; an empty one, proto3's default, is not sent."""
    return message(number, value.encode()) if value else b""


def message(number: int, content: bytes) -> bytes:
    """A message within another as field ``number``."""
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


class Message:
    """A message's fields, by their numbers. Raises DecodeError, also where one is read."""

    def __init__(self, content: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        for number, value in _fields(content):
            self._fields.setdefault(number, []).append(value)

    def texts(self, number: int) -> tuple[str, ...]:
        """All strings of a repeated field."""
        try:
            return tuple(value.decode() for value in self._bytes(number))
        except UnicodeDecodeError:
            raise DecodeError(f"field {number} is not UTF-8") from None

    def text(self, number: int) -> str:
        """A string; of one that was sent several times the last counts."""
        return (self.texts(number) or ("",))[-1]

    def flag(self, number: int) -> bool:
        """A bool; any number but 0 is true."""
        sent = [value for value in self._fields.get(number, ()) if isinstance(value, int)]
        return bool(sent and sent[-1])

    def messages(self, number: int) -> tuple[Message, ...]:
        """All messages of a repeated field."""
        return tuple(Message(content) for content in self._bytes(number))

    def message(self, number: int) -> Message:
        """A message; those sent one after another are one, as their bytes in a row are."""
        return Message(b"".join(self._bytes(number)))

    def _bytes(self, number: int) -> list[bytes]:
        return [value for value in self._fields.get(number, ()) if isinstance(value, bytes)]


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Each field's number, and its value: an int of a varint, else its bytes."""
    place = 0
    while place < len(content):
        tag, place = _read_varint(content, place)
        number, kind = tag >> 3, tag & 7
        if not 1 <= number <= _MOST_FIELDS:
            raise DecodeError(f"a field of the number {number}")
        if kind == _VARINT:
            value, place = _read_varint(content, place)
            yield number, value
        elif kind == _BYTES:
            length, place = _read_varint(content, place)
            yield number, _cut(content, place, length)
            place += length
        elif kind in _FIXED:
            _cut(content, place, _FIXED[kind])
            place += _FIXED[kind]
        else:
            raise DecodeError(f"field {number} is of the wire type {kind}")


def _cut(content: bytes, place: int, length: int) -> bytes:
    if length > len(content) - place:
        raise DecodeError(f"{length} bytes are announced, and {len(content) - place} are there")
    return content[place : place + length]


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    """The number at a place, and the place behind it."""
    value = 0
    for shift, byte in enumerate(content[place : place + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, place + shift + 1
    raise DecodeError("a number without an end, or of more than 64 bits")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
