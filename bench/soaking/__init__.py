"""A long, mixed load, and what it does to the server. ``bench.soak`` is the program."""
