"""What `tools/benchmark.py` measures, one benchmark a file, and how measurements are kept and shown."""
