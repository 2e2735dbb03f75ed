"""What the CRI client makes of refusals. The runtime is a stand-in with the words of real ones."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded

from agent.clients.cri_calls import Cri
from agent.clients.failures import CriError
from agent.wire.plan import Verify
from tests.agent import api_pb2 as api

GRPC = [(":status", "200"), ("content-type", "application/grpc")]
V1, ALPHA = "runtime.v1.ImageService", "runtime.v1alpha2.ImageService"
NO_ALPHA = f"unknown service {ALPHA}"
# containerd 2.1.9 of a manifest of schema 1.
SCHEMA1 = (
    "failed to pull and unpack image: not implemented: media type "
    '"application/vnd.docker.distribution.manifest.v1+prettyjws" is no longer supported'
)


class Runtime:
    """Answers a pull per service with an image, or refuses it with UNIMPLEMENTED and the words."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = words
        self.asked: list[str] = []

    def __mapping__(self) -> dict[str, Handler]:
        return {
            f"/{service}/PullImage": Handler(
                self._answering(service),
                Cardinality.UNARY_UNARY,
                api.PullImageRequest,
                api.PullImageResponse,
            )
            for service in self._words
        }

    def _answering(self, service: str):  # type: ignore[no-untyped-def]
        async def answer(stream: Stream[api.PullImageRequest, api.PullImageResponse]) -> None:
            await stream.recv_message()
            self.asked.append(service)
            words = self._words[service]
            if words != "pulled":
                raise GRPCError(Status.UNIMPLEMENTED, words or None)
            await stream.send_message(api.PullImageResponse(image_ref="sha256:1"))

        return answer


def pull(folder: Path, words: Mapping[str, str]) -> tuple[str, bool, list[str]]:
    """What is told, whether the runtime answered, and which services were asked."""
    runtime = Runtime(words)

    async def session() -> tuple[str, bool]:
        server = Server([runtime])
        await server.start(path=str(folder / "cri.sock"))
        try:
            with Cri(str(folder / "cri.sock")) as cri:
                return await asyncio.to_thread(cri.pull, Verify("reg.test/app:1"), 5), True
        except CriError as problem:
            return problem.message, problem.answered
        finally:
            server.close()
            await server.wait_closed()

    return (*asyncio.run(session()), runtime.asked)


def test_an_image_that_is_not_supported_is_told_as_such(sockets: Path) -> None:
    told = pull(sockets, {V1: SCHEMA1, ALPHA: NO_ALPHA})
    assert told == (SCHEMA1, True, [V1])


@pytest.mark.parametrize("words", [f"unknown service {V1}", ""])
def test_an_unknown_service_is_asked_for_by_its_older_name(sockets: Path, words: str) -> None:
    assert pull(sockets, {V1: words, ALPHA: "pulled"}) == ("sha256:1", True, [V1, ALPHA])


def test_a_runtime_that_knows_neither_did_not_answer(sockets: Path) -> None:
    words = {V1: f"unknown service {V1}", ALPHA: NO_ALPHA}
    assert pull(sockets, words) == (NO_ALPHA, False, [V1, ALPHA])


def test_a_refusal_of_the_older_service_is_told_too(sockets: Path) -> None:
    words = {V1: f"unknown service {V1}", ALPHA: SCHEMA1}
    assert pull(sockets, words) == (SCHEMA1, True, [V1, ALPHA])


def test_a_runtime_that_goes_down_while_it_is_asked_did_not_answer(sockets: Path) -> None:
    path = str(sockets / "cri.sock")

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async def session() -> None:
        async with await asyncio.start_unix_server(hang_up, path):
            with Cri(path) as cri:
                await asyncio.to_thread(cri.ready)

    with pytest.raises(CriError) as told:
        asyncio.run(session())
    assert (told.value.answered, "lost" in told.value.message) == (False, True)


def no_message(stream: H2Connection, number: int) -> None:
    stream.send_headers(number, [*GRPC, ("grpc-status", "0")], end_stream=True)


def another_message(stream: H2Connection, number: int) -> None:
    stream.send_headers(number, GRPC)
    stream.send_data(number, b"\0\0\0\0\x03\xff\xff\xff")
    stream.send_headers(number, [("grpc-status", "0")], end_stream=True)


def half_a_message(stream: H2Connection, number: int) -> None:
    stream.send_headers(number, GRPC)
    stream.send_data(number, b"\0\0\0\0\x09\x0a", end_stream=True)


def not_http2(stream: H2Connection, number: int) -> None:
    stream.data_to_send()  # withdrawn: what goes out is HTTP/1
    stream._data_to_send += b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("reply", [no_message, another_message, half_a_message, not_http2])
def test_what_answers_without_cris_words_did_not_answer(
    sockets: Path, reply: Callable[[H2Connection, int], None]
) -> None:
    path = str(sockets / "cri.sock")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = H2Connection(H2Configuration(client_side=False))
        stream.initiate_connection()
        while got := await reader.read(4096):
            for event in stream.receive_data(got):
                if isinstance(event, StreamEnded):
                    reply(stream, event.stream_id)
            writer.write(stream.data_to_send())
        writer.close()

    async def session() -> None:
        async with await asyncio.start_unix_server(serve, path):
            with Cri(path) as cri:
                await asyncio.to_thread(cri.version, 2)

    with pytest.raises(CriError) as told:
        asyncio.run(session())
    assert told.value.message
    assert not told.value.answered


def filled(path: Path) -> tuple[socket.socket, list[socket.socket]]:
    """A socket that listens, and lines in its queue until no more goes in."""
    server, waiting = socket.socket(socket.AF_UNIX), list[socket.socket]()
    server.bind(str(path))
    server.listen(1)
    with contextlib.suppress(BlockingIOError):
        while True:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            waiting[-1].connect(str(path))
    return server, waiting


@pytest.mark.parametrize(("serves", "said"), [(True, "lost"), (False, "within 0.6 seconds")])
def test_a_runtime_whose_queue_is_full_is_waited_for(
    tmp_path: Path, serves: bool, said: str
) -> None:
    server, waiting = filled(tmp_path / "cri.sock")

    def serve() -> None:
        for _ in waiting:  # the last of them is not in the queue, and ours is
            server.accept()[0].close()

    later = threading.Timer(0.2, serve)
    later.daemon = True
    if serves:
        later.start()
    with pytest.raises(CriError, match=said), Cri(str(tmp_path / "cri.sock")) as cri:
        cri.version(30 if serves else 0.6)
    later.cancel()
    for line in (server, *waiting):
        line.close()
