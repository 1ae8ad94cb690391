"""Measurements of mkiso, side by side with what a hospital would otherwise use: `python -m bench`."""
