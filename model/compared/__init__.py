"""Methods that RAM is compared with, each in a file of its own; what they are called is in `model/build.py`."""

__all__: list[str] = []
