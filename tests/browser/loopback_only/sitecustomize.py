"""Python runs this at its start when this folder is on PYTHONPATH: no socket may lead beyond this computer.

Every attempt is refused and noted in the file that LOOPBACK_ONLY_LOG names.
"""

import os
import sys

LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


def refuse(event: str, arguments: tuple) -> None:
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else ""  # else a local (Unix) socket
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host and not host.startswith(LOOPBACK):
        with open(os.environ["LOOPBACK_ONLY_LOG"], "a") as log:
            print(event, host, file=log)
        raise OSError(f"{host} is beyond this computer")


sys.addaudithook(refuse)
