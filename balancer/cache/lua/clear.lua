-- Deletes at most 500 entries, the least recently used first, and returns how many.
local oldest = redis.call('ZRANGE', used, 0, 499)
for _, cache_key in ipairs(oldest) do drop(cache_key) end
return #oldest
