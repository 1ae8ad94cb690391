"""The configuration: its models, how it is read, and what a running service goes by."""
