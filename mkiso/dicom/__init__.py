"""The room that speaks DICOM with the PACS."""

from pydicom import config

# pydicom's warning of a wrong value quotes it, and it may be a birth date or a patient ID: neither may reach a log.
config.settings.reading_validation_mode = config.IGNORE
