"""UTF-8 with or without a byte order mark, written back as it was read."""

from __future__ import annotations

import codecs

MARK = codecs.BOM_UTF8


def encoding(content: bytes) -> str:
    """The codec for a file's text: it takes a mark off when reading, and puts it back."""
    return "utf-8-sig" if content.startswith(MARK) else "utf-8"
