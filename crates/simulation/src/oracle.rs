// for engine: what clients, oracle and report take from `world`. Names may differ, write here or in world.rs what they are.
// 1. `World::new(seed, Options { faults: on/off or a scripted plan })`; `world.run_until(time, &mut dyn FnMut(&World) -> Result<(), Violation>)`:
//    calls me after EVERY step (one poll of one task or one fault), stops on Err. `Violation` may be generic (`Result<(), E>`).
//    `world.env()` for my client tasks (sleep, random from the seed, start), which no fault kills; `world.now()` (virtual, no jumps).
// 2. client calls through the faulty network, ending in the tonic handlers (`OrderService`/`InventoryService` traits with `Call` in the
//    extensions), each `async fn(&self, instance: usize, message, timeout) -> Result<Response, Failure>`, Unavailable = lost/unknown:
//    create_order, get_order, list_orders, reserve, release, get_stock, restock. Dropping the future = the caller hangs up: the handler's
//    future is dropped too (after a delay or at once), detached work goes on.
// 3. hooks per process, given to World::new: `watch_store(process, Arc<dyn StockStore>) -> Arc<dyn StockStore>`,
//    `watch_ledger(process, Arc<dyn StockLedger>) -> ..`, `watch_broker(process, Arc<dyn Broker>) -> ..` (I wrap them to note holds,
//    confirms and acknowledgements after effect). Applied at every (re)start of a process. In `crate::watch` (mine): `trait`-less,
//    `Arc<watch::Watch>` with those three methods.
// 4. `world.heal()` ends faults for good, restores links, processes, servers, broker, queue; `world.healed_at()`.
// 5. `world.database()`, `world.redis()`, `world.broker()`: the simulated stores; `world.serving()`: which redis server serves.
//    A fault "ledger restored to an older state" (`Database::roll_back`) is needed often enough (for EpochNotAboveStore), counted in
//    `world.ledger_restores()` so that I forget what was lost with it.
// 6. `world.trace()`: hash and the last n lines; `world.note(&str)` adds mine. `world.faults()`: BTreeMap<&'static str, u64>;
//    restarts, awaits crashed (set of places), steps.
// 7. a panic in a task (not a crash) must reach me: `world.panics()` or the run fails.
