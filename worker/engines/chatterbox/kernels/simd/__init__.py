"""The few inner loops that no library has, written in LLVM's vectors of 512 bits: 16 numbers at a time, for AVX-512.

Numba compiles Python to machine code but knows neither vectors nor the processor's dot products of bytes (VNNI).
What is here are functions to call from within code that Numba compiles. They take addresses and counts, and check
nothing. Those of whole numbers need AVX512-VNNI; LLVM makes what it can of the others on every processor.
"""
