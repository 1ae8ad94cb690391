"""The Storage SCP: a process of its own that stores what a job expects, and nothing else."""
