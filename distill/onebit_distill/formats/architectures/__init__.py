"""One file for each kind of model: what Hugging Face's configs, GGUF's metadata and both sides' names mean."""
