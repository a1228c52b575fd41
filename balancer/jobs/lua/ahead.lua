-- Returns how many jobs are queued before a job, and how many characters they have. Only the first `max_counted` jobs
-- are read; where there are more, their average stands for the rest.
local queued = KEYS[4]
local job_prefix, id, max_counted = ARGV[1], ARGV[2], tonumber(ARGV[3])

local rank = redis.call('ZRANK', queued, id)
if not rank then rank = redis.call('ZCARD', queued) end
if rank == 0 then return {0, 0} end

local characters, ids = 0, redis.call('ZRANGE', queued, 0, math.min(rank, max_counted) - 1)
for _, earlier in ipairs(ids) do
    characters = characters + tonumber(redis.call('HGET', job_prefix .. earlier, 'characters') or 0)
end
if #ids > 0 then characters = math.floor(characters * rank / #ids) end
return {rank, characters}
