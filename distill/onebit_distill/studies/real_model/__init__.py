"""`real-model`: the paper's table on one real model, every row a file that the engine measures."""
