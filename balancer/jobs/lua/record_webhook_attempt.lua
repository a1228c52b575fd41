-- Stores a job after an attempt to deliver its webhook. The next attempt is due at `due`; '': there is none.
local webhooks = KEYS[8]
local job_prefix, id, content, due = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local job = job_prefix .. id
if redis.call('EXISTS', job) == 0 then return end
redis.call('HSET', job, 'content', content)
if due == '' then redis.call('ZREM', webhooks, id) else redis.call('ZADD', webhooks, due, id) end
