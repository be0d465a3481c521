"""Training with lightning: the module holds loss and schedule, `run` starts and resumes."""
