// SPDX-License-Identifier: Apache-2.0
//! The part of WASI that a pure guest needs, by hand: no environment, no arguments, no input; output goes to the log;
//! real clocks; random numbers from the system. No file, no socket, and nothing that waits: a guest that blocks on
//! something that is not ready traps, since it would hold up a worker.
//!
//! None of it keeps state, so an instance costs nothing for it. The signatures are those of WASI 0.2; the linker serves
//! every 0.2.x with them.

use std::time::Instant;

use wasmtime::component::{ComponentType, Linker, LinkerInstance, Lower, Resource, ResourceType};
use wasmtime::{Result, StoreContextMut};

use super::chatter::Stream;
use super::imports::Imports;

use crate::clock;

/// Bytes that a stream takes at once.
const WRITE_BYTES_MAX: u64 = 64 << 10;
/// Random bytes for one call.
const RANDOM_BYTES_MAX: u64 = 64 << 10;

type Store<'a> = StoreContextMut<'a, Imports>;

/// `wasi:io/error.error`. No operation of these makes one.
struct IoError;
/// `wasi:io/poll.pollable`: [`READY`] or [`PENDING`].
struct Pollable;
/// `wasi:io/streams.input-stream`: always at its end.
struct Input;
/// `wasi:io/streams.output-stream`: [`OUT`] or [`ERR`].
struct Output;
struct TerminalInput;
struct TerminalOutput;

const READY: u32 = 0;
const PENDING: u32 = 1;
const OUT: u32 = 0;
const ERR: u32 = 1;

#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[allow(dead_code, reason = "part of the type, never made")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

/// Offers it all.
pub(super) fn add_to_linker(linker: &mut Linker<Imports>) -> Result<()> {
    io(linker)?;
    output_stream(&mut linker.instance("wasi:io/streams@0.2.6")?)?;
    cli(linker)?;
    terminal(linker)?;
    clocks(linker)?;
    random(linker)
}

fn io(linker: &mut Linker<Imports>) -> Result<()> {
    let mut error = linker.instance("wasi:io/error@0.2.6")?;
    error.resource("error", ResourceType::host::<IoError>(), |_, _| Ok(()))?;
    error
        .func_wrap("[method]error.to-debug-string", |_: Store<'_>, (_,): (Resource<IoError>,)| Ok((String::new(),)))?;

    let mut poll = linker.instance("wasi:io/poll@0.2.6")?;
    poll.resource("pollable", ResourceType::host::<Pollable>(), |_, _| Ok(()))?;
    poll.func_wrap("[method]pollable.ready", |_: Store<'_>, (it,): (Resource<Pollable>,)| Ok((it.rep() == READY,)))?;
    poll.func_wrap(
        "[method]pollable.block",
        |_: Store<'_>, (it,): (Resource<Pollable>,)| {
            if it.rep() == READY { Ok(()) } else { Err(waits()) }
        },
    )?;
    poll.func_wrap("poll", |_: Store<'_>, (all,): (Vec<Resource<Pollable>>,)| {
        let ready = (0_u32..).zip(&all).filter(|(_, it)| it.rep() == READY).map(|(index, _)| index);
        let ready: Vec<u32> = ready.collect();
        if ready.is_empty() { Err(waits()) } else { Ok((ready,)) }
    })?;

    let mut streams = linker.instance("wasi:io/streams@0.2.6")?;
    streams.resource("input-stream", ResourceType::host::<Input>(), |_, _| Ok(()))?;
    for name in ["[method]input-stream.read", "[method]input-stream.blocking-read"] {
        streams.func_wrap(name, |_: Store<'_>, (_, _): (Resource<Input>, u64)| {
            Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
        })?;
    }
    for name in ["[method]input-stream.skip", "[method]input-stream.blocking-skip"] {
        streams.func_wrap(name, |_: Store<'_>, (_, _): (Resource<Input>, u64)| {
            Ok((Err::<u64, _>(StreamError::Closed),))
        })?;
    }
    streams.func_wrap("[method]input-stream.subscribe", |_: Store<'_>, (_,): (Resource<Input>,)| Ok((pollable(READY),)))
}

fn output_stream(streams: &mut LinkerInstance<'_, Imports>) -> Result<()> {
    streams.resource("output-stream", ResourceType::host::<Output>(), |_, _| Ok(()))?;
    streams.func_wrap("[method]output-stream.check-write", |_: Store<'_>, (_,): (Resource<Output>,)| {
        Ok((Ok::<_, StreamError>(WRITE_BYTES_MAX),))
    })?;
    for name in ["[method]output-stream.write", "[method]output-stream.blocking-write-and-flush"] {
        streams.func_wrap(name, |mut store: Store<'_>, (it, bytes): (Resource<Output>, Vec<u8>)| {
            store.data_mut().stream(if it.rep() == ERR { Stream::Err } else { Stream::Out }, &bytes);
            Ok((Ok::<_, StreamError>(()),))
        })?;
    }
    for name in ["[method]output-stream.flush", "[method]output-stream.blocking-flush"] {
        streams.func_wrap(name, |_: Store<'_>, (_,): (Resource<Output>,)| Ok((Ok::<_, StreamError>(()),)))?;
    }
    for name in ["[method]output-stream.write-zeroes", "[method]output-stream.blocking-write-zeroes-and-flush"] {
        streams.func_wrap(name, |_: Store<'_>, (_, _): (Resource<Output>, u64)| Ok((Ok::<_, StreamError>(()),)))?;
    }
    for name in ["[method]output-stream.splice", "[method]output-stream.blocking-splice"] {
        streams.func_wrap(name, |_: Store<'_>, (_, _, _): (Resource<Output>, Resource<Input>, u64)| {
            Ok((Err::<u64, _>(StreamError::Closed),))
        })?;
    }
    streams
        .func_wrap("[method]output-stream.subscribe", |_: Store<'_>, (_,): (Resource<Output>,)| Ok((pollable(READY),)))
}

fn cli(linker: &mut Linker<Imports>) -> Result<()> {
    let mut environment = linker.instance("wasi:cli/environment@0.2.6")?;
    environment.func_wrap("get-environment", |_: Store<'_>, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
    environment.func_wrap("get-arguments", |_: Store<'_>, (): ()| Ok((Vec::<String>::new(),)))?;
    environment.func_wrap("initial-cwd", |_: Store<'_>, (): ()| Ok((None::<String>,)))?;

    let mut exit = linker.instance("wasi:cli/exit@0.2.6")?;
    exit.func_wrap("exit", |_: Store<'_>, (_,): (std::result::Result<(), ()>,)| -> Result<()> { Err(exits()) })?;
    exit.func_wrap("exit-with-code", |_: Store<'_>, (_,): (u8,)| -> Result<()> { Err(exits()) })?;

    linker
        .instance("wasi:cli/stdin@0.2.6")?
        .func_wrap("get-stdin", |_: Store<'_>, (): ()| Ok((Resource::<Input>::new_own(0),)))?;
    linker
        .instance("wasi:cli/stdout@0.2.6")?
        .func_wrap("get-stdout", |_: Store<'_>, (): ()| Ok((Resource::<Output>::new_own(OUT),)))?;
    linker
        .instance("wasi:cli/stderr@0.2.6")?
        .func_wrap("get-stderr", |_: Store<'_>, (): ()| Ok((Resource::<Output>::new_own(ERR),)))
}

fn terminal(linker: &mut Linker<Imports>) -> Result<()> {
    let mut input = linker.instance("wasi:cli/terminal-input@0.2.6")?;
    input.resource("terminal-input", ResourceType::host::<TerminalInput>(), |_, _| Ok(()))?;
    let mut output = linker.instance("wasi:cli/terminal-output@0.2.6")?;
    output.resource("terminal-output", ResourceType::host::<TerminalOutput>(), |_, _| Ok(()))?;
    linker
        .instance("wasi:cli/terminal-stdin@0.2.6")?
        .func_wrap("get-terminal-stdin", |_: Store<'_>, (): ()| Ok((None::<Resource<TerminalInput>>,)))?;
    linker
        .instance("wasi:cli/terminal-stdout@0.2.6")?
        .func_wrap("get-terminal-stdout", |_: Store<'_>, (): ()| Ok((None::<Resource<TerminalOutput>>,)))?;
    linker
        .instance("wasi:cli/terminal-stderr@0.2.6")?
        .func_wrap("get-terminal-stderr", |_: Store<'_>, (): ()| Ok((None::<Resource<TerminalOutput>>,)))
}

fn clocks(linker: &mut Linker<Imports>) -> Result<()> {
    let begin = Instant::now();
    let now = move || u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let mut monotonic = linker.instance("wasi:clocks/monotonic-clock@0.2.6")?;
    monotonic.func_wrap("now", move |_: Store<'_>, (): ()| Ok((now(),)))?;
    monotonic.func_wrap("resolution", |_: Store<'_>, (): ()| Ok((1_u64,)))?;
    monotonic.func_wrap("subscribe-instant", move |_: Store<'_>, (when,): (u64,)| {
        Ok((pollable(if when <= now() { READY } else { PENDING }),))
    })?;
    monotonic.func_wrap("subscribe-duration", |_: Store<'_>, (wait,): (u64,)| {
        Ok((pollable(if wait == 0 { READY } else { PENDING }),))
    })?;

    let mut wall = linker.instance("wasi:clocks/wall-clock@0.2.6")?;
    wall.func_wrap("now", |_: Store<'_>, (): ()| {
        let now = clock::since_1970();
        Ok((Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() },))
    })?;
    wall.func_wrap("resolution", |_: Store<'_>, (): ()| Ok((Datetime { seconds: 0, nanoseconds: 1 },)))
}

fn random(linker: &mut Linker<Imports>) -> Result<()> {
    for (instance, bytes, number) in [
        ("wasi:random/random@0.2.6", "get-random-bytes", "get-random-u64"),
        ("wasi:random/insecure@0.2.6", "get-insecure-random-bytes", "get-insecure-random-u64"),
    ] {
        let mut random = linker.instance(instance)?;
        random.func_wrap(bytes, |_: Store<'_>, (length,): (u64,)| Ok((random_bytes(length)?,)))?;
        random.func_wrap(number, |_: Store<'_>, (): ()| Ok((random_number()?,)))?;
    }
    linker
        .instance("wasi:random/insecure-seed@0.2.6")?
        .func_wrap("insecure-seed", |_: Store<'_>, (): ()| Ok(((random_number()?, random_number()?),)))
}

fn pollable(state: u32) -> Resource<Pollable> {
    Resource::new_own(state)
}

fn random_bytes(length: u64) -> Result<Vec<u8>> {
    if length > RANDOM_BYTES_MAX {
        return Err(wasmtime::Error::msg(format!("at most {RANDOM_BYTES_MAX} random bytes are given at once")));
    }
    let mut bytes = vec![0; usize::try_from(length)?];
    getrandom::fill(&mut bytes).map_err(|error| wasmtime::Error::msg(error.to_string()))?;
    Ok(bytes)
}

fn random_number() -> Result<u64> {
    getrandom::u64().map_err(|error| wasmtime::Error::msg(error.to_string()))
}

fn waits() -> wasmtime::Error {
    wasmtime::Error::msg("a plugin cannot wait for anything")
}

fn exits() -> wasmtime::Error {
    wasmtime::Error::msg("it called exit")
}
