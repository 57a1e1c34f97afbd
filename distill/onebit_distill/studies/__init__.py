"""Not needed to make a model: the comparisons of the paper (`baselines`) and how the default model was made (`stories`)."""
