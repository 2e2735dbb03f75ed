"""The messages that the agent reads and writes itself, held against the protobuf library."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError as TheirDecodeError
from hypothesis import given
from hypothesis import strategies as st

from agent.clients.protobuf import DecodeError, Message, message, text
from tests.agent import api_pb2 as api

TEXTS = st.text(max_size=12)
# A field that nobody here knows, of each wire type but the groups'.
UNKNOWN = st.sampled_from(
    [
        b"\xa0\x1f\x96\x01",
        b"\xa1\x1f" + b"\1" * 8,
        b"\xa2\x1f\x03abc",
        b"\xa5\x1f" + b"\2" * 4,
        b"\xfa\xff\xff\xff\x0f\x00",  # of the greatest number there is
    ]
)
IMAGES = st.builds(
    api.Image,
    id=TEXTS,
    repo_tags=st.lists(TEXTS, max_size=3),
    repo_digests=st.lists(TEXTS, max_size=3),
    size=st.integers(0, 2**64 - 1),
)
CONDITIONS = st.builds(api.RuntimeCondition, type=TEXTS, status=st.booleans(), message=TEXTS)


def images(content: bytes) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.text(1), one.texts(2)) for one in Message(content).messages(1)]


@given(st.lists(IMAGES, max_size=3), UNKNOWN, st.booleans())
def test_it_reads_what_the_library_writes(found: list[api.Image], more: bytes, last: bool) -> None:
    written = api.ListImagesResponse(images=found).SerializeToString()
    content = written + more if last else more + written
    assert images(content) == [(one.id, tuple(one.repo_tags)) for one in found]
    assert api.ListImagesResponse.FromString(content).images == found


@given(st.lists(CONDITIONS, max_size=3), st.lists(CONDITIONS, max_size=3), UNKNOWN)
def test_a_message_that_is_sent_twice_is_one(
    first: list[api.RuntimeCondition], second: list[api.RuntimeCondition], more: bytes
) -> None:
    parts = [
        api.StatusResponse(status=api.RuntimeStatus(conditions=one)) for one in (first, second)
    ]
    content = more.join(part.SerializeToString() for part in parts)
    read = [(one.text(1), one.flag(2)) for one in Message(content).message(1).messages(1)]
    theirs = api.StatusResponse.FromString(content).status.conditions
    assert read == [(one.type, one.status) for one in theirs] and len(read) == len(first + second)


@given(TEXTS, TEXTS, TEXTS)
def test_it_writes_as_the_library_does(image: str, username: str, password: str) -> None:
    auth = api.AuthConfig(username=username, password=password)
    wanted = api.PullImageRequest(image=api.ImageSpec(image=image), auth=auth)
    login = message(2, text(1, username) + text(2, password))
    assert message(1, text(1, image)) + login == wanted.SerializeToString()


def test_long_texts_are_written_as_the_library_does() -> None:
    for length in (127, 128, 16383, 16384, 1 << 21):
        wanted = api.ImageSpec(image="x" * length).SerializeToString()
        assert text(1, "x" * length) == wanted
        assert Message(wanted).text(1) == "x" * length


@given(st.binary(max_size=24))
def test_whatever_bytes_come_it_reads_them_as_the_library_does_or_refuses_them(
    content: bytes,
) -> None:
    try:
        theirs = api.ListImagesResponse.FromString(content)
    except TheirDecodeError:
        with pytest.raises(DecodeError):
            everything(content)
        return
    try:
        ours = everything(content)
    except DecodeError as problem:
        assert "wire type" in str(problem)  # a group
        return
    assert ours == [
        (one.id, tuple(one.repo_tags), tuple(one.repo_digests)) for one in theirs.images
    ]


def everything(content: bytes) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return [(one.text(1), one.texts(2), one.texts(3)) for one in Message(content).messages(1)]


@given(st.lists(IMAGES, min_size=1, max_size=3), st.data())
def test_a_message_cut_off_anywhere_is_the_librarys_or_refused(
    found: list[api.Image], data: st.DataObject
) -> None:
    written = api.ListImagesResponse(images=found).SerializeToString()
    cut = written[: data.draw(st.integers(0, len(written) - 1))]
    try:
        theirs = api.ListImagesResponse.FromString(cut)
    except TheirDecodeError:
        with pytest.raises(DecodeError):
            everything(cut)
    else:
        assert len(everything(cut)) == len(theirs.images)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x0a\xff\xff\xff\xff\x07", "2147483647 bytes are announced, and 0 are there"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "18446744073709551615 bytes"),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "more than 64 bits"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "without an end"),
        (b"\x08\x80", "without an end"),
        (b"\x09\0\0\0", "8 bytes are announced, and 3 are there"),
        (b"\x0d\0", "4 bytes are announced, and 1 are there"),
        (b"\x02\x00", "number 0"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0f", "wire type 7"),
    ],
)
def test_what_is_no_message_is_refused_with_a_reason(content: bytes, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        Message(content)


def test_a_text_that_is_not_utf8_is_refused_where_it_is_read() -> None:
    found = Message(b"\x0a\x01\xff\x10\x01")
    assert found.flag(2)
    with pytest.raises(DecodeError, match="field 1 is not UTF-8"):
        found.text(1)
