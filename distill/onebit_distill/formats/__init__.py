"""Files of others and ours: Hugging Face folders, GGUF, llama2.c, `.obt`. Nothing here trains."""
