"""The process: listener, health, HTTP, systemd."""
