"""Units that settings and limits are written in."""

from __future__ import annotations

from typing import Final

#: Bytes of a mebibyte (IEC 80000-13).  Every `*_mb` setting counts these, not millions of bytes.
MIB: Final = 1024 * 1024
