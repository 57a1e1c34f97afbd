"""Making 1-bit language models: SVID starts, knowledge transfer and export to `.obt`."""

__version__ = "0.1.0"
