"""The default model from texts to `.obt`: TinyStories with capitals restored, a teacher from nothing, its student."""
