"""What lies in data_dir: job folders, the shelf of discs, reports, and how long each is kept."""
