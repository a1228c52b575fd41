"""Vector code that no library has, written as LLVM instructions on 512-bit vectors of 16 numbers, for AVX-512.

Numba compiles Python to machine code, but it knows neither vectors nor the processor's int8 dot products (VNNI). The
functions of this package can be called from code that Numba compiles. They take addresses and counts, and check none of
them. The integer dot products need AVX512-VNNI; all else runs on every processor, for which LLVM splits the vectors.
"""
