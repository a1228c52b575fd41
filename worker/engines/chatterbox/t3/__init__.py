"""T3, the decoder of speech tokens: batched decode over a KV cache, sampling, the alignment guard."""
