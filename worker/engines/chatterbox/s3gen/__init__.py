"""S3Gen, from speech tokens to a wave: upstream's weights and arithmetic on this project's own layers."""
