-- Stores an entry, then evicts the least recently used ones until all of them fit within `limit` bytes.
local used, sizes, total = KEYS[1], KEYS[2], KEYS[3]
local prefix, cache_key, content = ARGV[1], ARGV[2], ARGV[3]
local now, lifetime_ms, limit = ARGV[4], ARGV[5], tonumber(ARGV[6])

redis.call('SET', prefix .. cache_key, content, 'PX', lifetime_ms)
redis.call('INCRBY', total, #content - tonumber(redis.call('HGET', sizes, cache_key) or 0))
redis.call('HSET', sizes, cache_key, #content)
redis.call('ZADD', used, now, cache_key)
while tonumber(redis.call('GET', total)) > limit do
    local oldest = redis.call('ZPOPMIN', used)[1]
    if not oldest then break end
    redis.call('DEL', prefix .. oldest)
    redis.call('DECRBY', total, tonumber(redis.call('HGET', sizes, oldest) or 0))
    redis.call('HDEL', sizes, oldest)
end
