"""The gate before any timing: whether a kernel is right, and whether it is what its name says."""
