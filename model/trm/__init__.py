"""TRM-ML: text-region matching for multi-label recognition with missing labels (Ma et al., ACM MM 2024)."""

__all__: list[str] = []
