-- Deletes a job that has ended, with its audio, and returns 1; returns 0 if it has not ended.
local id = ARGV[1]

if not redis.call('ZSCORE', final, id) then return 0 end
delete(id)
return 1
