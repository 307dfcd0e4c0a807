"""Every genomic language model behind one interface."""

__version__ = "0.1.0"
