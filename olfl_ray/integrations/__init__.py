"""Online steps in other libraries' training loops, a module each: `lightning` and `transformers`, extras of this package."""

__all__: list[str] = []
