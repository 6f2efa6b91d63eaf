"""Bytes from a tool to masked lines for a sink, however long the lines are."""

import codecs
from collections import deque
from typing import Final

from budcluster.kit.command import Line, LineSink, Stream
from budcluster.kit.redaction import Redactor

LONGEST_LINE: Final = 1024 * 1024
"""Characters of a line that are kept. The rest is dropped and the line says so."""
_MARGIN: Final = 64 * 1024
"""Characters taken off a cut line's end after masking: a secret that the cut went through lies there."""
_TAIL_LINES: Final = 50
_TAIL_WIDTH: Final = 2_000
"""Characters of a line in the tail."""


class Tail:
    """The last lines of a tool, shortened, for error texts."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)

    def add(self, text: str) -> None:
        """Keep this line and forget the oldest, where there are too many."""
        self._lines.append(text if len(text) <= _TAIL_WIDTH else text[:_TAIL_WIDTH] + "…")

    def lines(self) -> tuple[str, ...]:
        """The oldest first."""
        return tuple(self._lines)


class LineSplitter:
    """Cuts one stream of bytes into lines, masks them, and hands them on."""

    def __init__(
        self, stream: Stream, redactor: Redactor, tail: Tail, sink: LineSink | None, *, offset: int = 0
    ) -> None:
        self._stream = stream
        self._redactor = redactor.lines()
        self._tail = tail
        self._sink = sink
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._kept: list[str] = []
        self._kept_length = 0
        self._cut = False
        self.offset = offset
        """Bytes of the stream taken so far, unfinished line included."""

    def feed(self, data: bytes) -> None:
        """Take bytes as they come. Raises whatever the sink raises."""
        *ends, rest = data.split(b"\n")
        for piece in ends:
            self._keep(self._decoder.decode(piece, final=True))
            self.offset += len(piece) + 1
            self._emit()
        self.offset += len(rest)
        self._keep(self._decoder.decode(rest))

    def close(self) -> None:
        """Hand on what stands after the last line end."""
        self._keep(self._decoder.decode(b"", final=True))
        if self._kept:
            self._emit()

    def _keep(self, text: str) -> None:
        room = LONGEST_LINE + _MARGIN - self._kept_length
        self._cut = self._cut or len(text) > room
        if text and room > 0:
            self._kept.append(text[:room])
            self._kept_length += len(text[:room])

    def _emit(self) -> None:
        text = self._redactor.mask("".join(self._kept).rstrip("\r").replace("\0", ""))
        if self._cut:
            text = text[:-_MARGIN] + " … (line cut)"
        self._kept, self._kept_length, self._cut = [], 0, False
        self._tail.add(text)
        if self._sink is not None:
            self._sink(Line(self._stream, text, self.offset))
