"""Training, evaluation, checkpoints, logs and results of any method; imports no other folder of the project."""
