"""What was done with whose images, and by whom: messages, and their delivery."""
