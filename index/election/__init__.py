"""Where instances disagree: which value stands (values.py), and which patient a study has (patients.py)."""
