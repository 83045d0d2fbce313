// SPDX-License-Identifier: Apache-2.0
//! The instances of one configured plugin.
//!
//! An instance does one thing at a time, but thousands of exchanges live in it between calls, as resources of the
//! guest. So the pool hands out places, not instances: a worker goes to the place that is its own and finds it free, in
//! the ordinary case; the lock of a place is held for one synchronous call and never across an await. Only when a place
//! is busy does a worker look for another one, then for an empty place to put a new instance in, and only then does it
//! wait.
//!
//! How an instance ends:
//!  - It traps, passes its deadline, or takes more memory than it may: it is dropped within that call and its place is
//!    empty, so that the next call gets a fresh one (some 30 µs). Its other exchanges find it gone.
//!  - It is worn: it has served `calls_max` calls, or a call has left its memory past the high-water mark (memory of a guest
//!    never shrinks). Then it leaves its place, gets no new exchange, and is dropped when its last exchange is.
//!  - The plugin is dropped, and with it all of them.
//!
//! With `Isolation::Request` there are no places: each call or exchange gets an instance, and takes it along when it
//! ends.
//!
//! A plugin that breaks time and again rests for a moment, so that a crash loop does not cost a deadline each time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use wasmtime::component::{Instance, InstancePre};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};

use super::bindings::exports::penstock::plugin::lifecycle::{self, Issue, Want};
use super::breaks::Condition;
use super::engine::Runtime;
use super::gate::Further;
use super::imports::{Ceiling, Imports, Shared};
use super::types::{Broken, CallError};
use crate::clock;
use crate::config::Isolation;

/// Bytes that a guest may hand over in one call to the host, or as the result of one.
const RESULT_BYTES_MIN: usize = 8 << 20;
/// So many broken instances in a row, each within [`ROW_MS`] of the one before, and the plugin rests for [`REST_MS`].
const BROKEN_IN_A_ROW: u32 = 8;
const ROW_MS: u64 = 10_000;
const REST_MS: u64 = 500;

/// What an instance of a kind of plugin is called through: the exports of the kind, found once for each component.
pub(super) trait Role: Send + Sized + 'static {
    /// Where the exports are.
    type Indices: Send + Sync + 'static;
    /// Finds them.
    fn find(linked: &InstancePre<Imports>, further: Further) -> wasmtime::Result<Self::Indices>;
    /// Takes them from an instance, and compares their types.
    fn load(indices: &Self::Indices, store: &mut Store<Imports>, instance: &Instance) -> wasmtime::Result<Self>;
}

/// A component that is ready to be instantiated.
pub(super) struct Linked<R: Role> {
    pub(super) instance: InstancePre<Imports>,
    pub(super) lifecycle: lifecycle::GuestIndices,
    pub(super) role: R::Indices,
}

/// What a pool is made from.
pub(super) struct Stock<R: Role> {
    pub(super) runtime: Arc<Runtime>,
    pub(super) linked: Arc<Linked<R>>,
    pub(super) shared: Arc<Shared>,
    pub(super) config: String,
    pub(super) isolation: Isolation,
    /// Deadline of one call.
    pub(super) call_ms: u64,
}

/// The instances.
pub(super) struct Pool<R: Role> {
    stock: Stock<R>,
    places: Box<[ArcSwapOption<Slot<R>>]>,
    living: Living,
    breaker: Breaker,
}

/// Holds an instance, as long as it lives.
struct Slot<R: Role> {
    place: usize,
    live: Mutex<Option<Live<R>>>,
    exchanges: AtomicU32,
}

struct Live<R: Role> {
    store: Store<Imports>,
    role: R,
    calls: u64,
    memory_bytes_high: usize,
    _alive: Alive,
}

/// Why there is no instance.
pub(super) enum Stillborn {
    /// There are as many as there may be.
    NoRoom,
    /// It broke before `configure`: the types of its exports, or a trap on the way.
    Start(wasmtime::Error),
    /// It broke in `configure`.
    Configure(Broken),
    /// It refuses its configuration.
    Refused(Vec<Issue>),
}

impl<R: Role> Pool<R> {
    /// Makes the pool with one instance in it, and what that wants to see of each call.
    pub(super) fn new(stock: Stock<R>) -> Result<(Arc<Self>, Vec<Want>), Stillborn> {
        let sandbox = &stock.runtime.sandbox;
        let places = (0..sandbox.instances_max.max(1)).map(|_| ArcSwapOption::empty()).collect();
        let pool = Self { stock, places, living: Living(Arc::default()), breaker: Breaker::new() };
        let (live, wants) = pool.bear()?;
        if pool.stock.isolation == Isolation::Shared {
            let place = worker() % pool.places.len();
            let slot = Arc::new(Slot { place, live: Mutex::new(Some(live)), exchanges: AtomicU32::new(0) });
            pool.places[place].store(Some(slot));
        }
        Ok((Arc::new(pool), wants))
    }

    /// What all instances share.
    pub(super) fn shared(&self) -> &Shared {
        &self.stock.shared
    }

    /// Instances that live, those included that only wait for their last exchange.
    pub(super) fn instances(&self) -> u32 {
        self.living.0.load(Ordering::Relaxed)
    }

    /// How it is doing.
    pub(super) fn condition(&self) -> Condition {
        let (broken, breaks) = self.shared().series.breaks.told();
        Condition { instances: self.instances(), rests: self.breaker.admit().is_err(), broken, breaks }
    }

    /// One call. `what` names it in the log.
    pub(super) fn call<T>(
        &self,
        what: &'static str,
        call: impl FnOnce(&mut Store<Imports>, &R) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        self.enter(false, what, call).map(|(_, value)| value)
    }

    /// A call that may begin an exchange: its instance stays until the lease is dropped.
    pub(super) fn lease<T>(
        self: &Arc<Self>,
        what: &'static str,
        call: impl FnOnce(&mut Store<Imports>, &R) -> wasmtime::Result<T>,
    ) -> Result<(Lease<R>, T), CallError> {
        let (slot, value) = self.enter(true, what, call)?;
        Ok((Lease { pool: Arc::clone(self), slot }, value))
    }

    fn enter<T>(
        &self,
        exchange: bool,
        what: &'static str,
        call: impl FnOnce(&mut Store<Imports>, &R) -> wasmtime::Result<T>,
    ) -> Result<(Arc<Slot<R>>, T), CallError> {
        self.breaker.admit().map_err(|reason| self.broken(reason))?;
        let mut empty = None;
        let own = worker() % self.places.len();
        if self.stock.isolation == Isolation::Shared {
            for offset in 0..self.places.len() {
                let place = (own + offset) % self.places.len();
                let slot = self.places[place].load();
                let Some(slot) = slot.as_ref().filter(|slot| !self.is_wreck(slot)) else {
                    empty = empty.or(Some(place));
                    if offset == 0 { break } else { continue }
                };
                if let (true, Some(live)) = (self.has_room(slot, exchange), slot.try_enter()) {
                    if live.is_none() {
                        continue; // it broke just now
                    }
                    let value = self.run(slot, live, exchange, what, call)?;
                    return Ok((Arc::clone(slot), value));
                }
            }
        } else {
            empty = Some(own);
        }
        for _ in 0..=self.places.len() {
            let slot = match empty.map(|place| self.settle(place)) {
                Some(Ok(slot)) => slot,
                None | Some(Err(Stillborn::NoRoom)) => self.busy(own, exchange)?,
                Some(Err(stillborn)) => return Err(self.lost(what, stillborn)),
            };
            let live = slot.enter();
            if live.is_none() {
                // It broke in the call that was waited for: that is no matter of this one.
                empty = Some(own);
                continue;
            }
            let value = self.run(&slot, live, exchange, what, call)?;
            return Ok((slot, value));
        }
        Err(self.broken(Broken::Exhausted))
    }

    /// Puts a new instance into a place. If another worker was faster, this one is for a single use.
    fn settle(&self, place: usize) -> Result<Arc<Slot<R>>, Stillborn> {
        let (live, _) = self.bear()?;
        let slot = Arc::new(Slot { place, live: Mutex::new(Some(live)), exchanges: AtomicU32::new(0) });
        if self.stock.isolation == Isolation::Shared {
            self.places[place].compare_and_swap(&None::<Arc<Slot<R>>>, Some(Arc::clone(&slot)));
        }
        Ok(slot)
    }

    /// An instance to wait for.
    fn busy(&self, own: usize, exchange: bool) -> Result<Arc<Slot<R>>, CallError> {
        let slots =
            (0..self.places.len()).filter_map(|offset| self.places[(own + offset) % self.places.len()].load_full());
        let mut with_room = slots.filter(|slot| self.has_room(slot, exchange));
        let Some(slot) = with_room.next() else {
            self.shared().series.host.broke(Broken::Exhausted.name());
            return Err(self.broken(Broken::Exhausted));
        };
        self.shared().series.host.waited();
        Ok(slot)
    }

    fn has_room(&self, slot: &Slot<R>, exchange: bool) -> bool {
        !exchange || slot.exchanges.load(Ordering::Relaxed) < self.stock.runtime.sandbox.exchanges_max
    }

    /// Calls into an instance whose lock is held.
    fn run<T>(
        &self,
        slot: &Arc<Slot<R>>,
        mut held: MutexGuard<'_, Option<Live<R>>>,
        exchange: bool,
        what: &'static str,
        call: impl FnOnce(&mut Store<Imports>, &R) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        let Some(live) = held.as_mut() else {
            return Err(self.broken(Broken::Trap("its instance broke in another call".to_owned())));
        };
        self.stock.runtime.stir();
        begin(&mut live.store, self.stock.call_ms);
        live.calls += 1;
        let begun = Instant::now();
        let called = call(&mut live.store, &live.role);
        self.shared().series.host.called(what, begun.elapsed());
        match called {
            Ok(value) => {
                self.breaker.heal();
                let memory_bytes = live.store.data().ceiling.memory_bytes;
                if live.calls >= self.stock.runtime.sandbox.calls_max || memory_bytes > live.memory_bytes_high {
                    self.vacate(slot);
                }
                if exchange {
                    slot.exchanges.fetch_add(1, Ordering::Relaxed);
                }
                Ok(value)
            }
            Err(error) => {
                let reason = self.autopsy(what, self.stock.call_ms, &error, live.store.data());
                let dead = held.take();
                drop(held);
                self.vacate(slot);
                drop(dead);
                self.breaker.hurt();
                self.shared().series.host.broke(reason.name());
                Err(self.broken(reason))
            }
        }
    }

    /// Whether a panic of the engine's has left an instance in the middle of something; then its place is empty.
    fn is_wreck(&self, slot: &Arc<Slot<R>>) -> bool {
        let wreck = slot.live.is_poisoned();
        if wreck {
            self.vacate(slot);
        }
        wreck
    }

    /// Takes an instance out of its place: it gets no new calls.
    fn vacate(&self, slot: &Arc<Slot<R>>) {
        if let Some(place) = self.places.get(slot.place) {
            place.compare_and_swap(&Some(Arc::clone(slot)), None);
        }
    }

    /// Makes an instance and configures it.
    fn bear(&self) -> Result<(Live<R>, Vec<Want>), Stillborn> {
        let Stock { runtime, linked, shared, config, .. } = &self.stock;
        let sandbox = &runtime.sandbox;
        let alive = self.living.enter(sandbox.instances_max.max(1)).ok_or(Stillborn::NoRoom)?;
        let mut store = runtime.store(shared);
        let (instance, role) = start(linked, &mut store)?;
        let configured = linked
            .lifecycle
            .load(&mut store, &instance)
            .and_then(|lifecycle| lifecycle.call_configure(&mut store, config));
        match configured {
            Ok(Ok(wants)) => {
                let memory_bytes = store.data().ceiling.memory_bytes;
                let memory_bytes_high = memory_bytes + sandbox.memory_bytes_max.saturating_sub(memory_bytes) / 2;
                Ok((Live { store, role, calls: 0, memory_bytes_high, _alive: alive }, wants))
            }
            Ok(Err(issues)) => Err(Stillborn::Refused(issues)),
            Err(error) => {
                let reason = self.autopsy("configure", sandbox.configure_ms, &error, store.data());
                Err(Stillborn::Configure(reason))
            }
        }
    }

    /// What a call is told when no instance could be made for it. That the canary could be made says that this is rare.
    fn lost(&self, what: &'static str, stillborn: Stillborn) -> CallError {
        if !matches!(stillborn, Stillborn::NoRoom) {
            self.breaker.hurt();
        }
        self.broken(match stillborn {
            Stillborn::NoRoom => Broken::Exhausted,
            Stillborn::Configure(reason) => reason,
            Stillborn::Refused(_) => Broken::Trap("a new instance refused the configuration".to_owned()),
            Stillborn::Start(error) => {
                tracing::error!(
                    plugin = self.shared().name,
                    call = what,
                    error = format!("{error:#}"),
                    "no new instance"
                );
                Broken::Trap("a new instance could not be made".to_owned())
            }
        })
    }

    fn broken(&self, reason: Broken) -> CallError {
        CallError::Broken { plugin: self.shared().name.clone(), reason }
    }

    /// Why an instance died. The operator reads where, and its last words; the caller does not.
    fn autopsy(&self, what: &str, deadline_ms: u64, error: &wasmtime::Error, imports: &Imports) -> Broken {
        let cause = error.root_cause().to_string();
        let reason = if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
            Broken::Deadline(deadline_ms)
        } else if cause.contains("fuel allocated for hostcalls") {
            Broken::Output(format!("more than {} bytes in one call", self.stock.runtime.result_bytes_max()))
        } else if imports.ceiling.is_crowded {
            Broken::Crowded
        } else if imports.ceiling.refused {
            Broken::Memory
        } else {
            Broken::Trap(format!("in {what}: {cause}"))
        };
        let Shared { name, series, .. } = self.shared();
        let stack = error.downcast_ref::<WasmBacktrace>().map(functions).unwrap_or_default();
        series.breaks.note(name, what, &reason, cause, stack, imports.chatter.last_lines());
        reason
    }
}

impl Runtime {
    /// A store for one instance, with the deadline of `configure` running.
    pub(super) fn store(&self, shared: &Arc<Shared>) -> Store<Imports> {
        let ceiling = Ceiling::new(self.sandbox.memory_bytes_max, &self.memory);
        let imports = Imports::new(Arc::clone(shared), ceiling);
        let mut store = Store::new(&self.engine, imports);
        store.limiter(|imports| &mut imports.ceiling);
        store.set_hostcall_fuel(self.result_bytes_max());
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().watch.look()));
        self.stir();
        begin(&mut store, self.sandbox.configure_ms);
        store
    }

    /// Half of what a guest can hold, since it must build what it hands over; a translated body is the largest of it.
    fn result_bytes_max(&self) -> usize {
        (self.sandbox.memory_bytes_max / 2).max(RESULT_BYTES_MIN)
    }
}

/// Starts the deadline of a call.
fn begin(store: &mut Store<Imports>, deadline_ms: u64) {
    let imports = store.data_mut();
    imports.ceiling.refused = false;
    imports.ceiling.is_crowded = false;
    let first_look = imports.watch.begin(deadline_ms);
    store.set_epoch_deadline(first_look);
}

/// Instantiates and takes the exports.
pub(super) fn start<R: Role>(linked: &Linked<R>, store: &mut Store<Imports>) -> Result<(Instance, R), Stillborn> {
    let instance = linked.instance.instantiate(&mut *store).map_err(|error| {
        let is_full = error.is::<PoolConcurrencyLimitError>() || store.data().ceiling.is_crowded;
        if is_full { Stillborn::NoRoom } else { Stillborn::Start(error) }
    })?;
    let role = R::load(&linked.role, store, &instance).map_err(Stillborn::Start)?;
    Ok((instance, role))
}

/// An exchange's hold on its instance.
pub(super) struct Lease<R: Role> {
    pool: Arc<Pool<R>>,
    slot: Arc<Slot<R>>,
}

impl<R: Role> Lease<R> {
    /// What all instances of the plugin share.
    pub(super) fn shared(&self) -> &Shared {
        self.pool.shared()
    }

    /// A call into this instance; waits for the one that is under way.
    pub(super) fn call<T>(
        &self,
        what: &'static str,
        call: impl FnOnce(&mut Store<Imports>, &R) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        self.pool.run(&self.slot, self.slot.enter(), false, what, call)
    }
}

impl<R: Role> Drop for Lease<R> {
    fn drop(&mut self) {
        self.slot.exchanges.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<R: Role> Slot<R> {
    fn enter(&self) -> MutexGuard<'_, Option<Live<R>>> {
        self.live.lock().unwrap_or_else(|poisoned| {
            // A panic of the engine's left it in the middle of something.
            let mut held = poisoned.into_inner();
            *held = None;
            held
        })
    }

    /// None if it is busy or dead.
    fn try_enter(&self) -> Option<MutexGuard<'_, Option<Live<R>>>> {
        match self.live.try_lock() {
            Ok(held) => held.is_some().then_some(held),
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => None,
        }
    }
}

/// Counts the instances of a plugin, those included that only wait for their last exchange.
struct Living(Arc<AtomicU32>);

/// One of them; counted until it is dropped.
struct Alive(Arc<AtomicU32>);

impl Living {
    fn enter(&self, max: u32) -> Option<Alive> {
        let entered = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1));
        entered.ok().map(|_| Alive(Arc::clone(&self.0)))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets a plugin rest that breaks time and again.
struct Breaker {
    begin: Instant,
    in_a_row: AtomicU32,
    last_ms: AtomicU64,
    rests_until_ms: AtomicU64,
}

impl Breaker {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { begin: Instant::now(), in_a_row: AtomicU32::new(0), last_ms: zero(), rests_until_ms: zero() }
    }

    fn admit(&self) -> Result<(), Broken> {
        let until = self.rests_until_ms.load(Ordering::Relaxed);
        if until == 0 || self.now_ms() >= until {
            return Ok(());
        }
        let count = self.in_a_row.load(Ordering::Relaxed);
        Err(Broken::Trap(format!("{count} times in a row, and rests for {REST_MS} ms")))
    }

    fn heal(&self) {
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
            self.rests_until_ms.store(0, Ordering::Relaxed);
        }
    }

    fn hurt(&self) {
        let now_ms = self.now_ms();
        let last_ms = self.last_ms.swap(now_ms, Ordering::Relaxed);
        if now_ms.saturating_sub(last_ms) > ROW_MS {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
        if self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= BROKEN_IN_A_ROW {
            self.rests_until_ms.store(now_ms + REST_MS, Ordering::Relaxed);
        }
    }

    fn now_ms(&self) -> u64 {
        clock::millis(self.begin.elapsed())
    }
}

/// Number of the calling thread; a worker keeps to the place of this number.
fn worker() -> usize {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed) as usize;
    }
    NUMBER.with(|number| *number)
}

/// Names of the functions on the stack, innermost first.
fn functions(stack: &WasmBacktrace) -> Vec<String> {
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
        None => format!("function {}", frame.func_index()),
    };
    stack.frames().iter().map(name).collect()
}
