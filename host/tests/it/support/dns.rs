// SPDX-License-Identifier: Apache-2.0
//! A DNS server on loopback that says what a test wants, over UDP and TCP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use simple_dns::rdata::{A, RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// What the server knows.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    /// Name, TTL, last byte of an address in 127.0.0.0/24.
    addresses: Vec<(String, u32, u8)>,
    /// Name, then priority, weight, port and target.
    services: Vec<(String, (u16, u16, u16, String))>,
}

impl Zone {
    /// Knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Addresses of a name.
    pub fn a(mut self, name: &str, ttl: u32, lasts: &[u8]) -> Self {
        self.addresses.extend(lasts.iter().map(|last| (name.to_owned(), ttl, *last)));
        self
    }

    /// A service record: priority, weight, port, target.
    pub fn srv(mut self, name: &str, (priority, weight, port, target): (u16, u16, u16, &str)) -> Self {
        self.services.push((name.to_owned(), (priority, weight, port, target.to_owned())));
        self
    }
}

#[derive(Default)]
struct Shared {
    zone: Mutex<Zone>,
    silent: AtomicBool,
    garbage: AtomicBool,
    long: AtomicBool,
    asked: AtomicUsize,
    asked_by_tcp: AtomicUsize,
}

/// The server.
pub struct Dns {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Dns {
    /// Listens, and knows this.
    pub async fn start(zone: Zone) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // Another test may have the port for TCP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let shared = Arc::new(Shared { zone: Mutex::new(zone), ..Shared::default() });
        let by_udp = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut bytes = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut bytes).await {
                by_udp.asked.fetch_add(1, Ordering::Relaxed);
                if !by_udp.silent.load(Ordering::Relaxed) {
                    udp.send_to(&by_udp.answer(&bytes[..length], false), from).await.unwrap();
                }
            }
        });
        let by_tcp = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                by_tcp.asked_by_tcp.fetch_add(1, Ordering::Relaxed);
                let length = stream.read_u16().await.unwrap();
                let mut bytes = vec![0; length.into()];
                stream.read_exact(&mut bytes).await.unwrap();
                let answer = by_tcp.answer(&bytes, true);
                stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        Self { address, shared }
    }

    /// From now on it knows this.
    pub fn says(&self, zone: Zone) {
        *self.shared.zone.lock().unwrap() = zone;
    }

    /// Whether it gives no answers.
    pub fn is_silent(&self, is: bool) {
        self.shared.silent.store(is, Ordering::Relaxed);
    }

    /// Whether its answers are none.
    pub fn is_garbage(&self, is: bool) {
        self.shared.garbage.store(is, Ordering::Relaxed);
    }

    /// Whether its answers do not fit into a datagram.
    pub fn is_long(&self, is: bool) {
        self.shared.long.store(is, Ordering::Relaxed);
    }

    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// Questions over TCP so far.
    pub fn asked_by_tcp(&self) -> usize {
        self.shared.asked_by_tcp.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn answer(&self, question: &[u8], by_tcp: bool) -> Vec<u8> {
        if self.garbage.load(Ordering::Relaxed) {
            return [&question[..2], b"\x81\x80garbage"].concat();
        }
        let zone = self.zone.lock().unwrap().clone();
        let question = Packet::parse(question).unwrap();
        let asked = question.questions[0].clone();
        let name = asked.qname.to_string();
        let mut packet = question.into_reply();
        packet.set_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_AVAILABLE);
        if self.long.load(Ordering::Relaxed) && !by_tcp {
            packet.set_flags(PacketFlag::TRUNCATION);
            return packet.build_bytes_vec().unwrap();
        }
        let mut add = |ttl, data: RData<'static>| {
            let name = Name::new(&name).unwrap().into_owned();
            packet.answers.push(ResourceRecord::new(name, CLASS::IN, ttl, data));
        };
        let mut is_known = false;
        for (_, ttl, last) in zone.addresses.iter().filter(|(known, ..)| *known == name) {
            is_known = true;
            if asked.qtype == QTYPE::TYPE(TYPE::A) {
                add(*ttl, RData::A(A { address: u32::from_be_bytes([127, 0, 0, *last]) }));
            }
        }
        for (_, (priority, weight, port, target)) in zone.services.iter().filter(|(known, _)| *known == name) {
            is_known = true;
            if asked.qtype == QTYPE::TYPE(TYPE::SRV) {
                let target = Name::new(target).unwrap().into_owned();
                add(0, RData::SRV(SRV { priority: *priority, weight: *weight, port: *port, target }));
            }
        }
        if !is_known {
            *packet.rcode_mut() = RCODE::NameError;
        }
        packet.build_bytes_vec_compressed().unwrap()
    }
}
