"""CPU kernels, compiled when first used: packed GEMM, quantization, attention, feed-forward, layer norm, activations.

`disk_cache` keeps the compiled code, which `compile_lock` has made once per host, `weights_cache` the packed weights;
processes that want the same take turns by `file_lock`.
"""
