"""Benchmarks: the project beside the limit of the machine, in one run. No test asserts a time."""

import os

# Children are started while a channel is open. They begin a program of their own at once, so
# gRPC has nothing to prepare for them; it would only complain that it could not.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
