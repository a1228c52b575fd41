-- Stores a claimed job that is to be spoken in segments, and returns the numbers of those that are kept for it already;
-- segments of another segmentation, which is the field `plan`, are dropped. Returns false if the claim no longer holds.
local id, attempts, segmentation, content = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if not holds(id, attempts) then return false end
local job = job_prefix .. id
local caller, current, reserved = unpack(redis.call('HMGET', job, 'caller', 'plan', 'reserved'))
if current ~= segmentation then
    redis.call('DEL', segments_prefix .. id)
    set_size(id, caller or '', tonumber(reserved or 0), 0)
    redis.call('HSET', job, 'kept', 0, 'playable', 0, 'playable_size', 0)
end
redis.call('HSET', job, 'plan', segmentation, 'content', content)
return redis.call('HKEYS', segments_prefix .. id)
