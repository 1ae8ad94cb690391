"""The archive: which studies a night owes, the ledger of what lies on which volume, and the proof that a disc still
holds it.
"""
