-- Returns the ids of at most 100 jobs whose webhooks are due, and postpones these until `lease_end`, so that no other
-- host delivers them meanwhile.
local webhooks = KEYS[8]
local now, lease_end = ARGV[1], ARGV[2]

local ids = redis.call('ZRANGEBYSCORE', webhooks, '-inf', now, 'LIMIT', 0, 100)
for _, id in ipairs(ids) do redis.call('ZADD', webhooks, lease_end, id) end
return ids
