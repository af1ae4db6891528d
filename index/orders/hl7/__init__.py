"""HL7 v2: orders and patient updates, as messages over MLLP or from files."""
