"""Unary gRPC calls to a server behind a Unix socket, one after another; HTTP/2 is h2's.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import socket
import time
from urllib.parse import unquote

from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error

from agent.wire import unix_sockets

# The longest answer, as the kubelet has it: maxMsgSize in pkg/remote_runtime.go of cri-client.
MOST_BYTES = 16 << 20
# A byte that says whether it is compressed, and four with its length, precede a message.
_PREFIX = 5
# https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
_STATUSES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
# https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
_OF_HTTP = {
    "400": "INTERNAL",
    "401": "UNAUTHENTICATED",
    "403": "PERMISSION_DENIED",
    "404": "UNIMPLEMENTED",
    "429": "UNAVAILABLE",
    "502": "UNAVAILABLE",
    "503": "UNAVAILABLE",
    "504": "UNAVAILABLE",
}


class StatusError(Exception):
    """An answer whose status is not OK: the status, and the server's words, which may be none."""

    def __init__(self, status: str, words: str) -> None:
        super().__init__(words or status)
        self.status = status
        self.words = words


class LostError(Exception):
    """The connection, or the call, ended before the answer did; how."""

    def __init__(self, how: str = "connection lost") -> None:
        super().__init__(how)


class NotGrpcError(Exception):
    """What came is no answer of gRPC's."""


class GrpcClient:
    """The server behind a socket. A call connects where none has, or where one has failed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._line: _Line | None = None

    def close(self) -> None:
        if self._line is not None:
            self._line.socket.close()
            self._line = None

    def call(self, method: str, message: bytes, timeout: float) -> bytes:
        """The message that answers one to ``method``, such as ``/package.Service/Method``.

        Raises StatusError, LostError and NotGrpcError; socket.timeout after ``timeout`` seconds,
        and any other OSError if nobody can be connected to.
        """
        deadline = time.monotonic() + timeout
        self._line = self._line or _Line()
        try:
            self._line.connect(self._path, deadline)
            answer = self._line.ask(method, message, deadline).message()
        except BaseException:
            self.close()
            raise
        if self._line.over:
            self.close()
        return answer


class _Line:
    """A connection; ``over``: the server takes no further call on it."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.over = False
        self._h2 = H2Connection()
        self._begun = False

    def connect(self, path: str, deadline: float) -> None:
        """Connect, unless that is done already."""
        if not self._begun:
            unix_sockets.connect(self.socket, path, _left(deadline))
            self._h2.initiate_connection()
            self._begun = True

    def ask(self, method: str, message: bytes, deadline: float) -> _Answer:
        """The whole answer to one message. Raises as :meth:`GrpcClient.call`."""
        try:
            number = self._h2.get_next_available_stream_id()
            self._h2.send_headers(number, _headers(method, _left(deadline)))
            unsent = b"\0" + len(message).to_bytes(_PREFIX - 1, "big") + message
            answer = _Answer(number)
            while not answer.ended:
                unsent = self._send(number, unsent)
                for event in self._receive(deadline):
                    answer.take(event)
            return answer
        except socket.timeout:
            raise
        except (OSError, H2Error):
            raise LostError from None

    def _send(self, number: int, unsent: bytes) -> bytes:
        """Send as much of a request as the server takes now. Returns the rest."""
        while unsent:
            room = self._h2.local_flow_control_window(number)
            room = min(room, self._h2.max_outbound_frame_size, len(unsent))
            if room <= 0:
                break
            self._h2.send_data(number, unsent[:room], end_stream=room == len(unsent))
            unsent = unsent[room:]
        return unsent

    def _receive(self, deadline: float) -> list[Event]:
        """What the server says next."""
        self.socket.settimeout(_left(deadline))
        self.socket.sendall(self._h2.data_to_send())
        self.socket.settimeout(_left(deadline))
        content = self.socket.recv(1 << 16)
        if not content:
            raise LostError
        events = self._h2.receive_data(content)
        for event in events:
            self.over |= isinstance(event, ConnectionTerminated)
            if isinstance(event, DataReceived) and not self.over:
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        return events


class _Answer:
    """The answer on a stream, as it comes in."""

    def __init__(self, number: int) -> None:
        self._number = number
        # Those before the message and those behind it; a refusal may have but the first.
        self._headers: dict[str, str] = {}
        self._has_trailers = False
        self._content = bytearray()
        self.ended = False

    def take(self, event: Event) -> None:
        """What comes next. Raises as :meth:`GrpcClient.call`."""
        if self.ended:
            return
        if isinstance(event, ConnectionTerminated):
            raise LostError
        if getattr(event, "stream_id", None) != self._number:
            return
        if isinstance(event, StreamReset):
            code = int(event.error_code)
            raise LostError(f"stream reset by remote party, error_code: {code}")
        if isinstance(event, DataReceived):
            self._content += event.data
            if len(self._content) > _PREFIX + MOST_BYTES:
                raise NotGrpcError(f"more than {MOST_BYTES} bytes")
        elif isinstance(event, StreamEnded):
            self.ended = True
        elif isinstance(event, (ResponseReceived, TrailersReceived)):
            self._headers.update(
                (name.decode("utf-8", "replace"), value.decode("utf-8", "replace"))
                for name, value in event.headers
            )
            self._has_trailers = isinstance(event, TrailersReceived)
            self._require_grpc()

    def _require_grpc(self) -> None:
        status = self._headers.get(":status", "")
        if status != "200":
            of_http = _OF_HTTP.get(status, "UNKNOWN")
            raise StatusError(of_http, f"Received :status = {status!r}")
        kind = self._headers.get("content-type")
        if kind is None:
            raise StatusError("UNKNOWN", "Missing content-type header")
        if kind not in ("application/grpc", "application/grpc+proto"):
            raise StatusError("UNKNOWN", f"Invalid content-type: {kind!r}")

    def message(self) -> bytes:
        """The message, once all is there. Raises StatusError for what is a refusal."""
        status = self._headers.get("grpc-status")
        if status is None and not self._has_trailers:
            raise NotGrpcError("no status in it")
        if status is None:
            raise StatusError("UNKNOWN", "Missing grpc-status header")
        if not status.isdecimal() or int(status) >= len(_STATUSES):
            raise StatusError("UNKNOWN", f"Invalid grpc-status: {status!r}")
        if int(status):
            words = unquote(self._headers.get("grpc-message", ""), errors="replace")
            raise StatusError(_STATUSES[int(status)], words)
        if not self._content:
            raise NotGrpcError("no message in it")
        length = int.from_bytes(self._content[1:_PREFIX], "big")
        if self._content[0] or len(self._content) != _PREFIX + length:
            raise NotGrpcError("not one whole message, uncompressed")
        return bytes(self._content[_PREFIX:])


def _headers(method: str, seconds: float) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("grpc-timeout", f"{int(seconds * 1000)}m"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "moorage"),
    ]


def _left(deadline: float) -> float:
    """Seconds until then. Raises socket.timeout if there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise socket.timeout
    return seconds
