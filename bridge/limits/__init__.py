"""Every bound of the library with its reason, a module for each room. Bytes and seconds unless the name says otherwise.

`relay` and `node` keep their own in a `limits.py` of the same form.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
