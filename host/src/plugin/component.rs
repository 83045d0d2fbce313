// SPDX-License-Identifier: Apache-2.0
//! A component that has passed the gate, and what it becomes with a configuration.

use std::sync::Arc;

use serde_json::Value;
use wasmtime::component::InstancePre;

use super::adapter::{Adapter, AdapterRole};
use super::auth::Auth;
use super::bindings::exports::penstock::plugin::{auth, lifecycle, limits, routing};
use super::breaks::Condition;
use super::compile::cannot_compile;
use super::engine::Runtime;
use super::gate::{self, Issue, Passed, Refusal};
use super::imports::{Imports, Shared};
use super::manifest::{Kind, Manifest};
use super::policy::{Filter, FilterRole, Limits, Routing};
use super::pool::{Linked, Pool, Role, Stillborn, Stock, start};
use super::schema;
use super::series::PluginSeries;
use super::types::{Alike, Broken, Part, Wants};
use crate::config::{self, Isolation};
use crate::directory::Directory;
use crate::documents::Documents;
use crate::flood::Flood;
use crate::keys::Grants;
use crate::state::Memory;

/// What a plugin may want to see of each call, in all.
const WANTS_MAX: usize = 256;

/// A component, compiled and linked.
pub struct Component {
    runtime: Arc<Runtime>,
    passed: Passed,
    bytes_len: usize,
    linked: LinkedKind,
}

enum LinkedKind {
    Adapter(Arc<Linked<AdapterRole>>),
    Auth(Arc<Linked<auth::Guest>>),
    Limits(Arc<Linked<limits::Guest>>),
    Routing(Arc<Linked<routing::Guest>>),
    Filter(Arc<Linked<FilterRole>>),
}

/// What the operator says of one configured plugin.
pub struct Settings {
    /// Name of the configured plugin (not of the component): in logs, metrics, and as the namespace of its state.
    pub name: String,
    /// Its configuration; null for none.
    pub config: Value,
    /// Secrets that it may use.
    pub secrets: Grants,
    /// Sharing of instances.
    pub isolation: Isolation,
    /// Where its values are kept.
    pub state: Arc<Memory>,
    /// Where virtual keys are; none where there are none.
    pub directory: Option<Directory>,
    /// What an auth plugin is told by others.
    pub documents: Arc<Documents>,
    /// Where its metrics go.
    pub metrics: prometheus::Registry,
}

/// A configured plugin.
#[derive(Clone)]
pub enum Plugin {
    /// Speaks a vendor's API.
    Adapter(Arc<Adapter>),
    /// Decides who asks.
    Auth(Arc<Auth>),
    /// Limits.
    Limits(Arc<Limits>),
    /// Orders targets.
    Routing(Arc<Routing>),
    /// Edits heads.
    Filter(Arc<Filter>),
}

impl Runtime {
    /// Passes a file through the gate and makes it ready: its own vectors have passed, too. Blocks, for seconds if it
    /// must be compiled: not for a worker.
    ///
    /// # Errors
    /// Which check it failed, and what to do.
    pub fn load(self: &Arc<Self>, bytes: &[u8]) -> Result<Arc<Component>, Refusal> {
        self.load_in_steps(bytes, &mut |_| ())
    }

    /// As [`Self::load`]; `passed_step` is told the name of each step that the file has passed.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_in_steps(
        self: &Arc<Self>,
        bytes: &[u8],
        passed_step: &mut dyn FnMut(&'static str),
    ) -> Result<Arc<Component>, Refusal> {
        let passed = gate::inspect(bytes, self.sandbox.component_bytes_max)?;
        passed_step("manifest, imports and exports");
        let compiled = self.compiled(&passed.digest, bytes)?;
        passed_step("compilation");
        let instance = self.linker(passed.kind).instantiate_pre(&compiled).map_err(|error| {
            Refusal::new(
                "import-refused",
                format!("an import does not match what the host offers: {error:#}"),
                "rebuild it with the penstock-sdk of this host",
            )
        })?;
        let linked = match passed.kind {
            Kind::Adapter => LinkedKind::Adapter(self.link(instance, &passed)?),
            Kind::Auth => LinkedKind::Auth(self.link(instance, &passed)?),
            Kind::Limits => LinkedKind::Limits(self.link(instance, &passed)?),
            Kind::Routing => LinkedKind::Routing(self.link(instance, &passed)?),
            Kind::Filter => LinkedKind::Filter(self.link(instance, &passed)?),
        };
        passed_step("types and first instance");
        let component = Arc::new(Component { runtime: Arc::clone(self), passed, bytes_len: bytes.len(), linked });
        if let Some(run) = self.self_test {
            let count = gate::self_test(run, &component)?;
            tracing::debug!(plugin = component.manifest().name, count, "the plugin's own vectors pass");
            passed_step("self-test");
        }
        Ok(component)
    }

    fn compiled(&self, digest: &str, bytes: &[u8]) -> Result<wasmtime::component::Component, Refusal> {
        if let Some(component) = self.cache.as_ref().and_then(|cache| cache.load(&self.engine, digest)) {
            return Ok(component);
        }
        let compiled = self.compiler.compile(&self.engine, &self.sandbox, bytes)?;
        if wasmtime::Engine::detect_precompiled(&compiled).is_none() {
            return Err(cannot_compile("what it has written is no compiled component"));
        }
        #[allow(unsafe_code, reason = "the only way to load compiled code")]
        // SAFETY: the bytes must be what `Engine::precompile_component` made: they come straight from it, in this
        // process or in a child that runs the same executable, over a pipe that nobody else holds.
        let component = unsafe { wasmtime::component::Component::deserialize(&self.engine, &compiled) };
        let component = component.map_err(|error| {
            Refusal::new(
                "too-demanding",
                format!("it asks for more than an instance may have: {error:#}"),
                "let it begin with less memory, fewer tables or fewer modules, or raise sandbox.memory_bytes_max",
            )
        })?;
        if let Some(cache) = &self.cache {
            cache.store(digest, &compiled);
        }
        Ok(component)
    }

    /// Finds the exports, and compares their types on an instance that is thrown away.
    fn link<R: Role>(&self, instance: InstancePre<Imports>, passed: &Passed) -> Result<Arc<Linked<R>>, Refusal> {
        let kind = passed.kind.name();
        let missing = |error: wasmtime::Error| {
            Refusal::new(
                "export-missing",
                format!("a plugin of kind {kind} needs an export that it lacks: {error:#}"),
                "rebuild it with the penstock-sdk of this host",
            )
        };
        let lifecycle = lifecycle::GuestIndices::new(&instance).map_err(missing)?;
        let role = R::find(&instance, passed.further).map_err(missing)?;
        let linked = Linked { instance, lifecycle, role };
        let shared = Arc::new(Shared {
            name: passed.manifest.name.clone(),
            grants: Grants::default(),
            state: Arc::new(Memory::new(1)),
            directory: None,
            documents: Arc::new(Documents::new(&config::Auth::default())),
            series: Arc::new(PluginSeries::unread(&passed.manifest.name)),
            flood: Flood::new(),
        });
        let mut store = self.store(&shared);
        let typed = start(&linked, &mut store)
            .and_then(|(instance, _)| linked.lifecycle.load(&mut store, &instance).map(drop).map_err(Stillborn::Start));
        match typed {
            Ok(()) | Err(Stillborn::NoRoom) => Ok(Arc::new(linked)),
            Err(stillborn) => Err(stillborn_refusal(stillborn)),
        }
    }
}

impl Component {
    /// SHA-256 of the file, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.passed.digest
    }

    /// What it says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.passed.manifest
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.passed.kind
    }

    /// Length of the file.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.bytes_len
    }

    /// The vectors that it carries for its self-test, as JSON.
    #[must_use]
    pub fn vectors(&self) -> Option<&[u8]> {
        self.passed.vectors.as_deref()
    }

    /// Checks the configuration and makes the first instance.
    ///
    /// # Errors
    /// Which check failed, with the paths of what is wrong in the configuration.
    pub fn configure(self: &Arc<Self>, settings: Settings) -> Result<Plugin, Refusal> {
        let Settings { name, config, secrets, isolation, state, directory, documents, metrics } = settings;
        let config = if config.is_null() { Value::Object(serde_json::Map::new()) } else { config };
        self.check_config(&config)?;
        // Only what is tried out has no directory.
        let series = self.runtime.series.of(&name, &metrics, directory.is_none());
        let flood = Flood::new();
        let shared = Arc::new(Shared { name, grants: secrets, state, directory, documents, series, flood });
        let plan = Plan { component: self, shared, config: config.to_string(), isolation };
        Ok(match &self.linked {
            LinkedKind::Adapter(linked) => {
                let (pool, wants) = plan.pool(linked)?;
                Plugin::Adapter(Arc::new(Adapter::new(pool, wants, &self.passed)))
            }
            LinkedKind::Auth(linked) => {
                let (pool, wants) = plan.pool(linked)?;
                Plugin::Auth(Arc::new(Auth::new(pool, wants)))
            }
            LinkedKind::Limits(linked) => {
                let (pool, wants) = plan.pool(linked)?;
                Plugin::Limits(Arc::new(Limits::new(pool, wants)))
            }
            LinkedKind::Routing(linked) => {
                let (pool, wants) = plan.pool(linked)?;
                Plugin::Routing(Arc::new(Routing::new(pool, wants)))
            }
            LinkedKind::Filter(linked) => {
                let (pool, wants) = plan.pool(linked)?;
                Plugin::Filter(Arc::new(Filter::new(pool, wants, self.passed.further.filters_responses)))
            }
        })
    }

    fn check_config(&self, config: &Value) -> Result<(), Refusal> {
        let issues = schema::check(&self.passed.manifest.schema, config).map_err(|error| {
            Refusal::new(
                "config-schema",
                format!("its configuration schema is of no use: {error}"),
                "correct the schema in the plugin's manifest",
            )
        })?;
        if issues.is_empty() {
            return Ok(());
        }
        let help = format!("see the README of the plugin {}", self.passed.manifest.name);
        Err(Refusal::of_config("config-invalid", issues, help))
    }
}

impl Plugin {
    /// Instances in memory.
    #[must_use]
    pub fn instances(&self) -> u32 {
        match self {
            Self::Adapter(adapter) => adapter.instances(),
            Self::Auth(auth) => auth.instances(),
            Self::Limits(limits) => limits.instances(),
            Self::Routing(routing) => routing.instances(),
            Self::Filter(filter) => filter.instances(),
        }
    }

    /// How it is doing, and how it has broken.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match self {
            Self::Adapter(adapter) => adapter.condition(),
            Self::Auth(auth) => auth.condition(),
            Self::Limits(limits) => limits.condition(),
            Self::Routing(routing) => routing.condition(),
            Self::Filter(filter) => filter.condition(),
        }
    }
}

/// A plugin in the making.
struct Plan<'a> {
    component: &'a Component,
    shared: Arc<Shared>,
    config: String,
    isolation: Isolation,
}

impl Plan<'_> {
    fn pool<R: Role>(&self, linked: &Arc<Linked<R>>) -> Result<(Arc<Pool<R>>, Wants), Refusal> {
        let runtime = &self.component.runtime;
        let sandbox = &runtime.sandbox;
        let call_ms = if self.component.kind() == Kind::Adapter { sandbox.adapter_ms } else { sandbox.policy_ms };
        let stock = Stock {
            runtime: Arc::clone(runtime),
            linked: Arc::clone(linked),
            shared: Arc::clone(&self.shared),
            config: self.config.clone(),
            isolation: self.isolation,
            call_ms,
        };
        let (pool, wants) = Pool::new(stock).map_err(stillborn_refusal)?;
        Ok((pool, wanted(wants)?))
    }
}

fn stillborn_refusal(stillborn: Stillborn) -> Refusal {
    match stillborn {
        Stillborn::NoRoom => Refusal::new(
            "no-room",
            "there is no room for another instance",
            "remove plugins that are not used, or raise sandbox.instances_max",
        ),
        Stillborn::Refused(issues) => {
            let cure = "correct the plugin's configuration";
            if issues.is_empty() {
                return Refusal::new(
                    "configure-refused",
                    "the plugin refuses its configuration and does not say why",
                    cure,
                );
            }
            let issue = |issue: lifecycle::Issue| Issue { path: issue.path, message: issue.message };
            Refusal::of_config("configure-refused", issues.into_iter().take(32).map(issue).collect(), cure)
        }
        Stillborn::Configure(reason) => {
            let cure = match reason {
                Broken::Deadline(_) => "make `configure` faster, or raise sandbox.configure_ms",
                Broken::Memory => "let it take less memory, or raise sandbox.memory_bytes_max",
                _ => "the log has the stack; correct the plugin",
            };
            Refusal::new("configure-trapped", format!("the plugin {reason} in `configure`"), cure)
        }
        Stillborn::Start(error) if error.is::<wasmtime::Trap>() => Refusal::new(
            "start-trapped",
            format!("it breaks before anything is asked of it: {}", error.root_cause()),
            "correct what the plugin does on its own at the start",
        ),
        Stillborn::Start(error) => Refusal::new(
            "export-type",
            format!("an export is not what the contract says: {error:#}"),
            "rebuild it with the penstock-sdk of this host",
        ),
    }
}

fn wanted(wants: Vec<lifecycle::Want>) -> Result<Wants, Refusal> {
    let refuse =
        |what: String| Refusal::new("configure-refused", what, "correct what `configure` of the plugin answers with");
    if wants.len() > WANTS_MAX {
        return Err(refuse(format!("it wants to see {} things of each call, at most {WANTS_MAX}", wants.len())));
    }
    let mut sorted = Wants::default();
    let mut alike = Vec::new();
    for want in wants {
        let header = || http::HeaderName::from_bytes(want.name.as_bytes());
        let header = || header().map_err(|_| refuse(format!("it wants the header {:?}, which is no name", want.name)));
        match want.kind.as_str() {
            "header" => sorted.headers.push(header()?),
            "response-header" => sorted.response_headers.push(header()?),
            "member" => sorted.members.push(want.name),
            "fact" => sorted.facts.push(want.name),
            "without" => sorted.without.push(want.name),
            "alike" => alike.push(want.name),
            // A plugin may ask for what a later host has: it is not given that.
            other => tracing::debug!(kind = other, "a plugin wants something unknown"),
        }
    }
    sorted.alike = promised(&alike);
    for list in [&mut sorted.headers, &mut sorted.response_headers] {
        list.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        list.dedup();
    }
    sorted.members.sort_unstable();
    sorted.members.dedup();
    Ok(sorted)
}

/// In what calls have to agree to be answered alike; with a part that this host does not know, no two calls do.
fn promised(names: &[String]) -> Option<Alike> {
    if names.is_empty() {
        return None;
    }
    let parts = names.iter().filter(|name| !name.is_empty()).map(|name| Part::of_name(name));
    parts.collect::<Option<_>>().map(Alike)
}
