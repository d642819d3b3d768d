"""The other side of :class:`core.benchmark.core_latency.CoreDistance`: a script of its own.

``python core_latency_echo.py FILE_DESCRIPTOR``: each line on standard input is the number of a
core. The process binds itself to that core and answers each byte that the other side writes into
the shared memory by writing it into another cache line, until it is told to stop. It imports
nothing of Paddock, so that it starts at once and stays small.
"""

import mmap
import os
import sys
import time

ANSWER_AT = 128
"""Byte for the answers: far enough that no processor fetches it together with byte 0."""

STOP = 255
"""The word that ends a conversation."""

_LONGEST_S = 0.5
"""Of a conversation: who speaks to it may be gone."""

_LOOK_AT_CLOCK = 4096
"""Turns between two looks at the clock."""


def main() -> None:
    """Serve until standard input ends."""
    with mmap.mmap(int(sys.argv[1]), mmap.PAGESIZE) as shared:
        for line in sys.stdin:
            os.sched_setaffinity(0, {int(line)})
            _answer(shared)


def _answer(shared: mmap.mmap) -> None:
    ends, turns, last = time.monotonic() + _LONGEST_S, 0, 0
    while True:
        said = shared[0]
        if said != last:
            shared[ANSWER_AT] = last = said
            if said == STOP:
                return
        turns += 1
        if not turns % _LOOK_AT_CLOCK and time.monotonic() > ends:
            return


if __name__ == "__main__":
    main()
