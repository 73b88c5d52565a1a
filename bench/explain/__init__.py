"""What approximate attention kernels do to the attention itself: their maps beside the exact ones."""
