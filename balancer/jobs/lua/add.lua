-- Adds jobs of one caller to the queue, all or none. Returns {'added', ids in order}: where the caller's idempotency key
-- is known already, the id of the earlier job; {'conflict'} where such a key was used for a different request; or
-- {'full', whether of audio, whether the caller's own share, used, limit}.
local caller = ARGV[1]
local max_queued, max_own_queued = tonumber(ARGV[2]), tonumber(ARGV[3])
local max_size, max_own_size = tonumber(ARGV[4]), tonumber(ARGV[5])

local FIRST, FIELDS = 6, 7
local jobs, known, new = {}, {}, 0
for first = FIRST, #ARGV, FIELDS do
    local id, key, digest, content, characters, concurrency, webhook = unpack(ARGV, first, first + FIELDS - 1)
    local job = {id = id, key = key, digest = digest, content = content, characters = characters,
        concurrency = concurrency, webhook = webhook}
    if key ~= '' then
        local earlier = redis.call('GET', key)
        if earlier and redis.call('HEXISTS', job_prefix .. earlier, 'content') == 1 then
            known[key] = {id = earlier, digest = redis.call('HGET', job_prefix .. earlier, 'digest')}
        end
        if known[key] and known[key].digest ~= digest then return {'conflict'} end
        job.earlier = known[key] and known[key].id
        known[key] = known[key] or job
    end
    if not job.earlier then new = new + 1 end
    jobs[#jobs + 1] = job
end

if new > 0 then
    local queued, size = unpack(redis.call('HMGET', counts, 'queued', 'size'))
    local own_queued, own_size = redis.call('HGET', queued_by, caller), redis.call('HGET', size_by, caller)
    queued, size, own_queued, own_size = tonumber(queued or 0), tonumber(size or 0), tonumber(own_queued or 0),
        tonumber(own_size or 0)
    -- Where a caller's part is the whole, it is the whole that is full.
    if max_own_queued < max_queued and own_queued + new > max_own_queued then return {'full', 0, 1, own_queued, max_own_queued} end
    if queued + new > max_queued then return {'full', 0, 0, queued, max_queued} end
    if max_own_size < max_size and own_size >= max_own_size then return {'full', 1, 1, own_size, max_own_size} end
    if size >= max_size then return {'full', 1, 0, size, max_size} end
end

local ids = {'added'}
for _, job in ipairs(jobs) do
    if not job.earlier then
        local number = redis.call('INCR', numbers)
        local at = place(next_turn(caller), number)
        redis.call('HSET', job_prefix .. job.id, 'state', 'queued', 'attempts', 0, 'place', at, 'caller', caller,
            'digest', job.digest, 'content', job.content, 'characters', job.characters, 'key', job.key,
            'concurrency', job.concurrency, 'webhook', job.webhook)
        if job.key ~= '' then redis.call('SET', job.key, job.id) end
        redis.call('ZADD', turns, at, job.id)
        count(caller, 'queued', 1)
    end
    ids[#ids + 1] = job.earlier or job.id
end
return ids
