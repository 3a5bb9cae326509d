"""What the first bytes of a video file promise: its length, which FFmpeg does not hold a file to."""

from __future__ import annotations

from pathlib import Path


def claimed_bytes(path: Path) -> int:
    """Length that the head of an AVI or Matroska file gives; 0 where it gives none.

    FFmpeg reads such a file to its end and says nothing when that comes early.
    """
    with path.open("rb") as file:
        return claimed_length(file.read(HEAD_BYTES))


HEAD_BYTES = 128
"""As many of the first bytes as tell the length."""


def claimed_length(head: bytes) -> int:
    """``claimed_bytes`` of a file that begins with ``head``."""
    if head[:4] == b"RIFF":
        size = int.from_bytes(head[4:8], "little")
        # Writers disagree on whether these eight bytes count; streamed files hold 0 or all ones.
        return 0 if size in (0, 0xFFFFFFFF) else size
    if head[:4] == b"\x1a\x45\xdf\xa3":
        start, size = _ebml_size(head, 4)
        segment = start + size
        if head[segment : segment + 4] == b"\x18\x53\x80\x67":
            start, size = _ebml_size(head, segment + 4)
            return start + size if size else 0
    return 0


def _ebml_size(data: bytes, position: int) -> tuple[int, int]:
    """Where an EBML element's content starts and how long it is; length 0 where that is unknown (RFC 8794)."""
    first = data[position] if position < len(data) else 0
    width = 9 - first.bit_length()
    value = int.from_bytes(data[position : position + width], "big") & ((1 << 7 * width) - 1)
    return position + width, 0 if width > 8 or value == (1 << 7 * width) - 1 else value
