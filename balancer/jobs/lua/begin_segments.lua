-- Stores a claimed job that is to be spoken by a plan, and returns the numbers of the segments that are kept for it; those
-- of another plan are dropped. Returns false if the claim no longer holds.
local id, attempts, plan, content = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if not holds(id, attempts) then return false end
local job = job_prefix .. id
local caller, current, reserved = unpack(redis.call('HMGET', job, 'caller', 'plan', 'reserved'))
if current ~= plan then
    redis.call('DEL', segments_prefix .. id)
    set_size(id, caller or '', tonumber(reserved or 0), 0)
    redis.call('HSET', job, 'kept', 0, 'playable', 0, 'playable_size', 0)
end
redis.call('HSET', job, 'plan', plan, 'content', content)
return redis.call('HKEYS', segments_prefix .. id)
