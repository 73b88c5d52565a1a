"""Do other tools measure the same? The same callables timed by kerneldyno's own method and by its peers, in one run."""
