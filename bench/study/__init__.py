"""How often a comparison is wrong, measured: equal kernels, kernels slower by a known share, and what other rules say of them."""
