"""Simulated disc publishers that take orders as the real ones do, well and badly."""
