"""The audit trail: who had what, as DICOM audit messages (PS3.15 Section A.5) by syslog."""
