"""Listening sockets."""

import errno
import socket
from typing import Any

from index import CannotListen

# Connections that the kernel may hold for us before we accept them; the kernel has a limit of its own.
BACKLOG = 1024


def listen(host: str, port: int, section: str) -> socket.socket:
    """Return a socket that listens there; the keys of host and port begin with `section`, as `http.`.

    Raises CannotListen.
    """
    listening = bind(host, port, section)
    try:
        listening.listen(BACKLOG)
    except OSError as error:  # another process listens there since it was bound
        listening.close()
        raise CannotListen(section, host, port, error) from error
    return listening


def bind(host: str, port: int, section: str) -> socket.socket:
    """Return a socket that is bound there and does not listen: no caller is accepted. Raises CannotListen."""
    try:
        return _bind(host, port)
    except OSError as error:
        raise CannotListen(section, host, port, error) from error
    except UnicodeError as error:  # not a name of IDNA
        raise CannotListen(section, host, port, OSError(errno.EINVAL, str(error))) from error


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """Return the family and address that are bound for a host. Raises OSError, UnicodeError."""
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return family, address


def _bind(host: str, port: int) -> socket.socket:
    family, address = resolve(host, port)
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening
