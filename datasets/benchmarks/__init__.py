"""Six benchmarks from their official downloads, one a file; each gives `Lists`."""
