"""Methods that the paper compares with and that need texts but no training of the whole model: GPTQ and OmniQuant."""
