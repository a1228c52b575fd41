"""Parts that several commands share: servers under test, checkpoints, memory and noise of a machine, Markdown tables.

servers          starts Chorus, or one model behind one lock, and ends it again
checkpoints      checkpoints of random weights, made on demand by `make_checkpoint`
stub_worker      a worker that follows the worker contract and answers silence
memory, noise    memory of the processes of a server; CPU time that other programs take
redis_server     a Redis server for one run
check            one condition and whether it holds
recogniser       the words that a speech recogniser understands of an audio file
error_table, kernel_table
                 print the tables of errors and of kernels that docs/api.md and docs/engine.md have
markdown         tables and numbers of the reports
console          how a command runs, reports its progress and fails
"""
