//! Messages of DNS, as far as a server of one zone needs them (RFC 1035, 2782, 6891).

use std::net::Ipv4Addr;

pub const A: u16 = 1;
pub const NS: u16 = 2;
pub const CNAME: u16 = 5;
pub const SOA: u16 = 6;
pub const PTR: u16 = 12;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;
const OPT: u16 = 41;
pub const ANY: u16 = 255;
const CLASS_IN: u16 = 1;

/// What answers hold without extensions, and what ours do with them.
const UDP_BYTES: usize = 512;
const UDP_BYTES_MAX: usize = 1232;

const RESPONSE: u16 = 1 << 15;
const AUTHORITATIVE: u16 = 1 << 10;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_DESIRED: u16 = 1 << 8;
const RECURSION_AVAILABLE: u16 = 1 << 7;
const OPCODE: u16 = 0b1111 << 11;
const CHECKING_DISABLED: u16 = 1 << 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NoSuchName = 3,
    NotImplemented = 4,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    id: u16,
    flags: u16,
    /// In lower case, without the dot at the end.
    pub name: String,
    /// As it was asked.
    asked: Vec<u8>,
    pub kind: u16,
    pub class: u16,
    /// With extensions: how long an answer by UDP may be.
    udp_bytes: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    A(Ipv4Addr),
    /// As it came from elsewhere.
    Aaaa([u8; 16]),
    Name(u16, String),
    Srv {
        port: u16,
        target: String,
        weight: u16,
    },
    Txt(String),
    /// Who answers for the zone, and whom to write to.
    Soa(String, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    pub ttl: u32,
    pub data: Data,
}

/// What an answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub no_such_name: bool,
    pub records: Vec<Record>,
    pub authority: Vec<Record>,
    pub additional: Vec<Record>,
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

/// A name, and where what follows it begins.
fn name_at(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels: Vec<String> = Vec::new();
    let mut after = None;
    // Pointers only lead back, so there are fewer than bytes.
    for _ in 0..128 {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some((labels.join("."), after.unwrap_or(at + 1))),
            0xc0.. => {
                after.get_or_insert(at + 2);
                at = usize::from(u16_at(message, at)? & 0x3fff);
            }
            1..=63 => {
                let label = message.get(at + 1..at + 1 + length)?;
                labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
                at += length + 1;
            }
            _ => return None,
        }
    }
    None
}

impl Question {
    /// None for what cannot be answered at all; an error code for what can only be refused.
    pub fn read(message: &[u8]) -> Option<Result<Question, Vec<u8>>> {
        let (id, flags) = (u16_at(message, 0)?, u16_at(message, 2)?);
        if flags & RESPONSE != 0 {
            return None;
        }
        let refused = |code: Code| {
            let flags = RESPONSE | (flags & (OPCODE | RECURSION_DESIRED)) | code as u16;
            let mut answer = Vec::from(id.to_be_bytes());
            answer.extend_from_slice(&flags.to_be_bytes());
            answer.extend_from_slice(&[0; 8]);
            Some(Err(answer))
        };
        if flags & OPCODE != 0 {
            return refused(Code::NotImplemented);
        }
        let read = || {
            let (name, end) = (u16_at(message, 4)? == 1).then(|| name_at(message, 12))??;
            let question = Question {
                id,
                flags,
                name,
                asked: message.get(12..end + 4)?.to_vec(),
                kind: u16_at(message, end)?,
                class: u16_at(message, end + 2)?,
                udp_bytes: None,
            };
            Some((question, end + 4))
        };
        let Some((mut question, mut at)) = read() else {
            return refused(Code::FormatError);
        };
        // Answers and authorities are empty in questions; the extension is among the rest.
        let rest = [6, 8, 10].map(|at| u16_at(message, at).unwrap_or_default());
        for _ in 0..rest.iter().map(|count| u32::from(*count)).sum::<u32>() {
            let Some((_, end)) = name_at(message, at) else { break };
            let (Some(kind), Some(class), Some(length)) =
                (u16_at(message, end), u16_at(message, end + 2), u16_at(message, end + 8))
            else {
                break;
            };
            if kind == OPT {
                question.udp_bytes = Some(usize::from(class).clamp(UDP_BYTES, UDP_BYTES_MAX));
            }
            at = end + 10 + usize::from(length);
        }
        Some(Ok(question))
    }

    pub fn is_internet(&self) -> bool {
        self.class == CLASS_IN
    }

    /// A question of our own.
    pub fn message(id: u16, name: &str, kind: u16) -> Vec<u8> {
        let mut message = Vec::from(id.to_be_bytes());
        message.extend_from_slice(&RECURSION_DESIRED.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        put_name(&mut message, name);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&CLASS_IN.to_be_bytes());
        message
    }

    /// The answer as a message; by UDP it is cut off where it is too long.
    pub fn answer(&self, answer: &Answer, udp: bool) -> Vec<u8> {
        let whole = self.write(answer, 0);
        let bytes_max = if udp {
            self.udp_bytes.unwrap_or(UDP_BYTES)
        } else {
            usize::from(u16::MAX)
        };
        match whole.len() > bytes_max {
            true => self.write(
                &Answer {
                    records: Vec::new(),
                    additional: Vec::new(),
                    ..answer.clone()
                },
                TRUNCATED,
            ),
            false => whole,
        }
    }

    fn write(&self, answer: &Answer, flags: u16) -> Vec<u8> {
        let code = if answer.no_such_name {
            Code::NoSuchName
        } else {
            Code::NoError
        };
        self.head(flags | AUTHORITATIVE, code, answer)
    }

    /// Nobody could be asked.
    pub fn failure(&self) -> Vec<u8> {
        self.head(0, Code::ServerFailure, &Answer::default())
    }

    fn head(&self, flags: u16, code: Code, answer: &Answer) -> Vec<u8> {
        let asked = self.flags & (RECURSION_DESIRED | CHECKING_DISABLED);
        let flags = RESPONSE | RECURSION_AVAILABLE | asked | flags | code as u16;
        let count = |records: &[Record]| u16::try_from(records.len()).unwrap_or(u16::MAX);
        let extension = u16::from(self.udp_bytes.is_some());
        let mut message = Vec::with_capacity(UDP_BYTES);
        for number in [
            self.id,
            flags,
            1,
            count(&answer.records),
            count(&answer.authority),
            count(&answer.additional) + extension,
        ] {
            message.extend_from_slice(&number.to_be_bytes());
        }
        message.extend_from_slice(&self.asked);
        let records = [&answer.records, &answer.authority, &answer.additional];
        for record in records.into_iter().flatten() {
            // Most are about the name that was asked for.
            match record.name == self.name {
                true => message.extend_from_slice(&[0xc0, 12]),
                false => put_name(&mut message, &record.name),
            }
            put_record(&mut message, record);
        }
        if self.udp_bytes.is_some() {
            message.push(0);
            message.extend_from_slice(&OPT.to_be_bytes());
            message.extend_from_slice(&u16::try_from(UDP_BYTES_MAX).unwrap_or_default().to_be_bytes());
            message.extend_from_slice(&[0; 6]);
        }
        message
    }
}

fn put_name(message: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = label.as_bytes().get(..label.len().min(63)).unwrap_or_default();
        message.push(u8::try_from(label.len()).unwrap_or_default());
        message.extend_from_slice(label);
    }
    message.push(0);
}

fn put_record(message: &mut Vec<u8>, record: &Record) {
    let mut data = Vec::new();
    let kind = match &record.data {
        Data::A(address) => {
            data.extend_from_slice(&address.octets());
            A
        }
        Data::Aaaa(address) => {
            data.extend_from_slice(address);
            AAAA
        }
        Data::Name(kind, name) => {
            put_name(&mut data, name);
            *kind
        }
        Data::Srv { port, target, weight } => {
            for number in [0, *weight, *port] {
                data.extend_from_slice(&number.to_be_bytes());
            }
            put_name(&mut data, target);
            SRV
        }
        Data::Txt(text) => {
            data.push(u8::try_from(text.len()).unwrap_or_default());
            data.extend_from_slice(text.as_bytes());
            TXT
        }
        Data::Soa(server, contact) => {
            put_name(&mut data, server);
            put_name(&mut data, contact);
            // Serial, refresh, retry, expiry, and how long it is remembered that there is none.
            for number in [1, 7200, 1800, 86_400, record.ttl] {
                data.extend_from_slice(&number.to_be_bytes());
            }
            SOA
        }
    };
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&CLASS_IN.to_be_bytes());
    message.extend_from_slice(&record.ttl.to_be_bytes());
    message.extend_from_slice(&u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
    message.extend_from_slice(&data);
}

/// Addresses and other names in somebody else's answer.
pub fn records(message: &[u8]) -> Option<Vec<Record>> {
    let (questions, answers) = (u16_at(message, 4)?, u16_at(message, 6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = name_at(message, at)?.1 + 4;
    }
    let mut records = Vec::new();
    for _ in 0..answers {
        let (name, end) = name_at(message, at)?;
        let kind = u16_at(message, end)?;
        let ttl = u32::from_be_bytes(message.get(end + 4..end + 8)?.try_into().ok()?);
        let length = usize::from(u16_at(message, end + 8)?);
        let data = message.get(end + 10..end + 10 + length)?;
        let data = match kind {
            A => Some(Data::A(<[u8; 4]>::try_from(data).ok()?.into())),
            AAAA => Some(Data::Aaaa(data.try_into().ok()?)),
            CNAME | PTR | NS => Some(Data::Name(kind, name_at(message, end + 10)?.0)),
            SRV => Some(Data::Srv {
                weight: u16_at(data, 2)?,
                port: u16_at(data, 4)?,
                target: name_at(message, end + 16)?.0,
            }),
            _ => None,
        };
        records.extend(data.map(|data| Record { name, ttl, data }));
        at = end + 10 + length;
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: u16) -> Question {
        Question::read(&Question::message(7, name, kind)).unwrap().unwrap()
    }

    #[test]
    fn questions_and_answers() {
        let asked = question("Web.Default.svc.cluster.local", A);
        assert_eq!((asked.name.as_str(), asked.kind), ("web.default.svc.cluster.local", A));
        let record = |name: &str, data| Record {
            name: name.to_owned(),
            ttl: 5,
            data,
        };
        let target = "a.web.default.svc.cluster.local".to_owned();
        let records_sent = vec![
            record(&asked.name, Data::A([10, 43, 0, 9].into())),
            record("other.example", Data::Name(CNAME, "x.example".to_owned())),
            record(
                &asked.name,
                Data::Srv {
                    port: 80,
                    target,
                    weight: 50,
                },
            ),
        ];
        let answer = Answer {
            records: records_sent.clone(),
            authority: vec![record("cluster.local", Data::Soa("ns".to_owned(), "us".to_owned()))],
            ..Answer::default()
        };
        let message = asked.answer(&answer, true);
        assert_eq!(records(&message).unwrap(), records_sent);
        assert_eq!(message[..2], [0, 7]);
        assert_eq!(message[3] & 0xf, 0);
        assert!(Question::read(&message).is_none(), "an answer is no question");
    }

    #[test]
    fn what_is_too_long_for_udp_is_cut_off() {
        let asked = question("web.default.svc.cluster.local", A);
        let record = |last: u8| Record {
            name: asked.name.clone(),
            ttl: 5,
            data: Data::A([10, 42, 0, last].into()),
        };
        let answer = Answer {
            records: (0..100).map(record).collect(),
            ..Answer::default()
        };
        let cut = asked.answer(&answer, true);
        assert!(cut.len() <= UDP_BYTES && u16_at(&cut, 2).unwrap() & TRUNCATED != 0);
        assert_eq!(records(&asked.answer(&answer, false)).unwrap().len(), 100);
    }

    #[test]
    fn extensions_say_how_long_answers_may_be() {
        let mut message = Question::message(7, "a.b", A);
        message[11] = 1;
        message.extend_from_slice(&[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        let asked = Question::read(&message).unwrap().unwrap();
        assert_eq!(asked.udp_bytes, Some(UDP_BYTES_MAX));
        let answer = asked.answer(&Answer::default(), true);
        assert_eq!(u16_at(&answer, 10), Some(1));
    }

    #[test]
    fn what_is_no_question() {
        assert!(Question::read(&[1, 2, 3]).is_none());
        let mut notify = Question::message(7, "a", A);
        notify[2] |= 0x20;
        let refused = Question::read(&notify).unwrap().unwrap_err();
        assert_eq!(refused[3] & 0xf, Code::NotImplemented as u8);
        let mut looping = Question::message(7, "a", A);
        looping.truncate(12);
        looping.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        let refused = Question::read(&looping).unwrap().unwrap_err();
        assert_eq!(refused[3] & 0xf, Code::FormatError as u8);
    }
}
