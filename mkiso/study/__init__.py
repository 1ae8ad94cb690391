"""The room of the question and its answer: whose studies they are, what the PACS holds of them, and the gate that
nothing incomplete passes.
"""
