"""Published methods to compare RAM with, each on the frozen CLIP that RAM has; `docs/methods.md` lists them."""

__all__: list[str] = []
