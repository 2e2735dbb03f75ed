"""The CRI client on the wire: beside grpclib's client, against grpclib's server and broken ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.server import Server, Stream
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded
from h2.settings import SettingCodes

from agent.clients import grpc
from agent.clients.cri_calls import Cri
from agent.clients.failures import CriError
from agent.wire.plan import Verify
from tests.agent import api_pb2 as api

UNKNOWN = b"\xa2\x1f\x03abc"
TYPE = ("content-type", "application/grpc")
Told = tuple[str, bool]


class Runtime:
    """A real gRPC server with a method for each of CRI's calls; notes what it was asked."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers
        self.asked: list[Any] = []

    def __mapping__(self) -> dict[str, Handler]:
        return {
            f"/runtime.{name}": Handler(
                self._answering(name),
                Cardinality.UNARY_UNARY,
                getattr(api, f"{name.rpartition('/')[2]}Request"),
                getattr(api, f"{name.rpartition('/')[2]}Response"),
            )
            for name in self._answers
        }

    def _answering(self, name: str) -> Any:
        async def answer(stream: Stream[Any, Any]) -> None:
            self.asked.append(await stream.recv_message())
            told = self._answers[name]
            if isinstance(told, Exception):
                raise told
            await stream.send_message(told)

        return answer


def asked(
    folder: Path, answers: dict[str, Any], ask: Callable[[Cri], Any]
) -> tuple[Any, list[Any]]:
    """What ``ask`` is told, and the requests as the server read them."""
    runtime = Runtime(answers)

    async def session() -> Any:
        server = Server([runtime])
        await server.start(path=str(folder / "cri.sock"))
        try:
            with Cri(str(folder / "cri.sock")) as cri:
                return await asyncio.to_thread(ask, cri)
        finally:
            server.close()
            await server.wait_closed()

    return asyncio.run(session()), runtime.asked


def with_unknown(answer: Any) -> Any:
    """The same from a runtime that knows a field more."""
    return type(answer).FromString(answer.SerializeToString() + UNKNOWN)


def test_the_version_is_read(sockets: Path) -> None:
    answer = api.VersionResponse(runtime_name="containerd", runtime_version="v2.1.4")
    told = asked(sockets, {"v1.RuntimeService/Version": with_unknown(answer)}, Cri.version)
    assert told == ("containerd v2.1.4", [api.VersionRequest()])


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        ({"NetworkReady": True, "RuntimeReady": True}, True),
        ({"RuntimeReady": True, "NetworkReady": False}, True),
        ({"RuntimeReady": False, "NetworkReady": True}, False),
        ({}, False),
    ],
)
def test_the_runtimes_own_condition_tells_whether_it_serves(
    sockets: Path, conditions: dict[str, bool], ready: bool
) -> None:
    said = [api.RuntimeCondition(type=name, status=is_so) for name, is_so in conditions.items()]
    answer = api.StatusResponse(status=api.RuntimeStatus(conditions=said), info={"config": "{}"})
    told = asked(sockets, {"v1.RuntimeService/Status": with_unknown(answer)}, Cri.ready)
    assert told == (ready, [api.StatusRequest()])


@pytest.mark.parametrize("login", [(None, None), ("me", "p ü"), ("me", None), ("", "")])
def test_a_pull_is_asked_for_as_the_protocol_has_it(
    sockets: Path, login: tuple[str | None, str | None]
) -> None:
    wanted = api.PullImageRequest(image=api.ImageSpec(image="reg.test/app:1"))
    if login[0] is not None:
        wanted.auth.username, wanted.auth.password = login[0], login[1] or ""
    answers = {"v1.ImageService/PullImage": api.PullImageResponse(image_ref="sha256:1")}
    verify = Verify("reg.test/app:1", *login)
    assert asked(sockets, answers, lambda cri: cri.pull(verify, 5)) == ("sha256:1", [wanted])


def test_a_login_longer_than_a_frame_and_the_window_arrives_whole(sockets: Path) -> None:
    answers = {"v1.ImageService/PullImage": api.PullImageResponse(image_ref="sha256:1")}
    verify = Verify("reg.test/app:1", "me", "x" * 5_000_000)
    told, requests = asked(sockets, answers, lambda cri: cri.pull(verify, 20))
    assert (told, requests[0].auth.password) == ("sha256:1", verify.password)


def test_an_answer_longer_than_the_window_is_read_whole(sockets: Path) -> None:
    names = [f"reg.test/{number:0>200}:1" for number in range(2000)]
    answers = {
        "v1.ImageService/ListImages": api.ListImagesResponse(
            images=[with_unknown(api.Image(id=f"sha256:{one}", repo_tags=[one])) for one in names]
        ),
        "v1.RuntimeService/ListContainers": api.ListContainersResponse(),
    }
    told, _ = asked(sockets, answers, lambda cri: cri.images(20))
    assert told == tuple(word for one in names for word in (f"sha256:{one}", one))


def test_an_answer_longer_than_the_kubelet_takes_is_refused(
    sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert grpc.MOST_BYTES == 16 << 20
    monkeypatch.setattr(grpc, "MOST_BYTES", 1 << 16)
    answer = api.VersionResponse(runtime_name="x" * (1 << 17))
    with pytest.raises(CriError, match="more than 65536 bytes") as told:
        asked(sockets, {"v1.RuntimeService/Version": answer}, Cri.version)
    assert not told.value.answered


def test_an_image_is_removed_by_its_name(sockets: Path) -> None:
    answers = {"v1.ImageService/RemoveImage": api.RemoveImageResponse()}
    told = asked(sockets, answers, lambda cri: cri.remove("reg.test/app:1"))
    assert told == (None, [api.RemoveImageRequest(image=api.ImageSpec(image="reg.test/app:1"))])


def test_the_older_service_is_asked_at_once_when_it_is_known(sockets: Path) -> None:
    answers = {
        "v1.RuntimeService/Version": GRPCError(Status.UNIMPLEMENTED),
        "v1alpha2.RuntimeService/Version": api.VersionResponse(runtime_name="a"),
        "v1alpha2.RuntimeService/Status": api.StatusResponse(),
    }
    told, requests = asked(sockets, answers, lambda cri: (cri.version(), cri.ready()))
    assert told == ("a ", False)
    assert requests == [api.VersionRequest(), api.VersionRequest(), api.StatusRequest()]


# -- beside grpclib's own client ----------------------------------------------------------------


def ours(path: str, seconds: float) -> Told:
    with Cri(path) as cri, pytest.raises(CriError) as told:
        cri._version = "v1"  # one call, as theirs is
        cri.version(seconds)
    return told.value.message, told.value.answered


async def theirs(path: str, seconds: float) -> Told:
    """The same in grpclib's words."""
    channel = Channel(path=path)
    name = "/runtime.v1.RuntimeService/Version"
    method: Any = UnaryUnaryMethod(channel, name, api.VersionRequest, api.VersionResponse)
    try:
        await method(api.VersionRequest(), timeout=seconds)
    except GRPCError as problem:
        silent = problem.status is Status.UNAVAILABLE
        unknown = problem.status is Status.UNIMPLEMENTED and not problem.message
        return problem.message or problem.status.name, not silent and not unknown
    except (TimeoutError, asyncio.TimeoutError):  # noqa: UP041 (they are one since 3.11)
        return f"no answer within {seconds:g} seconds", False
    except (StreamTerminatedError, ProtocolError) as problem:
        return str(problem).lower(), False
    except OSError as problem:
        return str(problem.strerror), False
    except (DecodeError, AssertionError):
        return "an answer that is not gRPC's", False
    finally:
        channel.close()
    raise AssertionError("it was answered")


@pytest.mark.parametrize(
    "said",
    [
        *(
            GRPCError(status, "why: 100 % \u00fcn\n")
            for status in Status
            if status is not Status.OK
        ),
        *(GRPCError(status) for status in Status if status is not Status.OK),
    ],
    ids=repr,
)
def test_a_refusal_is_told_as_grpclib_tells_it(sockets: Path, said: Any) -> None:
    path = str(sockets / "cri.sock")

    async def session() -> tuple[Told, Told]:
        server = Server([Runtime({"v1.RuntimeService/Version": said})])
        await server.start(path=path)
        try:
            return await asyncio.to_thread(ours, path, 5), await theirs(path, 5)
        finally:
            server.close()

    mine, other = asyncio.run(session())
    assert mine == other
    assert mine[0] == (said.message or said.status.name)


Reply = Callable[[H2Connection, int], None]


def headers(*more: tuple[str, str], end: bool = True) -> Reply:
    return lambda line, number: line.send_headers(number, list(more), end_stream=end)


def message(content: bytes, *trailers: tuple[str, str], kind: str = "application/grpc") -> Reply:
    def reply(line: H2Connection, number: int) -> None:
        line.send_headers(number, [(":status", "200"), ("content-type", kind)])
        line.send_data(number, content, end_stream=not trailers)
        if trailers:
            line.send_headers(number, list(trailers), end_stream=True)

    return reply


def reset(line: H2Connection, number: int) -> None:
    line.reset_stream(number, 8)


def goaway(line: H2Connection, number: int) -> None:
    line.close_connection(2)


def hpack(line: H2Connection, number: int) -> None:
    line._data_to_send += b"\0\0\1\1\4" + number.to_bytes(4, "big") + b"\xff"


def pushed(line: H2Connection, number: int) -> None:
    line._data_to_send += b"\0\0\4\5\4" + number.to_bytes(4, "big") + b"\0\0\0\2"


def window(line: H2Connection, number: int) -> None:
    line._data_to_send += b"\0\0\4\x08\0" + bytes(4) + b"\0\0\0\0"


OK = ("grpc-status", "0")
WHOLE = b"\0\0\0\0\x05\x12\x03abc"
HTML = (":status", "404"), ("content-type", "text/html")
REPLIES: dict[str, Reply] = {
    "page": headers((":status", "200"), ("content-type", "text/html")),
    "not found": headers(*HTML),
    **{status: headers((":status", status)) for status in ("400", "401", "403", "429", "502")},
    "teapot": headers((":status", "418")),
    "no type": headers((":status", "200"), OK),
    "json": message(WHOLE, OK, kind="application/grpc+json"),
    "no status": message(WHOLE, ("grpc-message", "x")),
    "odd status": message(WHOLE, ("grpc-status", "x")),
    "status 99": message(WHOLE, ("grpc-status", "99")),
    "status -1": message(WHOLE, ("grpc-status", "-1")),
    "no message": headers((":status", "200"), TYPE, OK),
    "half": message(WHOLE[:7], OK),
    "half a prefix": message(WHOLE[:3], OK),
    "4 GiB": message(b"\0\xff\xff\xff\xff\x12", OK),
    "not protobuf": message(b"\0\0\0\0\x03\xff\xff\xff", OK),
    "not UTF-8": message(b"\0\0\0\0\x03\x12\x01\xff", OK),
    "refused behind a message": message(WHOLE, ("grpc-status", "5"), ("grpc-message", "it%20is")),
    "reset": reset,
    "goaway": goaway,
    "hpack": hpack,
    "pushed": pushed,
    "window": window,
}
# What grpclib does not tell: its caller hangs, or is told of a defect.
OURS: dict[str, tuple[Reply, str]] = {
    "no trailers": (message(WHOLE), "an answer that is not gRPC's: "),
    "compressed": (message(b"\1" + WHOLE[1:], OK), "an answer that is not gRPC's: "),
    "two messages": (message(WHOLE + WHOLE, OK), "an answer that is not gRPC's: "),
}


async def served(path: str, reply: Reply) -> asyncio.Server:
    """A server that answers each request by ``reply``; its window is the smallest there is."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = H2Connection(H2Configuration(client_side=False, validate_outbound_headers=False))
        line.initiate_connection()
        line.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1})
        writer.write(line.data_to_send())
        while got := await reader.read(4096):
            for event in line.receive_data(got):
                if isinstance(event, StreamEnded):
                    reply(line, event.stream_id)
                if isinstance(event, DataReceived):
                    line.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            writer.write(line.data_to_send())
        writer.close()

    return await asyncio.start_unix_server(serve, path)


@pytest.mark.parametrize("name", REPLIES)
def test_what_answers_otherwise_is_told_as_grpclib_tells_it(sockets: Path, name: str) -> None:
    path = str(sockets / "cri.sock")

    async def session() -> tuple[Told, Told]:
        async with await served(path, REPLIES[name]):
            return await asyncio.to_thread(ours, path, 5), await theirs(path, 5)

    mine, other = asyncio.run(session())
    if other[0] == "an answer that is not gRPC's":
        assert mine[0].startswith(f"{other[0]}: ") and not mine[1]
    else:
        assert mine == other


def test_one_that_never_answers_is_told_as_grpclib_tells_it(sockets: Path) -> None:
    path = str(sockets / "cri.sock")

    async def session() -> tuple[Told, Told]:
        async with await served(path, lambda line, number: None):
            return await asyncio.to_thread(ours, path, 0.2), await theirs(path, 0.2)

    mine, other = asyncio.run(session())
    assert mine == other == ("no answer within 0.2 seconds", False)


@pytest.mark.parametrize("name", OURS)
def test_what_no_server_of_grpc_sends_did_not_answer(sockets: Path, name: str) -> None:
    path = str(sockets / "cri.sock")

    async def session() -> Told:
        async with await served(path, OURS[name][0]):
            return await asyncio.to_thread(ours, path, 5)

    words, answered = asyncio.run(session())
    assert words.startswith(OURS[name][1]) and not answered


def test_nobody_there_is_told_as_grpclib_tells_it(sockets: Path) -> None:
    path = str(sockets / "nobody.sock")
    assert ours(path, 1) == asyncio.run(theirs(path, 1)) == ("No such file or directory", False)


def test_a_server_that_leaves_after_its_answer_is_connected_to_again(sockets: Path) -> None:
    path = str(sockets / "cri.sock")

    def reply(line: H2Connection, number: int) -> None:
        message(WHOLE, OK)(line, number)
        line.close_connection()

    def twice() -> tuple[str, str]:
        with Cri(path) as cri:
            return cri.version(2), cri.version(2)

    async def session() -> tuple[str, str]:
        async with await served(path, reply):
            return await asyncio.to_thread(twice)

    assert asyncio.run(session()) == ("abc ", "abc ")
