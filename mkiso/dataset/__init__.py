"""Encoded data sets: where their elements lie, the header, and the Part 10 file around them."""

from pydicom import config

# pydicom's warning of a wrong value quotes it, and it may be a birth date or a patient ID: neither may reach a log.
config.settings.reading_validation_mode = config.IGNORE
