"""The buffer that libcurl sends a request from, and how little memory an open stream holds of it.

libcurl takes the buffer from calloc and keeps it until the answer has ended.  What lies below glibc's threshold for
mmap comes from the heap and is cleared, so that each page of it is in memory; what lies above comes as pages that are
in memory once they have been written to, and a short prompt writes to one.  glibc would raise the threshold with each
larger block that is freed, such as another call's prompt; once it has been set it stays (mallopt(3), M_MMAP_THRESHOLD).
Then large blocks also leave no holes in the heap: it stays small where calls come and go for weeks.

Holes that thousands of ended streams leave are another matter: glibc would put new send buffers there, cleared, and the
heap would grow for all else with each such wave.  So handles are kept with their buffers, however their exchange has
ended: about 10 KB for each that ever ran at once.  Other C libraries have nothing to be set.
"""

from __future__ import annotations

import ctypes

#: Bytes that libcurl can send at once.
SEND_BYTES = 256 * 1024

#: Bytes of a request after which a buffer has so many pages in memory that it is not kept for the next call.
LARGE_BYTES = 32 * 1024

#: `M_MMAP_THRESHOLD` of glibc's malloc.h.
_M_MMAP_THRESHOLD = -3


def keep_untouched_pages_out() -> None:
    """Have the C library leave send buffers uncleared; it holds for the process, and again is no harm."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, SEND_BYTES)
