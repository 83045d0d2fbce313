// SPDX-License-Identifier: Apache-2.0
//! The engine of the process: how guests are compiled, bounded and interrupted, and what each kind of plugin is linked
//! to.
//!
//! Synchronous calls only: concurrency support costs 0.4 µs a call and is off. Instances come from a pool of memory
//! that is reserved at the start, their memory is zeroed by the pool. A thread counts milliseconds; a call that sees its
//! deadline pass traps.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{
    Config, Engine, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy, WasmFeatures,
};

use super::bindings::penstock::plugin as offered;
use super::cache::Cache;
use super::compile::Compiler;
use super::component::Component;
use super::imports::{Imports, MemorySum};
use super::manifest::Kind;
use super::series::SeriesTable;
use super::wasi;
use crate::clock;
use crate::config::Sandbox;

/// Stack of one call, in bytes. Recursion deeper than this traps.
const WASM_STACK_BYTES: usize = 512 << 10;
/// Between two looks of the clock that counts the milliseconds of deadlines: a call is stopped so much late at most. To wake
/// once for each millisecond would cost some hundredths of a processor.
const TICK: Duration = Duration::from_millis(4);
/// The same when no call has begun for [`QUIET`].
const IDLE_TICK: Duration = Duration::from_millis(20);
/// An idle gateway should hardly wake; what is still under way by then has had seconds, and can be stopped a little later.
const QUIET: Duration = Duration::from_secs(1);
/// Milliseconds that are counted at one look at most, when the clock itself was not given a processor.
const LATE_MS_MAX: u64 = 1_000;
/// Plugins with all of their instances in use that the pool has room for.
const BUSY_PLUGINS: u32 = 16;
/// Instances that the pool has room for at most.
const INSTANCES_MAX: u32 = 4096;
/// Core instances, memories and tables of one component: a Rust guest has three, one and two.
pub(super) const CORE_INSTANCES_MAX: u32 = 16;
pub(super) const MEMORIES_MAX: u32 = 4;
pub(super) const TABLES_MAX: u32 = 8;
/// Elements of one table; a large Rust guest has some thousands.
pub(super) const TABLE_ELEMENTS_MAX: usize = 20_000;

/// Runs the vectors that an author has put into a component: how many passed, or what the first failure is. Each has a
/// configuration of its own, so the runner configures the component as it needs.
pub type SelfTest = fn(component: &Arc<Component>, vectors: &[u8]) -> Result<usize, String>;

/// What a runtime is made from.
pub struct RuntimeOptions {
    /// Ceilings.
    pub sandbox: Sandbox,
    /// Where compiled components are kept; none keeps none. Must belong to this user alone.
    pub cache_dir: Option<PathBuf>,
    /// Who compiles.
    pub compiler: Compiler,
    /// Runner of the vectors that components carry; none leaves them out.
    pub self_test: Option<SelfTest>,
}

/// The runtime. One for each process.
pub struct Runtime {
    pub(super) engine: Engine,
    pub(super) sandbox: Sandbox,
    pub(super) compiler: Compiler,
    pub(super) cache: Option<Cache>,
    pub(super) series: SeriesTable,
    pub(super) self_test: Option<SelfTest>,
    pub(super) memory: Arc<MemorySum>,
    linkers: Vec<Linker<Imports>>,
    /// Set when a call begins, taken back by the clock.
    stirred: Arc<AtomicBool>,
    _ticker: Ticker,
}

impl Runtime {
    /// Reserves the pool, opens the cache and starts the clock.
    ///
    /// # Errors
    /// The cache directory is not private, or the platform lacks what the engine needs.
    pub fn new(options: RuntimeOptions) -> anyhow::Result<Arc<Self>> {
        let RuntimeOptions { sandbox, cache_dir, compiler, self_test } = options;
        let engine = pooled_engine(&sandbox)?;
        let linkers = Kind::ALL.iter().map(|kind| linker(&engine, *kind)).collect::<wasmtime::Result<Vec<_>>>();
        let linkers = linkers.map_err(|error| anyhow::anyhow!("cannot offer the contract: {error:#}"))?;
        let cache = cache_dir.map(|dir| Cache::open(dir, &engine)).transpose()?;
        let stirred = Arc::new(AtomicBool::new(true));
        let ticker =
            Ticker::start(engine.weak(), Arc::clone(&stirred)).context("cannot start the clock of the plugins")?;
        Ok(Arc::new(Self {
            series: SeriesTable::default(),
            memory: MemorySum::new(sandbox.memory_sum_bytes_max),
            engine,
            sandbox,
            compiler,
            cache,
            self_test,
            linkers,
            stirred,
            _ticker: ticker,
        }))
    }

    /// From now on the host counts in this registry what plugins cost that are configured; once in its life.
    ///
    /// # Errors
    /// The registry has such metrics already.
    pub fn count_in(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        let metrics = crate::metrics::plugins::PluginMetrics::new(registry)?;
        self.series.host.set(metrics).map_err(|_| prometheus::Error::AlreadyReg)
    }

    /// The ceilings in force.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Tells the clock that a call begins. The flag is written only where it is not set, since every worker reads it.
    pub(super) fn stir(&self) {
        if !self.stirred.load(Ordering::Relaxed) {
            self.stirred.store(true, Ordering::Relaxed);
        }
    }

    /// What a plugin of a kind is linked to: the interfaces that the kind may import, and nothing else.
    pub(super) fn linker(&self, kind: Kind) -> &Linker<Imports> {
        &self.linkers[kind as usize]
    }
}

/// An engine that only compiles.
pub(super) fn compiling_engine() -> wasmtime::Result<Engine> {
    Engine::new(&compilation())
}

fn pooled_engine(sandbox: &Sandbox) -> anyhow::Result<Engine> {
    let mut config = compilation();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(sandbox)));
    match Engine::new(&config) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "no room for a pool of instances; allocating them on demand");
            let engine = Engine::new(&compilation());
            engine.map_err(|error| anyhow::anyhow!("cannot start the plugin engine: {error:#}"))
        }
    }
}

/// Everything that compiled code depends on; the same in the process that compiles and in the one that runs.
fn compilation() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .native_unwind_info(true)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
    // What a guest of stable Rust, C or TinyGo needs stays; each further proposal is only more to attack.
    let unneeded = [
        WasmFeatures::MEMORY64,
        WasmFeatures::MULTI_MEMORY,
        WasmFeatures::RELAXED_SIMD,
        WasmFeatures::TAIL_CALL,
        WasmFeatures::CM_ASYNC,
    ];
    for feature in unneeded {
        config.wasm_features(feature, false);
    }
    config
}

fn pool(sandbox: &Sandbox) -> PoolingAllocationConfig {
    let instances = sandbox.instances_max.saturating_mul(BUSY_PLUGINS).clamp(64, INSTANCES_MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(4))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(2))
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memory_size(sandbox.memory_bytes_max)
        .table_elements(TABLE_ELEMENTS_MAX)
        // What an instance touches first is cleared by hand instead of given back page by page.
        .linear_memory_keep_resident(128 << 10)
        .table_keep_resident(16 << 10);
    pool
}

fn linker(engine: &Engine, kind: Kind) -> wasmtime::Result<Linker<Imports>> {
    let mut linker = Linker::new(engine);
    wasi::add_to_linker(&mut linker)?;
    for interface in kind.imports() {
        match *interface {
            "types" => offered::types::add_to_linker::<_, HasSelf<Imports>>(&mut linker, itself)?,
            "filter-types" => offered::filter_types::add_to_linker::<_, HasSelf<Imports>>(&mut linker, itself)?,
            "requests" => offered::requests::add_to_linker::<_, HasSelf<Imports>>(&mut linker, itself)?,
            "log" => offered::log::add_to_linker::<_, HasSelf<Imports>>(&mut linker, itself)?,
            "metrics" => offered::metrics::add_to_linker::<_, HasSelf<Imports>>(&mut linker, itself)?,
            "secrets" => offered::secrets::add_to_linker::<_, HasSelf<Imports>>(&mut linker, itself)?,
            "state" => offered::state::add_to_linker::<_, HasSelf<Imports>>(&mut linker, itself)?,
            "virtual-keys" => offered::virtual_keys::add_to_linker::<_, HasSelf<Imports>>(&mut linker, itself)?,
            "documents" => offered::documents::add_to_linker::<_, HasSelf<Imports>>(&mut linker, itself)?,
            "signatures" => offered::signatures::add_to_linker::<_, HasSelf<Imports>>(&mut linker, itself)?,
            "rules" => offered::rules::add_to_linker::<_, HasSelf<Imports>>(&mut linker, itself)?,
            other => return Err(wasmtime::Error::msg(format!("no interface {other} to offer"))),
        }
    }
    Ok(linker)
}

fn itself(imports: &mut Imports) -> &mut Imports {
    imports
}

/// The thread that counts milliseconds for deadlines. Ends with the runtime.
struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: EngineWeak, stirred: Arc<AtomicBool>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let tick = move || {
            let (mut counted, mut last_call) = (Instant::now(), Instant::now());
            while !stopped.load(Ordering::Relaxed) {
                let is_quiet = counted.saturating_duration_since(last_call) > QUIET;
                std::thread::park_timeout(if is_quiet { IDLE_TICK } else { TICK });
                let Some(engine) = engine.upgrade() else { return };
                let passed = clock::millis(counted.elapsed());
                counted += Duration::from_millis(passed);
                for _ in 0..passed.min(LATE_MS_MAX) {
                    engine.increment_epoch();
                }
                if stirred.swap(false, Ordering::Relaxed) {
                    last_call = counted;
                }
            }
        };
        let thread = std::thread::Builder::new().name("plugin-clock".to_owned()).spawn(tick)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
