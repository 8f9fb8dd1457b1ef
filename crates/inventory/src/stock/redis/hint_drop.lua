-- hint_drop: takes a hint back whose reserve was refused, unless another reserve of the id relies on it since.
-- KEYS[1] {<id>}:item   see hint_put
-- ARGV[1] who wrote
-- answers {"dropped"} | {"kept"}
if redis.call('HGET', KEYS[1], 'writer') ~= ARGV[1] then return { 'kept' } end
redis.call('UNLINK', KEYS[1])
return { 'dropped' }
