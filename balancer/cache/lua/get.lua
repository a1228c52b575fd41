-- Returns an entry and notes that it was used. Where it has expired, removes it from the index and returns false.
local used, sizes, total = KEYS[1], KEYS[2], KEYS[3]
local prefix, cache_key, now = ARGV[1], ARGV[2], ARGV[3]

local content = redis.call('GET', prefix .. cache_key)
if content then
    redis.call('ZADD', used, 'XX', now, cache_key)
    return content
end
local size = redis.call('HGET', sizes, cache_key)
if size then
    redis.call('DECRBY', total, size)
    redis.call('HDEL', sizes, cache_key)
    redis.call('ZREM', used, cache_key)
end
return false
