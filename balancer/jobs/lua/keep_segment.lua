-- Keeps the audio of a segment of a claimed job, and returns 1; returns 0 if the claim no longer holds.
local id, attempts, number, audio = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if not holds(id, attempts) then return 0 end
-- First, so that a full Redis refuses it before anything has changed.
if redis.call('HSET', segments_prefix .. id, number, audio) == 1 then
    local job = job_prefix .. id
    redis.call('HINCRBY', job, 'size', #audio)
    redis.call('HINCRBY', job, 'kept', 1)
    count_size(redis.call('HGET', job, 'caller') or '', #audio)
end
return 1
