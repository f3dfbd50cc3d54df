"""Benchmarks of recognition with missing labels: the protocols, and a file for each data set that reads its files."""
