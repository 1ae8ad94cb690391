"""The DICOM upper layer (PS3.8) and the messages on it (PS3.7)."""
