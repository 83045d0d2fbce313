// SPDX-License-Identifier: Apache-2.0
//! Asks DNS servers where something is, with how long that holds: what the system's resolver does not tell. Messages are read and
//! written by `simple-dns`; here are the questions, over UDP and, when an answer is too long for that, TCP (RFC 1035, 7766).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// How long one server has for one answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Turns in which all servers are asked.
const TURNS: usize = 2;
/// Largest answer over UDP that is read; what a server may send unasked is 512 bytes.
const UDP_BYTES_MAX: usize = 4096;
/// Names that an alias may lead on to.
const ALIASES_MAX: usize = 8;
/// Hosts of SRV records that are looked up.
const HOSTS_MAX: usize = 256;
/// Where the system says which servers there are.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const PORT: u16 = 53;

/// Servers to ask; a clone asks the same.
#[derive(Debug, Clone)]
pub struct Names {
    servers: Arc<[SocketAddr]>,
    /// What is put behind names that are not whole.
    search: Arc<[String]>,
    /// Names with as many dots are tried as they are first.
    dots: usize,
}

/// What was found, and for how long that holds, in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known<T> {
    /// What was found; nothing, if the name has nothing of the kind.
    pub found: Vec<T>,
    /// The shortest TTL of it.
    pub ttl_s: u32,
}

/// A host that offers a service (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub host: String,
    /// Where it is.
    pub address: SocketAddr,
    /// Its share.
    pub weight: u16,
    /// Higher ones are asked later.
    pub priority: u16,
}

impl Names {
    /// Asks these servers; whole names only.
    #[must_use]
    pub fn at(servers: &[SocketAddr]) -> Self {
        Self { servers: servers.into(), search: Arc::default(), dots: 0 }
    }

    /// Asks as the system says. Reads a small file.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn system() -> Result<Self, String> {
        let text = std::fs::read(RESOLV_CONF).map_err(|error| format!("{RESOLV_CONF}: {error}"))?;
        let config = resolv_conf::Config::parse(text).map_err(|error| format!("{RESOLV_CONF}: {error}"))?;
        let servers = config.get_nameservers_or_local().into_iter();
        let servers = servers.map(|server| SocketAddr::new(IpAddr::from(&server), PORT)).collect();
        let search = config.get_last_search_or_domain().map(ToString::to_string).collect();
        Ok(Self { servers, search, dots: config.ndots as usize })
    }

    /// All addresses of a name. An address is its own.
    ///
    /// # Errors
    /// No server has answered.
    pub async fn addresses(&self, name: &str) -> Result<Known<IpAddr>, String> {
        if let Ok(address) = name.trim_matches(['[', ']']).parse() {
            return Ok(Known { found: vec![address], ttl_s: u32::MAX });
        }
        let mut last = Known { found: Vec::new(), ttl_s: 0 };
        for name in self.whole(name) {
            let (four, six) = tokio::join!(self.ask(&name, TYPE::A), self.ask(&name, TYPE::AAAA));
            // Servers exist that know nothing of AAAA: one of the two is enough.
            let both = match (four, six) {
                (Ok(four), Ok(six)) => four.and(six),
                (Ok(one), Err(_)) | (Err(_), Ok(one)) if !one.found.is_empty() => one,
                (Err(error), _) | (_, Err(error)) => return Err(error),
            };
            last = both.map(|record| match record {
                Record::Address(address) => Some(address),
                Record::Offer { .. } => None,
            });
            if !last.found.is_empty() {
                break;
            }
        }
        Ok(last)
    }

    /// Who offers a service: each address of each host.
    ///
    /// # Errors
    /// No server has answered.
    pub async fn offers(&self, name: &str) -> Result<Known<Offer>, String> {
        let mut records = Known { found: Vec::new(), ttl_s: 0 };
        for name in self.whole(name) {
            records = self.ask(&name, TYPE::SRV).await?;
            if !records.found.is_empty() {
                break;
            }
        }
        let (mut looking, mut ttl_s) = (JoinSet::new(), records.ttl_s);
        for record in records.found.into_iter().take(HOSTS_MAX) {
            // A single dot says that the service is not offered at all.
            let Record::Offer { host, port, weight, priority } = record else { continue };
            if host.is_empty() {
                continue;
            }
            let names = Self { dots: 0, search: Arc::default(), servers: Arc::clone(&self.servers) };
            looking.spawn(async move {
                let known = names.addresses(&host).await?;
                let offers = known.found.into_iter().map(|address| Offer {
                    host: host.clone(),
                    address: SocketAddr::new(address, port),
                    weight,
                    priority,
                });
                Ok::<_, String>((offers.collect::<Vec<_>>(), known.ttl_s))
            });
        }
        let (mut found, mut failed) = (Vec::new(), None);
        while let Some(looked) = looking.join_next().await {
            match looked.map_err(|error| error.to_string()).and_then(|looked| looked) {
                Ok((offers, ttl)) => {
                    ttl_s = ttl_s.min(ttl);
                    found.extend(offers);
                }
                Err(error) => failed = Some(error),
            }
        }
        // The answers come in any order; a list that has not changed should look so.
        found.sort_by(|a, b| (a.priority, &a.host, a.address).cmp(&(b.priority, &b.host, b.address)));
        match failed {
            Some(error) if found.is_empty() => Err(error),
            Some(_) | None => Ok(Known { found, ttl_s }),
        }
    }

    /// The whole names that a name may stand for, in the order in which to try them.
    fn whole(&self, name: &str) -> Vec<String> {
        if let Some(whole) = name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let mut names: Vec<_> = self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let place = if name.matches('.').count() >= self.dots { 0 } else { names.len() };
        names.insert(place, name.to_owned());
        names
    }

    async fn ask(&self, name: &str, of: TYPE) -> Result<Known<Record>, String> {
        let mut why = "no DNS server is known".to_owned();
        for _ in 0..TURNS {
            for server in self.servers.iter() {
                match tokio::time::timeout(ANSWER, exchange(*server, name, of)).await {
                    Ok(Ok(known)) => return Ok(known),
                    Ok(Err(error)) => why = format!("the DNS server {server}: {error}"),
                    Err(_) => why = format!("the DNS server {server} gave no answer in {} ms", ANSWER.as_millis()),
                }
            }
        }
        Err(why)
    }
}

impl<T> Known<T> {
    /// Both together.
    fn and(mut self, other: Self) -> Self {
        if self.found.is_empty() {
            return other;
        }
        if !other.found.is_empty() {
            self.ttl_s = self.ttl_s.min(other.ttl_s);
            self.found.extend(other.found);
        }
        self
    }

    fn map<U>(self, of: impl FnMut(T) -> Option<U>) -> Known<U> {
        Known { found: self.found.into_iter().filter_map(of).collect(), ttl_s: self.ttl_s }
    }
}

/// What is read of an answer.
enum Record {
    Address(IpAddr),
    Offer { host: String, port: u16, weight: u16, priority: u16 },
}

/// Asks one server. Its address and port, ours, and the number of the question must fit; so nobody else can easily answer.
async fn exchange(server: SocketAddr, name: &str, of: TYPE) -> Result<Known<Record>, String> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|error| error.to_string())?;
    let id = u16::from_be_bytes(id);
    let question = question(id, name, of)?;
    let here: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let told = |error: std::io::Error| error.kind().to_string();
    let socket = UdpSocket::bind((here, 0)).await.map_err(told)?;
    socket.connect(server).await.map_err(told)?;
    socket.send(&question).await.map_err(told)?;
    let mut bytes = vec![0; UDP_BYTES_MAX];
    loop {
        let length = socket.recv(&mut bytes).await.map_err(told)?;
        match read(&bytes[..length], id, name, of)? {
            Read::Known(known) => return Ok(known),
            Read::Cut => break,
            Read::Foreign => {} // whoever sent it: wait for the answer
        }
    }
    let mut stream = TcpStream::connect(server).await.map_err(told)?;
    let length = u16::try_from(question.len()).map_err(|error| error.to_string())?;
    stream.write_all(&[&length.to_be_bytes(), &question[..]].concat()).await.map_err(told)?;
    let length = stream.read_u16().await.map_err(told)?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await.map_err(told)?;
    match read(&bytes, id, name, of)? {
        Read::Known(known) => Ok(known),
        Read::Cut | Read::Foreign => Err("its answer is to another question".to_owned()),
    }
}

fn question(id: u16, name: &str, of: TYPE) -> Result<Vec<u8>, String> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(|error| format!("{name:?} is no name: {error}"))?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(of), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().map_err(|error| error.to_string())
}

enum Read {
    Known(Known<Record>),
    /// It did not fit into a datagram.
    Cut,
    /// It is no answer to this question.
    Foreign,
}

fn read(bytes: &[u8], id: u16, name: &str, of: TYPE) -> Result<Read, String> {
    let packet = match Packet::parse(bytes) {
        Ok(packet) => packet,
        // Of one that was cut the end may be missing, in the middle of a record.
        Err(_) if bytes.len() > 3 && bytes[..2] == id.to_be_bytes() && bytes[2] & 2 != 0 => return Ok(Read::Cut),
        Err(error) => return Err(format!("its answer cannot be read: {error}")),
    };
    let asked = packet.questions.first();
    let is_ours = asked.is_some_and(|asked| is(&asked.qname, name) && asked.qtype == QTYPE::TYPE(of));
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !is_ours {
        return Ok(Read::Foreign);
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Ok(Read::Cut);
    }
    match packet.rcode() {
        RCODE::NoError => Ok(Read::Known(records(&packet, name))),
        RCODE::NameError => Ok(Read::Known(Known { found: Vec::new(), ttl_s: 0 })),
        other => Err(format!("it has answered {other:?}")),
    }
}

/// The records of a name, or of that which it is an alias of.
fn records(packet: &Packet<'_>, name: &str) -> Known<Record> {
    let mut known = Known { found: Vec::new(), ttl_s: u32::MAX };
    let mut name = name.to_owned();
    for _ in 0..ALIASES_MAX {
        let alias = packet.answers.iter().find_map(|answer| match &answer.rdata {
            RData::CNAME(alias) if is(&answer.name, &name) => Some((alias.0.to_string(), answer.ttl)),
            _ => None,
        });
        let Some((alias, ttl)) = alias else { break };
        known.ttl_s = known.ttl_s.min(ttl);
        name = alias;
    }
    for answer in packet.answers.iter().filter(|answer| is(&answer.name, &name) && answer.class == CLASS::IN) {
        let record = match &answer.rdata {
            RData::A(of) => Record::Address(Ipv4Addr::from_bits(of.address).into()),
            RData::AAAA(of) => Record::Address(Ipv6Addr::from_bits(of.address).into()),
            RData::SRV(of) => {
                let (port, weight, priority) = (of.port, of.weight, of.priority);
                Record::Offer { host: of.target.to_string(), port, weight, priority }
            }
            _ => continue,
        };
        known.ttl_s = known.ttl_s.min(answer.ttl);
        known.found.push(record);
    }
    if known.found.is_empty() {
        known.ttl_s = 0;
    }
    known
}

fn is(name: &Name<'_>, text: &str) -> bool {
    name.to_string().trim_end_matches('.').eq_ignore_ascii_case(text.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, CNAME};

    use super::*;

    fn answer(id: u16, name: &str, answers: Vec<(&'static str, u32, RData<'static>)>) -> Vec<u8> {
        let question = question(id, name, TYPE::A).unwrap();
        let mut packet = Packet::parse(&question).unwrap().into_reply();
        packet.set_flags(PacketFlag::RESPONSE);
        for (name, ttl, data) in answers {
            packet.answers.push(ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, ttl, data));
        }
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn a(last: u8) -> RData<'static> {
        RData::A(A { address: u32::from_be_bytes([10, 0, 0, last]) })
    }

    #[test]
    fn aliases_are_followed_and_records_of_other_names_are_not_believed() {
        let alias = RData::CNAME(CNAME(Name::new_unchecked("Real.example")));
        let bytes = answer(
            7,
            "x.example",
            vec![
                ("X.example", 30, alias),
                ("real.example", 60, a(1)),
                ("real.example", 90, a(2)),
                ("other.example", 1, a(9)),
            ],
        );
        let Read::Known(known) = read(&bytes, 7, "x.example", TYPE::A).unwrap() else { panic!("an answer") };
        let found = known.found.iter().filter_map(|record| match record {
            Record::Address(address) => Some(address.to_string()),
            Record::Offer { .. } => None,
        });
        assert_eq!((found.collect::<Vec<_>>(), known.ttl_s), (vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()], 30));
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let bytes = answer(7, "x.example", vec![("x.example", 30, a(1))]);
        for (id, name, of) in [(8, "x.example", TYPE::A), (7, "y.example", TYPE::A), (7, "x.example", TYPE::AAAA)] {
            assert!(matches!(read(&bytes, id, name, of), Ok(Read::Foreign)), "{id} {name}");
        }
        assert!(matches!(
            read(&question(7, "x.example", TYPE::A).unwrap(), 7, "x.example", TYPE::A),
            Ok(Read::Foreign)
        ));
        for end in 0..bytes.len() {
            assert!(!matches!(read(&bytes[..end], 7, "x.example", TYPE::A), Ok(Read::Known(_))), "{end}");
        }
        assert!(read(b"garbage", 7, "x.example", TYPE::A).is_err());
    }

    #[test]
    fn names_that_are_not_whole_are_tried_with_what_the_system_says() {
        let names = Names { servers: Arc::default(), search: ["a.b".to_owned()].into(), dots: 2 };
        assert_eq!(names.whole("x"), ["x.a.b", "x"]);
        assert_eq!(names.whole("x.y.z"), ["x.y.z", "x.y.z.a.b"]);
        assert_eq!(names.whole("x."), ["x"]);
    }
}
