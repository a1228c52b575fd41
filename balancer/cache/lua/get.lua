-- Returns an entry and notes that it was used. Where it has expired, removes it from the index and returns false.
local cache_key, now = ARGV[2], ARGV[3]

local content = redis.call('GET', prefix .. cache_key)
if content then
    redis.call('ZADD', used, 'XX', now, cache_key)
    local owner = redis.call('HGET', owners, cache_key)
    if owner then
        redis.call('ZADD', owned .. ':' .. owner, 'XX', now, cache_key)
    end
    return content
end
if redis.call('HEXISTS', sizes, cache_key) == 1 then drop(cache_key) end
return false
