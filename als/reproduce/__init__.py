"""The paper's tables made anew: which runs they need, what is missing, and doing it."""
