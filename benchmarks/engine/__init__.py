"""The online step timed against a plain step and against other packages' steps."""
