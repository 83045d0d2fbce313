// SPDX-License-Identifier: Apache-2.0
//! The host as one instance sees it: log, metrics, secrets and state, and the ceilings that it lives under.
//!
//! Which of these a plugin is linked to depends on its kind (`engine`). A secret is a handle here: it can be compared,
//! and it can sign; there is no function that gives its bytes.

use std::sync::Arc;
use std::time::Instant;

use hmac::{Hmac, KeyInit, Mac};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use wasmtime::ResourceLimiter;
use wasmtime::component::{Resource, ResourceTable};
use zeroize::Zeroizing;

use super::bindings::penstock::plugin::{
    filter_types, log, metrics, requests, rules, secrets, state, types, virtual_keys,
};
use super::chatter::{self, Chatter, Flood};
use super::convert;
use super::engine::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use super::series::{CounterHandle, HistogramHandle, PluginSeries};
use super::types::Rule;
use super::watch::Watch;
use crate::directory::{Directory, now_unix_s};
use crate::keys::{Grants, Secret};
use crate::state::Memory;

/// Handles to secrets, counters and histograms of one instance.
const HANDLES_MAX: usize = 1024;

/// What all instances of a configured plugin share.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) grants: Grants,
    pub(super) state: Arc<Memory>,
    pub(super) directory: Option<Directory>,
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
    handles: ResourceTable,
}

impl Imports {
    pub(super) fn new(shared: Arc<Shared>, memory_bytes_max: usize) -> Self {
        let mut handles = ResourceTable::new();
        handles.set_max_capacity(HANDLES_MAX);
        let ceiling = Ceiling { memory_bytes: 0, memory_bytes_max, table_elements: 0, refused: false };
        Self { shared, chatter: Chatter::default(), ceiling, watch: Watch::default(), rules: Arc::default(), handles }
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
}

impl ResourceLimiter for Ceiling {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let sum = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if sum > self.memory_bytes_max {
            self.refused = true;
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
        Ok(found.map(|key| virtual_keys::VirtualKey {
            id: key.id.clone(),
            subject: key.subject.clone(),
            team: key.team.clone(),
            attributes: key.attributes.clone(),
            refusal: key.refusal(now_unix_s()).map(str::to_owned),
        }))
    }
}
