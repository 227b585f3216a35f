"""Progress of long work, for somebody who waits: one line on stderr, and only where stderr is a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

SHOWN_AFTER_S = 1.0
"""What is done sooner than this shows nothing."""


@contextlib.contextmanager
def progress(doing: str) -> Iterator[Callable[[int, int], object] | None]:
    """Give what `_core` wants as `progress`: None where nobody looks. The line is gone afterwards."""
    stream = sys.stderr
    if stream is None or not stream.isatty():
        yield None
        return
    started = time.monotonic()
    width = 0

    def show(done: int, whole: int) -> None:
        nonlocal width
        if time.monotonic() - started < SHOWN_AFTER_S or not whole:
            return
        line = f"{doing}: {100 * done // whole} % of {whole / (1 << 20):,.1f} MiB"
        stream.write("\r" + line.ljust(width))
        stream.flush()
        width = max(width, len(line))

    try:
        yield show
    finally:
        if width:
            stream.write("\r" + " " * width + "\r")
            stream.flush()
