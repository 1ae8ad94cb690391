"""The worker: runs flows in children of a warm process and wakes by events, so that a run starts well under a second
after it was asked for.
"""
