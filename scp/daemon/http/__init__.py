"""The HTTP server: its sockets and connections, monitoring, and the application of all that is served."""
