"""CRI's calls over gRPC: ``runtime.v1``, or ``v1alpha2`` if that is all there is.

The two have the same messages under different service names; containerd 1.5 knows only the latter.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from google.protobuf.message import DecodeError
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from h2.exceptions import H2Error

from agent.clients import api_pb2 as api
from agent.clients.failures import CriError
from agent.wire.plan import Verify

VERSIONS = ("v1", "v1alpha2")


class Cri:
    """The runtime behind a socket; an asynchronous context manager."""

    def __init__(self, socket: str) -> None:
        self._channel = Channel(path=socket)
        self._version = ""

    async def __aenter__(self) -> Cri:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._channel.close()

    async def version(self, timeout: float = 3) -> str:
        """The runtime's name and version, such as ``containerd 1.7.24``."""
        answer = await self._call("Runtime", "Version", api.VersionRequest(), timeout)
        return f"{answer.runtime_name} {answer.runtime_version}"

    async def ready(self, timeout: float = 3) -> bool:
        """Whether the runtime serves. The network may be down: that is the CNI's, not ours."""
        answer = await self._call("Runtime", "Status", api.StatusRequest(), timeout)
        return any(one.type == "RuntimeReady" and one.status for one in answer.status.conditions)

    async def pull(self, verify: Verify, timeout: float) -> str:
        """Pull as the kubelet does, and tell the image's reference."""
        request = api.PullImageRequest(image=api.ImageSpec(image=verify.image))
        if verify.username is not None:
            request.auth.username = verify.username
            request.auth.password = verify.password or ""
        answer = await self._call("Image", "PullImage", request, timeout)
        return str(answer.image_ref)

    async def image(self, name: str, timeout: float = 10) -> str:
        """The id of an image that is there, or an empty string."""
        request = api.ImageStatusRequest(image=api.ImageSpec(image=name))
        return str((await self._call("Image", "ImageStatus", request, timeout)).image.id)

    async def images(self, timeout: float) -> tuple[str, ...]:
        """Names, digests and ids of every image that is there, and of what containers run."""
        answer = await self._call("Image", "ListImages", api.ListImagesRequest(), timeout)
        request = api.ListContainersRequest()
        running = await self._call("Runtime", "ListContainers", request, timeout)
        words = [
            word for one in answer.images for word in (one.id, *one.repo_tags, *one.repo_digests)
        ]
        words += [word for one in running.containers for word in (one.image.image, one.image_ref)]
        return tuple(dict.fromkeys(filter(None, words)))

    async def remove(self, name: str, timeout: float = 60) -> None:
        """Take an image off the node; one that is not there is fine."""
        request = api.RemoveImageRequest(image=api.ImageSpec(image=name))
        await self._call("Image", "RemoveImage", request, timeout)

    async def _call(self, service: str, name: str, request: Any, timeout: float) -> Any:
        versions = (self._version,) if self._version else VERSIONS
        for version in versions:
            method: Any = UnaryUnaryMethod(
                self._channel,
                f"/runtime.{version}.{service}Service/{name}",
                type(request),
                getattr(api, f"{name}Response"),
            )
            try:
                answer = await method(request, timeout=timeout)
            except GRPCError as problem:
                unknown = _is_unknown(problem)
                if unknown and version != versions[-1]:
                    continue
                served = not unknown and problem.status is not Status.UNAVAILABLE
                raise CriError(problem.message or problem.status.name, answered=served) from None
            except asyncio.TimeoutError:
                raise CriError(f"no answer within {timeout:g} seconds", answered=False) from None
            except OSError as problem:
                raise CriError(problem.strerror or str(problem), answered=False) from None
            except (StreamTerminatedError, ProtocolError) as problem:  # it goes down meanwhile
                raise CriError(str(problem).lower(), answered=False) from None
            except (H2Error, DecodeError, AssertionError) as problem:
                # grpclib asserts what a server that goes down, or is another, does not keep.
                words = str(problem) or "no message in it"
                raise CriError(f"an answer that is not gRPC's: {words}", answered=False) from None
            self._version = version
            return answer
        raise AssertionError("unreachable")


def _is_unknown(problem: GRPCError) -> bool:
    """Whether the server has no such service. containerd says UNIMPLEMENTED of an image as well.

    Go's words are of ``handleStream`` in https://github.com/grpc/grpc-go/blob/master/server.go;
    servers in other languages say nothing.
    """
    words = problem.message or ""
    return problem.status is Status.UNIMPLEMENTED and (not words or "unknown service" in words)
