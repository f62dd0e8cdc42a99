"""Why tests of QUIC are left out where its engine is missing."""

from __future__ import annotations

from typing import Final

NOT_BUILT: Final = "the QUIC engine is not built: scripts/setup-env builds it where cargo is"
