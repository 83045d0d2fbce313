// SPDX-License-Identifier: Apache-2.0
//! The host as one instance sees it: log, metrics, secrets and state, and the ceilings that it lives under.
//!
//! Which of these a plugin is linked to depends on its kind (`engine`). A secret is a handle here: it can be compared,
//! and it can sign; there is no function that gives its bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hmac::{Hmac, KeyInit, Mac};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use wasmtime::ResourceLimiter;
use wasmtime::component::{Resource, ResourceTable};
use zeroize::Zeroizing;

use super::bindings::penstock::plugin::{
    documents, filter_types, log, metrics, requests, rules, secrets, signatures, state, types, virtual_keys,
};
use super::chatter::{self, Chatter};
use super::convert::{self, Allowed, Invalid};
use super::engine::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use super::series::{CounterHandle, HistogramHandle, PluginSeries};
use super::types::{Body, CallError, Grant, Rule, UpstreamRequest, Value, Verified, Wish};
use super::watch::Watch;
use crate::clock;
use crate::directory::Directory;
use crate::documents::{Documents, Known};
use crate::flood::Flood;
use crate::keys::{Grants, Secret};
use crate::slots::{Digest, Parts};
use crate::state::Memory;

/// Handles to secrets, counters and histograms of one instance.
const HANDLES_MAX: usize = 1024;
/// Different questions that an auth plugin may have about one request.
const WISHES_MAX: usize = 8;
/// Largest body of such a question, in bytes.
const QUESTION_BYTES_MAX: usize = 64 << 10;

/// What all instances of a configured plugin share.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) grants: Grants,
    pub(super) state: Arc<Memory>,
    pub(super) directory: Option<Directory>,
    pub(super) documents: Arc<Documents>,
    pub(super) series: Arc<PluginSeries>,
    pub(super) flood: Flood,
}

/// What one instance has of the host.
pub(super) struct Imports {
    pub(super) shared: Arc<Shared>,
    pub(super) chatter: Chatter,
    pub(super) ceiling: Ceiling,
    pub(super) watch: Watch,
    /// What the call that a limits plugin is asked about is under.
    pub(super) rules: Arc<[Rule]>,
    /// What an auth plugin has come to know, or not, in the call that is under way.
    pub(super) known: Findings,
    handles: ResourceTable,
}

/// What the host has noted in one call into an auth plugin.
pub(super) struct Findings {
    /// When the request came that the call is about.
    since: Instant,
    wishes: Vec<Wish>,
    away: bool,
    valid_until_unix_s: Option<u64>,
    invalid: Option<Invalid>,
}

impl Findings {
    /// Nothing yet, about a request that came at a time.
    pub(super) fn since(since: Instant) -> Self {
        Self { since, wishes: Vec::new(), away: false, valid_until_unix_s: None, invalid: None }
    }

    fn wish(&mut self, new: Wish) {
        match self.wishes.iter().position(|wish| Arc::ptr_eq(&wish.entry, &new.entry)) {
            Some(known) => self.wishes[known].is_needed |= new.is_needed,
            None if self.wishes.len() < WISHES_MAX => self.wishes.push(new),
            None => self.invalid = Some(Invalid(format!("more than {WISHES_MAX} questions about one request"))),
        }
    }

    /// With what the plugin has answered. A question that cannot be asked breaks the call.
    pub(super) fn with(self, grant: Result<Grant, CallError>, plugin: &str) -> Verified {
        let Self { since: _, wishes, away, valid_until_unix_s, invalid } = self;
        let grant = invalid.map_or(grant, |invalid| Err(invalid.broken(plugin)));
        Verified { grant, wishes, away, valid_until_unix_s }
    }
}

impl Imports {
    pub(super) fn new(shared: Arc<Shared>, ceiling: Ceiling) -> Self {
        let mut handles = ResourceTable::new();
        handles.set_max_capacity(HANDLES_MAX);
        Self {
            shared,
            chatter: Chatter::default(),
            ceiling,
            watch: Watch::default(),
            rules: Arc::default(),
            known: Findings::since(Instant::now()),
            handles,
        }
    }

    /// Takes bytes of a standard stream.
    pub(super) fn stream(&mut self, stream: chatter::Stream, bytes: &[u8]) {
        self.chatter.stream(&self.shared.name, &self.shared.flood, stream, bytes);
    }
}

/// What an instance may take, over all of its memories and tables.
pub(super) struct Ceiling {
    /// Bytes of all memories now.
    pub(super) memory_bytes: usize,
    memory_bytes_max: usize,
    table_elements: usize,
    /// Whether this call has asked for more memory than there may be.
    pub(super) refused: bool,
    /// Whether this call has asked for memory that other plugins have.
    pub(super) is_crowded: bool,
    all: Arc<MemorySum>,
}

/// What the memories of all instances of all plugins have, and may have, in bytes.
pub(super) struct MemorySum {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl MemorySum {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), bytes_max })
    }

    fn take(&self, more: usize) -> bool {
        let sum = |bytes: usize| bytes.checked_add(more).filter(|sum| *sum <= self.bytes_max);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
    }
}

impl Ceiling {
    pub(super) fn new(memory_bytes_max: usize, all: &Arc<MemorySum>) -> Self {
        let all = Arc::clone(all);
        Self { memory_bytes: 0, memory_bytes_max, table_elements: 0, refused: false, is_crowded: false, all }
    }
}

impl Drop for Ceiling {
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(self.memory_bytes, Ordering::Relaxed);
    }
}

impl ResourceLimiter for Ceiling {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let sum = self.memory_bytes.saturating_add(more);
        if sum > self.memory_bytes_max {
            self.refused = true;
            return Ok(false);
        }
        if !self.all.take(more) {
            self.is_crowded = true;
            return Ok(false);
        }
        self.memory_bytes = sum;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let sum = self.table_elements.saturating_add(desired.saturating_sub(current));
        if sum > TABLE_ELEMENTS_MAX * 2 {
            return Ok(false);
        }
        self.table_elements = sum;
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

impl types::Host for Imports {}
impl requests::Host for Imports {}
impl filter_types::Host for Imports {}

impl log::Host for Imports {
    fn threshold(&mut self) -> wasmtime::Result<log::Level> {
        Ok(chatter::threshold())
    }

    fn write(&mut self, level: log::Level, message: String, fields: Vec<(String, String)>) -> wasmtime::Result<()> {
        self.chatter.line(&self.shared.name, &self.shared.flood, level, &message, &fields);
        Ok(())
    }
}

impl metrics::Host for Imports {}

impl metrics::HostCounter for Imports {
    fn new(&mut self, name: String, help: String, labels: Vec<String>) -> wasmtime::Result<Resource<CounterHandle>> {
        Ok(self.handles.push(self.shared.series.counter(&name, &help, &labels))?)
    }

    fn add(&mut self, counter: Resource<CounterHandle>, delta: u64, values: Vec<String>) -> wasmtime::Result<()> {
        self.handles.get(&counter)?.add(delta, &values);
        Ok(())
    }

    fn drop(&mut self, counter: Resource<CounterHandle>) -> wasmtime::Result<()> {
        self.handles.delete(counter)?;
        Ok(())
    }
}

impl metrics::HostHistogram for Imports {
    fn new(&mut self, name: String, help: String, labels: Vec<String>) -> wasmtime::Result<Resource<HistogramHandle>> {
        Ok(self.handles.push(self.shared.series.histogram(&name, &help, &labels))?)
    }

    fn observe(&mut self, it: Resource<HistogramHandle>, value: f64, values: Vec<String>) -> wasmtime::Result<()> {
        self.handles.get(&it)?.observe(value, &values);
        Ok(())
    }

    fn drop(&mut self, histogram: Resource<HistogramHandle>) -> wasmtime::Result<()> {
        self.handles.delete(histogram)?;
        Ok(())
    }
}

/// A guest's secret: granted, or derived from one that was.
#[allow(unreachable_pub, reason = "the generated bindings export it again")]
pub struct SecretHandle(Arc<Secret>);

impl secrets::Host for Imports {}

impl secrets::HostSecret for Imports {
    fn open(&mut self, name: String) -> wasmtime::Result<Option<Resource<SecretHandle>>> {
        let Some(secret) = self.shared.grants.handle(&name) else { return Ok(None) };
        Ok(Some(self.handles.push(SecretHandle(secret))?))
    }

    fn equals(&mut self, secret: Resource<SecretHandle>, candidate: Vec<u8>) -> wasmtime::Result<bool> {
        Ok(self.handles.get(&secret)?.0.expose().ct_eq(&candidate).into())
    }

    fn hmac_sha256(&mut self, secret: Resource<SecretHandle>, data: Vec<u8>) -> wasmtime::Result<Vec<u8>> {
        hmac(self.handles.get(&secret)?.0.expose(), &data)
    }

    fn derive(
        &mut self,
        secret: Resource<SecretHandle>,
        prefix: String,
        data: Vec<u8>,
    ) -> wasmtime::Result<Resource<SecretHandle>> {
        let secret = &self.handles.get(&secret)?.0;
        let key = Zeroizing::new([prefix.as_bytes(), secret.expose()].concat());
        let derived = Secret::new(hmac(&key, &data)?);
        Ok(self.handles.push(SecretHandle(Arc::new(derived)))?)
    }

    fn digest(
        &mut self,
        secret: Resource<SecretHandle>,
        prefix: Vec<u8>,
        suffix: Vec<u8>,
    ) -> wasmtime::Result<Vec<u8>> {
        let secret = self.handles.get(&secret)?.0.expose();
        Ok(Sha256::new().chain_update(prefix).chain_update(secret).chain_update(suffix).finalize().to_vec())
    }

    fn rs256(&mut self, secret: Resource<SecretHandle>, data: Vec<u8>) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(rs256(self.handles.get(&secret)?.0.expose(), &data))
    }

    fn verify_hmac(
        &mut self,
        secret: Resource<SecretHandle>,
        algorithm: String,
        data: Vec<u8>,
        tag: Vec<u8>,
    ) -> wasmtime::Result<Result<bool, String>> {
        let secret = self.handles.get(&secret)?.0.expose();
        Ok(penstock_signatures::verify_hmac(&algorithm, secret, &data, &tag).map_err(|why| why.to_string()))
    }

    fn drop(&mut self, secret: Resource<SecretHandle>) -> wasmtime::Result<()> {
        self.handles.delete(secret)?;
        Ok(())
    }
}

/// RSASSA-PKCS1-v1_5 with SHA-256 under a private key in PEM; none if it is none.
fn rs256(pem: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let key = PrivateKeyDer::from_pem_slice(pem).ok()?;
    let pair = match &key {
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        _ => return None,
    };
    let pair = pair.ok()?;
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), data, &mut signature).ok()?;
    Some(signature)
}

fn hmac(key: &[u8], data: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| wasmtime::Error::msg("a key of this length"))?;
    mac.update(data);
    Ok(mac.finalize().into_bytes().to_vec())
}

impl rules::Host for Imports {
    fn of_call(&mut self) -> wasmtime::Result<Vec<rules::Rule>> {
        Ok(self.rules.iter().map(convert::rule).collect())
    }
}

impl state::Host for Imports {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, state::Error>> {
        Ok(Ok(self.shared.state.get(&self.shared.name, &key, Instant::now())))
    }

    fn put(&mut self, key: String, value: Vec<u8>, ttl_ms: u64) -> wasmtime::Result<Result<(), state::Error>> {
        let put = self.shared.state.put(&self.shared.name, &key, value, ttl_ms, Instant::now());
        Ok(put.map_err(|over| state::Error::TooLarge(over.0)))
    }

    fn add(&mut self, key: String, delta: i64, ttl_ms: u64) -> wasmtime::Result<Result<i64, state::Error>> {
        let sum = self.shared.state.add(&self.shared.name, &key, delta, ttl_ms, Instant::now());
        Ok(sum.map_err(|over| state::Error::TooLarge(over.0)))
    }
}

impl virtual_keys::Host for Imports {
    fn find(&mut self, presented: String) -> wasmtime::Result<Option<virtual_keys::VirtualKey>> {
        let found = self.shared.directory.as_ref().and_then(|directory| directory.find(presented.as_bytes()));
        Ok(found
            .map(|(key, valid_until_unix_s)| {
                let ends = [self.known.valid_until_unix_s, valid_until_unix_s, key.expires_unix_s];
                self.known.valid_until_unix_s = ends.into_iter().flatten().min();
                key
            })
            .map(|key| virtual_keys::VirtualKey {
                id: key.id.clone(),
                subject: key.subject.clone(),
                team: key.team.clone(),
                attributes: key.attributes.clone(),
                refusal: key.refusal(clock::unix_s()).map(str::to_owned),
            }))
    }
}

impl signatures::Host for Imports {
    fn verify(
        &mut self,
        algorithm: String,
        jwk: String,
        message: Vec<u8>,
        signature: Vec<u8>,
    ) -> wasmtime::Result<Result<bool, String>> {
        Ok(penstock_signatures::verify(&algorithm, &jwk, &message, &signature).map_err(|why| why.to_string()))
    }
}

impl documents::Host for Imports {
    fn get(
        &mut self,
        request: requests::Upstream,
        max_age_ms: u64,
        or_stale_ms: u64,
    ) -> wasmtime::Result<Option<documents::Document>> {
        let request = match question(request, &self.shared.grants) {
            Ok(request) => request,
            Err(invalid) => {
                self.known.invalid.get_or_insert(invalid);
                return Ok(None);
            }
        };
        let (store, now) = (&self.shared.documents, Instant::now());
        let entry = store.entry(&digest(&request));
        let (document, wish) = match store.look(&entry.value, max_age_ms, or_stale_ms, self.known.since) {
            Known::Fresh(document) => (Some(document), None),
            Known::Aging(document) => (Some(document), Some(false)),
            Known::Nothing => (None, Some(true)),
            Known::Away => {
                self.known.away = true;
                (None, None)
            }
        };
        if let Some(is_needed) = wish {
            self.known.wish(Wish { request, entry, is_needed });
        }
        Ok(document.map(|document| documents::Document {
            status: document.status,
            body: document.body.to_vec(),
            version: document.version,
            age_ms: document.age_ms(now),
        }))
    }
}

/// A question of an auth plugin, as far as it can be asked.
fn question(request: requests::Upstream, grants: &Grants) -> Result<UpstreamRequest, Invalid> {
    let request = convert::upstream(request, Allowed { grants, bare: true, fetches: false })?;
    match &request.body {
        Body::Splice(_) => Err(Invalid("a splice in a request that has nothing to splice".to_owned())),
        Body::Bytes(bytes) if bytes.len() > QUESTION_BYTES_MAX => {
            Err(Invalid(format!("a question of {} bytes, at most {QUESTION_BYTES_MAX}", bytes.len())))
        }
        _ => Ok(request),
    }
}

/// Of all of a question.
fn digest(request: &UpstreamRequest) -> Digest {
    let mut parts = Parts::default();
    parts.add(request.method.as_str().as_bytes());
    parts.add(request.endpoint.as_bytes());
    parts.add(request.path.as_bytes());
    for fields in [&request.query, &request.headers] {
        parts.add(&(fields.len() as u64).to_le_bytes());
        for field in fields {
            parts.add(field.name.as_bytes());
            match &field.value {
                Value::Text(text) => {
                    parts.add(b"text");
                    parts.add(text.as_bytes());
                }
                Value::Secret { prefix, name } => {
                    parts.add(b"secret");
                    parts.add(prefix.as_bytes());
                    parts.add(name.as_bytes());
                }
            }
        }
    }
    match &request.body {
        Body::Bytes(bytes) => parts.add(bytes),
        Body::None | Body::Splice(_) => parts.add(b""),
    }
    parts.digest()
}
