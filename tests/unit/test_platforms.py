"""Platforms by their names, as settings and options say them."""

from __future__ import annotations

import jsonschema
import pytest

from moorage import platforms
from moorage.configuration import parsing, schema
from moorage.errors import Refused


def test_each_platform_is_taken_once_by_its_usual_name() -> None:
    assert platforms.parse("linux/amd64, linux/arm64/v8,linux/arm64") == (
        "linux/amd64",
        "linux/arm64",
    )
    assert platforms.parse("linux/AMD64,linux/aarch64,linux/x86_64") == (
        "linux/amd64",
        "linux/arm64",
    )
    assert platforms.PLATFORMS["linux/arm/v7"].described == {
        "os": "linux",
        "architecture": "arm",
        "variant": "v7",
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("linux/amd65", "did you mean linux/amd64?"),
        ("linux/amd64,plan9/mips", "known: linux/amd64, linux/arm64"),
        ("amd64", "did you mean linux/amd64?"),
        ("linux/AMD65", "did you mean linux/amd64?"),
        ("linux/amd64,,", "known: "),
    ],
)
def test_an_unknown_platform_is_named_with_those_there_are(text: str, why: str) -> None:
    with pytest.raises(Refused, match="invalid --platform") as refusal:
        platforms.parse(text)
    assert why in refusal.value.cause


def test_settings_take_platforms_and_refuse_unknown_ones() -> None:
    found = parsing.parse({"image": {"platforms": "linux/amd64,linux/arm64"}})
    assert found.image.platforms == ("linux/amd64", "linux/arm64")
    spelt = "linux/AMD64, linux/aarch64,linux/arm64/v8,linux/armhf"
    found = parsing.parse({"image": {"platforms": spelt}})
    assert found.image.platforms == platforms.parse(spelt)
    with pytest.raises(Refused) as refusal:
        parsing.parse({"image": {"platforms": ["linux/mips"]}})
    assert "image.platforms" in str(refusal.value)
    assert "'linux/mips'" in refusal.value.cause


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ("linux/amd64, linux/arm64", True),
        ("", True),
        (["linux/arm64", "linux/arm64/v8"], True),
        ("linux/arm64/v8,linux/aarch64", True),
        ("linux/amd6", False),
    ],
)
def test_editors_are_told_the_same(value: object, right: bool) -> None:
    found = jsonschema.Draft7Validator(schema.schema())
    assert found.is_valid({"image": {"platforms": value}}) is right
