-- Adds jobs to the queue, all or none. Returns their ids in order: where a caller's idempotency key is known already,
-- the id of the earlier job. Returns false where such a key was used for a different request.
local stream, numbers, counts, queued = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local job_prefix = ARGV[1]

local FIELDS = 5
local jobs = {}
for first = 2, #ARGV, FIELDS do
    local id, idempotency_key, digest, content, characters = unpack(ARGV, first, first + FIELDS - 1)
    local job = {id = id, idempotency_key = idempotency_key, digest = digest, content = content,
        characters = characters}
    local earlier = idempotency_key ~= '' and redis.call('GET', idempotency_key)
    if earlier and redis.call('HEXISTS', job_prefix .. earlier, 'content') == 1 then
        if redis.call('HGET', job_prefix .. earlier, 'digest') ~= digest then return false end
        job.earlier = earlier
    end
    jobs[#jobs + 1] = job
end

local ids = {}
for _, job in ipairs(jobs) do
    if not job.earlier then
        local number = redis.call('INCR', numbers)
        redis.call('HSET', job_prefix .. job.id, 'state', 'queued', 'attempts', 0, 'number', number,
            'digest', job.digest, 'content', job.content, 'characters', job.characters, 'key', job.idempotency_key)
        if job.idempotency_key ~= '' then redis.call('SET', job.idempotency_key, job.id) end
        redis.call('ZADD', queued, number, job.id)
        redis.call('HINCRBY', counts, 'queued', 1)
        redis.call('XADD', stream, '*', 'id', job.id)
    end
    ids[#ids + 1] = job.earlier or job.id
end
return ids
