"""What the system says of memory, where it does (Linux)."""

from pathlib import Path

__all__ = ["available", "entry"]

MEMORY = Path("/proc/meminfo")


def available() -> float | None:
    """Bytes that programs may still take; None where the system does not say."""
    try:
        return entry(MEMORY, "MemAvailable")
    except (OSError, KeyError):
        return None


def entry(file: Path, key: str) -> float:
    """Bytes of an entry in kB; raises OSError or KeyError."""
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
    return 1024 * float(lines[key].split()[0])
