"""Contract suites: what every implementation of a part must do, as test classes that a user's own implementation inherits."""

__all__: list[str] = []
