"""The paper's tables: their rows, making what they lack, and showing them."""
