"""The attack test, `scripts/attack`: a server of its own is attacked, while another caller asks for cached answers.

attack        an attack, what must hold of it, and its outcome
catalogue     all attacks
runner        runs attacks one after another, and checks what others noticed and what is left behind
target        the server under attack, and what it is started with
bystander     the other caller, and what it noticed; steady_client is its process
resources     memory and descriptors of the balancer while it is attacked
wire          raw HTTP over TCP, from any loopback address
report        the table and the JSON file of the outcomes

connections, messages, readers, encoders, jobs, job_store, webhooks, cache, redis_faults, workers, keys, voices,
processes     the attacks, by kind
fake_worker   a worker that breaks the contract
receivers     receivers of webhooks that are slow, endless or good
log_pipe      a pipe for the server's output that nobody needs to read
"""
