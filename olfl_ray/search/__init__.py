"""Search: which settings an arm's next trial has, and which trials end early."""

__all__: list[str] = []
