"""The relay program of punchbridge: reservations and circuits as pure tables, the hop service, and the program."""

if __name__ != "punchbridge_relay":
    raise ImportError(
        "this package is `punchbridge_relay`; import it by that name (the checkout's folder src is its import root)"
    )
