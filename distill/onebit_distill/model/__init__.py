"""What is trained and taught: the config, Llama with every kind of linear, and how a student starts (SVID)."""
