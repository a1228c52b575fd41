-- Puts delayed jobs that have come due back on the stream, at most 100 at a time.
local stream, delayed = KEYS[1], KEYS[5]
local now = ARGV[1]

for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 100)) do
    redis.call('ZREM', delayed, id)
    redis.call('XADD', stream, '*', 'id', id)
end
