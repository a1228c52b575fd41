-- Returns an entry and notes that it was used. Where it has expired, removes it from the index and returns false.
local used, sizes, total, owners, owned = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local prefix, cache_key, now = ARGV[1], ARGV[2], ARGV[3]

local content = redis.call('GET', prefix .. cache_key)
local owner = redis.call('HGET', owners, cache_key)
if content then
    redis.call('ZADD', used, 'XX', now, cache_key)
    if owner then
        redis.call('ZADD', owned .. ':' .. owner, 'XX', now, cache_key)
    end
    return content
end
local size = redis.call('HGET', sizes, cache_key)
if size then
    redis.call('DECRBY', total, size)
    redis.call('HDEL', sizes, cache_key)
    redis.call('HDEL', owners, cache_key)
    redis.call('ZREM', used, cache_key)
    if owner then
        redis.call('ZREM', owned .. ':' .. owner, cache_key)
        redis.call('ZINCRBY', owned, -size, owner)
    end
end
return false
