"""What `tools/pretrain_clip.py` trains: objective, towers, and the worlds whose scenes it is shown."""
