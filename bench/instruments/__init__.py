"""What reads the machine: clocks, memory, energy, ceilings; each behind a small interface."""
