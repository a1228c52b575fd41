"""Compiled CPU kernels: packed GEMM, quantization, attention, activations."""
