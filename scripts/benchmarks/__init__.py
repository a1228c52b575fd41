"""The benchmarks, each of which is run by a command in `scripts/`.

balancer               `scripts/bench_balancer`: the cost of the balancer itself
cache                  `scripts/bench_cache`: hits and misses of the audio cache
text                   `scripts/bench_text`: the text front end
workers                `scripts/bench_workers`: pinned workers against one model behind one lock
engine                 `scripts/bench_engine`: the batched engine against upstream's own classes
backends               `scripts/bench_decode`: inference runtimes
balancer_comparison    `scripts/bench_scheduling`: Chorus against HAProxy
minimal_client         a client for the first two, and the servers that they measure
burst                  utterances that are sent all at once, for `workers` and `engine`
locked_server          the server with one model behind one lock
"""
