"""What was left out of a resource, and why."""

MAX_SUBJECTS = 20
"""Subjects named for one reason: a series of 100,000 bad instances must not make 100,000 sentences."""


class Issues:
    """Collects issues by reason. Reasons are constant sentences and subjects are UIDs: no patient data."""

    def __init__(self) -> None:
        self._subjects: dict[str, list[str]] = {}
        self._more: dict[str, int] = {}

    def add(self, subject: str, reason: str) -> None:
        """Add an issue; the subject is a text such as "series 1.2.3"."""
        subjects = self._subjects.setdefault(reason, [])
        if len(subjects) < MAX_SUBJECTS:
            if subject not in subjects:
                subjects.append(subject)
        else:
            self._more[reason] = self._more.get(reason, 0) + 1

    def sentences(self) -> list[str]:
        """Return all issues, those of one reason together, reasons in the order added."""
        sentences = []
        for reason, subjects in self._subjects.items():
            sentences += [f"{subject}: {reason}" for subject in subjects]
            if reason in self._more:
                sentences.append(f"{self._more[reason]} more: {reason}")
        return sentences
