"""Layers by operator, each in float32, bfloat16 and int8."""
