"""How reports grow with a run: made-up runs of several sizes, and what their tables and page cost."""
