-- listed: whether an item that the registry names is open. One that only a load can open is taken out of it.
-- KEYS[1..7] see prelude
-- answers {"open", epoch, available} | {"not_open", why}
local item = look()
if item.why then
  unregister(item)
  return not_open(item.why)
end
return { 'open', item.epoch, item.available }
