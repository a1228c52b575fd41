-- Keeps the audio of a segment of a claimed job, and returns {1}; returns {0} if the claim no longer holds, or
-- {0, 1, whether the caller's own share is full, used, limit, needed} if the job needs more than was reserved for it, and
-- there is no room.
local id, attempts, number, audio = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local max_size, max_own_size = tonumber(ARGV[5]), tonumber(ARGV[6])

if not holds(id, attempts) then return {0} end
if redis.call('HEXISTS', segments_prefix .. id, number) == 1 then return {1} end
local job = job_prefix .. id
local caller, counted, reserved, kept_size = unpack(redis.call('HMGET', job, 'caller', 'size', 'reserved', 'kept_size'))
caller, counted, kept_size = caller or '', tonumber(counted or 0), tonumber(kept_size or 0) + #audio
if kept_size > counted then
    local full = check_audio(caller, kept_size, counted, max_size, max_own_size)
    if full then return {0, unpack(full)} end
end
-- First, so that a full Redis refuses it before anything has changed.
redis.call('HSET', segments_prefix .. id, number, audio)
redis.call('HINCRBY', job, 'kept', 1)
-- From the first segment on, none of these is missing.
local playable, playable_size = unpack(redis.call('HMGET', job, 'playable', 'playable_size'))
playable, playable_size = tonumber(playable or 0), tonumber(playable_size or 0)
while redis.call('HEXISTS', segments_prefix .. id, playable) == 1 do
    playable_size = playable_size + redis.call('HSTRLEN', segments_prefix .. id, playable)
    playable = playable + 1
end
redis.call('HSET', job, 'playable', playable, 'playable_size', playable_size)
set_size(id, caller, tonumber(reserved or 0), kept_size)
return {1}
