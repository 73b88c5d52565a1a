"""Device kernels compiled for GPUs that are not there: what their binaries hold, and what that limits."""
