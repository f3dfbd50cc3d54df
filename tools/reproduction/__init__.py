"""The tables of the paper: what they consist of, running what is missing, and what came out; `tools/reproduce.py`."""
