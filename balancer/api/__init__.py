"""The HTTP surfaces, one module each: parse, call the service, answer. No logic of their own."""
