"""What the index tells whoever counts: nothing at all by default."""


class Observer:
    """Is told what happens, in the thread in which it happens: its methods are quick and never raise."""

    def committed(self, instances: int, seconds: float) -> None:
        """A group of instances has been committed."""

    def published(self, seconds: float) -> None:
        """A study has been published."""

    def publication_failed(self) -> None:
        """A study could not be published; it will be tried again."""
