"""From speech tokens to a wave: upstream's S3Gen, its weights and its arithmetic, on oneDNN's products."""
