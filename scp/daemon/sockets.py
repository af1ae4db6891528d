"""Listening sockets."""

import errno
import socket

from index import CannotListen

# Connections that the kernel may hold for us before we accept them; the kernel has a limit of its own.
BACKLOG = 1024


def bind(host: str, port: int, section: str) -> socket.socket:
    """Return a socket that listens there; the keys of host and port begin with `section`, as `http.`.

    Raises CannotListen.
    """
    try:
        return _bind(host, port)
    except OSError as error:
        raise CannotListen(section, host, port, error) from error
    except UnicodeError as error:  # not a name of IDNA
        raise CannotListen(section, host, port, OSError(errno.EINVAL, str(error))) from error


def _bind(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
