"""Scripts beside `train.py` and `test.py`; each says at its top what it does and how it is called."""
