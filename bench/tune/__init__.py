"""Tiles of our kernels searched for on a device: candidates are pruned, checked and measured, and what wins is stored as data."""
