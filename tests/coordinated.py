"""Processes of one training."""

from __future__ import annotations

import socket


def coordinated(count: int) -> list[dict[str, str]]:
    """The environment of each of so many processes that find each other on this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
    return [{**shared, "JAX_PROCESS_ID": str(rank)} for rank in range(count)]
