"""Vector code that no library has, written as LLVM instructions on 512-bit vectors of 16 numbers.

Numba compiles Python to machine code, but it knows neither vectors nor the processor's integer dot products. The
functions of this package can be called from code that Numba compiles. They take addresses and counts, and check none
of them. LLVM splits the vectors where registers are narrower; `targets` says how many a block of a product may take.
The integer dot products need AVX2; all else runs on every processor.
"""
