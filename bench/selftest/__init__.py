"""The benchmark of the benchmark: plants faults and says what was caught."""
