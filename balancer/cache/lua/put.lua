-- Stores an entry, then evicts others until all of them fit within `limit` bytes: each time the least recently used
-- one of the caller whose entries are largest together; entries without a caller come first.
local cache_key, content = ARGV[2], ARGV[3]
local now, lifetime_ms, limit, caller = ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]

-- Not always: a script that has begun with a deletion is not refused by a Redis without memory.
if redis.call('HEXISTS', sizes, cache_key) == 1 then drop(cache_key) end
redis.call('SET', prefix .. cache_key, content, 'PX', lifetime_ms)
redis.call('INCRBY', total, #content)
redis.call('HSET', sizes, cache_key, #content)
redis.call('HSET', owners, cache_key, caller)
redis.call('ZINCRBY', owned, #content, caller)
redis.call('ZADD', used, now, cache_key)
redis.call('ZADD', owned .. ':' .. caller, now, cache_key)
while tonumber(redis.call('GET', total)) > limit do
    local owner = redis.call('ZREVRANGE', owned, 0, 0)[1]
    local oldest = redis.call('ZRANGE', used, 0, 0)[1]
    if not oldest then break end
    if owner and redis.call('HGET', owners, oldest) then
        local own = redis.call('ZRANGE', owned .. ':' .. owner, 0, 0)[1]
        if own then
            oldest = own
        else  -- a host of an earlier version has evicted them
            redis.call('ZREM', owned, owner)
        end
    end
    drop(oldest)
end
