"""What the C library does with memory that reads have used."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

READS = """
import resource
from punchbridge.tasks import heap

if {kept}:
    heap._keep_for_reads()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    held = [b"x" * 100_000 for _ in range(20)]
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, kept: bool) -> int:
    """Pages that 200 rounds of twenty reads had to get from the kernel, in an interpreter of their own."""
    done = subprocess.run([sys.executable, "-c", READS.format(kept=kept)], text=True, capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other rules for their heap")
def test_reads_use_the_same_pages_again() -> None:
    assert faults(kept=False) > 5_000, "the rule that this is about is gone"
    assert faults(kept=True) < 1_000
