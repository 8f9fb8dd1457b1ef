-- open: whether an item is open.
-- KEYS[1..7] see prelude
-- ARGV[1] least epoch
-- answers {"open", epoch, available} | {"not_open", why}
local item = look(tonumber(ARGV[1]))
if item.why then return not_open(item.why) end
return { 'open', item.epoch, item.available }
