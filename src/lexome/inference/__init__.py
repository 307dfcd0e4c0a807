"""Running models over files: embed, score, generate, in batches that change no result."""
