"""pynetdicom's association, driven by one blocking thread."""
