-- Stores a job after an attempt to deliver its webhook. The next attempt is due at `due`; '': there is none.
local id, content, due = ARGV[1], ARGV[2], ARGV[3]

local job = job_prefix .. id
local caller = redis.call('HGET', job, 'caller')
if redis.call('EXISTS', job) == 0 then return end
set_webhook(caller or '', id, due)
redis.call('HSET', job, 'content', content)
