"""Runs one case of the official client again and again on one channel: its own code for channel, stub and case.

    repeat.py SECONDS --server_host HOST --server_port PORT --test_case CASE

Prints the number of runs and ends with 0; the first run that fails ends it with that run's traceback.
"""

from __future__ import annotations

import sys
import time

from tests.interop import client  # type: ignore[attr-defined]  # of the package that fetch.py unpacks

PAUSE = 0.005
"""Seconds between two runs: a call that is cancelled before it is sent would otherwise be made 3000 times a second."""


def main() -> int:
    seconds = float(sys.argv.pop(1))
    args = client.parse_interop_client_args()
    channel = client._create_channel(args)
    stub, case = client.create_stub(channel, args), client._test_case_from_arg(args.test_case)
    began, runs = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        case.test_interoperability(stub, args)
        runs += 1
        time.sleep(PAUSE)
    channel.close()
    print(runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
