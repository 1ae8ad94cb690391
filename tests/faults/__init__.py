"""A package, so that its house ends with its last test."""
