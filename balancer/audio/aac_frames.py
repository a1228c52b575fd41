"""AAC frames of one size: a fill element makes a frame as long as the others, so that a file has a constant bit rate.

ADTS states no length. A player divides the file's size by the bit rate of the first frames, which are silence more
often than not: with frames of different sizes it shows a wrong length.
"""

from __future__ import annotations

FRAME_SAMPLES = 1024
"""Samples in a frame of AAC-LC."""

# Elements of a raw_data_block (ISO/IEC 14496-3, 4.4.2): three bits name each; a fill element has a count of bytes in
# four bits, which eight more continue, and its bytes; the block ends with END, and zeros up to the next whole byte.
_END, _FILL, _ID_BITS = 0b111, 0b110, 3
_COUNT_BITS, _ESCAPE_BITS = 4, 8
_ESCAPE_COUNT = 15
_MAX_COUNT = _ESCAPE_COUNT + 255 - 1


def frame_bytes(bit_rate: int, sample_rate: int) -> int:
    """Largest size of a frame at a strict bit rate."""
    return -(-(bit_rate * FRAME_SAMPLES // sample_rate) // 8)


def fill(frame: bytes, size: int) -> bytes:
    """The frame, of one raw_data_block, with a fill element before its end that makes it `size` bytes long.

    A frame that is too long, or to which one element cannot add enough, comes back as long as can be.
    """
    if len(frame) >= size:
        return frame
    bits = int.from_bytes(frame)
    zeros = (bits & -bits).bit_length() - 1
    content = bits >> zeros + _ID_BITS
    room = 8 * size - (8 * len(frame) - zeros)
    count = (room - _ID_BITS - _COUNT_BITS) // 8
    if count < _ESCAPE_COUNT:
        element, length = _FILL << _COUNT_BITS | count, _ID_BITS + _COUNT_BITS
    else:
        length = _ID_BITS + _COUNT_BITS + _ESCAPE_BITS
        count = min((room - length) // 8, _MAX_COUNT)
        element = (_FILL << _COUNT_BITS | _ESCAPE_COUNT) << _ESCAPE_BITS | count - _ESCAPE_COUNT + 1
    filled = ((content << length | element) << 8 * count) << _ID_BITS | _END
    used = 8 * len(frame) - zeros + length + 8 * count
    return (filled << -used % 8).to_bytes(-(-used // 8))
