"""What a student learns from: the teacher, texts that it generates, documents as tokens, and the order of the blocks."""
