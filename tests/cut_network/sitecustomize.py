"""Cut the network of a process and its children: put this folder first on ``PYTHONPATH``.

Every address but this computer's own is refused, and noted in the file that ``NETWORK_ASKED``
names. Python's own sockets are watched, by an audit hook; ZeroMQ's, which kernels use, are not.
"""

import os
import sys

LOOPBACK = ("127.0.0.1", "::1", "localhost", "", os.uname().nodename)


def watch(event: str, args: tuple) -> None:
    """Refuse to ask another computer (an audit hook, which no code can take away)."""
    if event == "socket.connect" and isinstance(args[1], tuple):
        asked = args[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        asked = args[0] if event != "socket.sendto" else args[1][0]
    else:
        return
    note = os.environ.get("NETWORK_ASKED")
    if note and asked is not None and asked not in LOOPBACK:
        with open(note, "a", encoding="utf-8") as stream:
            stream.write(f"{asked}\n")
        raise ConnectionRefusedError(f"the network is cut: {asked}")


sys.addaudithook(watch)
