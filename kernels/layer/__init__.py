"""A whole encoder layer, composed of attention and feed-forward kernels."""
