"""The rows of the paper."""
