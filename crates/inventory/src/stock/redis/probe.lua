-- probe: whether an item is open, and what a load has to name. A server that takes no writes refuses it (see scripts.rs):
-- a lease that is asked for then would be burnt.
-- KEYS[1..7] see prelude
-- answers {"probed", incarnation, stored epoch, 1 if it is open, else 0} | {"not_open", "replica"} | an error of the server
local item = look()
if not item.master then return not_open(item.why) end
return { 'probed', item.incarnation, item.epoch, item.why and 0 or 1 }
