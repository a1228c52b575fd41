"""Layers, a module for each operator; each is made for float32, bfloat16 or int8."""
