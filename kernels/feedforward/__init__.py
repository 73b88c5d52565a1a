"""Norm → W1 (+ gate) → activation → W2 (+ residual): the problem and its implementations."""
