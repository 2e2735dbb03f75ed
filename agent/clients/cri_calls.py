"""CRI's calls over gRPC: ``runtime.v1``, or ``v1alpha2`` if that is all there is.

The two have the same messages under different service names; containerd 1.5 knows only the latter.
The numbers are the fields' in k8s.io/cri-api, pkg/apis/runtime/v1/api.proto.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from agent.clients.failures import CriError
from agent.clients.grpc import GrpcClient, LostError, NotGrpcError, StatusError
from agent.clients.protobuf import DecodeError, Message, message, text
from agent.wire.plan import Verify

VERSIONS = ("v1", "v1alpha2")
Answer = TypeVar("Answer")


class Cri:
    """The runtime behind a socket; a context manager."""

    def __init__(self, path: str) -> None:
        self._client = GrpcClient(path)
        self._version = ""

    def __enter__(self) -> Cri:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._client.close()

    def version(self, timeout: float = 3) -> str:
        """The runtime's name and version, such as ``containerd 1.7.24``."""
        return self._call("Runtime", "Version", b"", timeout, _version)

    def ready(self, timeout: float = 3) -> bool:
        """Whether the runtime serves. The network may be down: that is the CNI's, not ours."""
        return self._call("Runtime", "Status", b"", timeout, _ready)

    def pull(self, verify: Verify, timeout: float) -> str:
        """Pull as the kubelet does, and tell the image's reference."""
        request = _image(verify.image)
        if verify.username is not None:
            request += message(2, text(1, verify.username) + text(2, verify.password or ""))
        return self._call("Image", "PullImage", request, timeout, lambda answer: answer.text(1))

    def images(self, timeout: float) -> tuple[str, ...]:
        """Names, digests and ids of every image that is there, and of what containers run."""
        words = self._call("Image", "ListImages", b"", timeout, _there)
        words += self._call("Runtime", "ListContainers", b"", timeout, _running)
        return tuple(dict.fromkeys(filter(None, words)))

    def remove(self, name: str, timeout: float = 60) -> None:
        """Take an image off the node; one that is not there is fine."""
        self._call("Image", "RemoveImage", _image(name), timeout, lambda _: None)

    def _call(
        self,
        service: str,
        name: str,
        request: bytes,
        timeout: float,
        read: Callable[[Message], Answer],
    ) -> Answer:
        """What ``read`` makes of the answer to a method. Raises CriError."""
        versions = (self._version,) if self._version else VERSIONS
        for version in versions:
            method = f"/runtime.{version}.{service}Service/{name}"
            try:
                answer = read(Message(self._client.call(method, request, timeout)))
            except StatusError as problem:
                unknown = _is_unknown(problem)
                if unknown and version != versions[-1]:
                    continue
                served = not unknown and problem.status != "UNAVAILABLE"
                raise CriError(problem.words or problem.status, answered=served) from None
            except socket.timeout:
                raise CriError(f"no answer within {timeout:g} seconds", answered=False) from None
            except OSError as problem:
                raise CriError(problem.strerror or str(problem), answered=False) from None
            except LostError as problem:  # it goes down meanwhile
                raise CriError(str(problem), answered=False) from None
            except (NotGrpcError, DecodeError) as problem:
                words = f"an answer that is not gRPC's: {problem}"
                raise CriError(words, answered=False) from None
            self._version = version
            return answer
        raise AssertionError("unreachable")


# What the answers' messages say, by the numbers of their fields.


def _version(answer: Message) -> str:
    return f"{answer.text(2)} {answer.text(3)}"


def _ready(answer: Message) -> bool:
    conditions = answer.message(1).messages(1)
    return any(one.text(1) == "RuntimeReady" and one.flag(2) for one in conditions)


def _there(answer: Message) -> list[str]:
    images = answer.messages(1)
    return [word for one in images for word in (one.text(1), *one.texts(2), *one.texts(3))]


def _running(answer: Message) -> list[str]:
    containers = answer.messages(1)
    return [word for one in containers for word in (one.message(4).text(1), one.text(5))]


def _image(name: str) -> bytes:
    """A request's image: an ``ImageSpec`` as the first field."""
    return message(1, text(1, name))


def _is_unknown(problem: StatusError) -> bool:
    """Whether the server has no such service. containerd says UNIMPLEMENTED of an image as well.

    Go's words are of ``handleStream`` in https://github.com/grpc/grpc-go/blob/master/server.go;
    servers in other languages say nothing.
    """
    words = problem.words
    return problem.status == "UNIMPLEMENTED" and (not words or "unknown service" in words)
