"""What a laid-out disc becomes: one module a format, its writer and an independent reader for the proof."""
