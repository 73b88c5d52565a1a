"""softmax(QKᵀ/√d)V: the problem and its implementations."""
