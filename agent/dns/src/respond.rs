//! From a question's bytes to an answer's.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use rand::seq::SliceRandom;

use crate::counters::ServerCounters;
use crate::directory::Directory;
use crate::forward::Forwarder;
use crate::wire::UDP_BYTES;
use crate::zone::{Outcome, Zone};

/// What everybody can take by UDP.
const PLAIN_UDP_BYTES: u16 = 512;
/// Aliases of aliases followed before giving up.
const ALIASES: usize = 8;

/// Everything an answer is made of.
pub(crate) struct Responder {
    /// The cluster's own names, if they are answered here.
    pub(crate) own: Option<Own>,
    pub(crate) forwarder: Forwarder,
    pub(crate) counters: ServerCounters,
}

/// The names that nobody else is asked about.
pub(crate) struct Own {
    pub(crate) zone: Zone,
    pub(crate) directory: Box<dyn Directory>,
}

/// How an answer travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// How a question came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) transport: Transport,
    pub(crate) is_ipv6: bool,
}

/// An answer's bytes, and its code.
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) code: ResponseCode,
}

/// A question that makes sense, and the answer in the making.
pub(crate) struct Task {
    query: Query,
    response: Message,
    limit: usize,
}

/// What is known without asking anybody.
pub(crate) enum Step {
    /// The answer.
    Done(Answer),
    /// Other resolvers have to be asked, by [`Responder::finish`].
    Ask(Box<Task>),
    /// Noise that gets no answer.
    Ignore,
}

impl Responder {
    /// Answers at once where that is possible: whatever is the cluster's own.
    pub(crate) fn begin(&self, bytes: &[u8], way: Way) -> Step {
        let request = match Message::from_vec(bytes) {
            Ok(request) if request.metadata.message_type == MessageType::Query => request,
            Ok(_) => return Step::Ignore,
            Err(_unreadable) => return refuse_unreadable(bytes),
        };
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.metadata.recursion_desired = request.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.metadata.checking_disabled = request.metadata.checking_disabled;
        response.add_queries(request.queries.iter().cloned());
        let limit = limit(&request, way.transport);
        if let Some(asked) = &request.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_BYTES);
            response.set_edns(edns);
            if asked.version() != 0 {
                return done(response, ResponseCode::BADVERS, limit);
            }
        }
        let query = match (request.metadata.op_code, request.queries.as_slice()) {
            (OpCode::Query, [query]) => query.clone(),
            (OpCode::Query, _) => return done(response, ResponseCode::FormErr, limit),
            _ => return done(response, ResponseCode::NotImp, limit),
        };
        self.counters.count_request(way, query.query_type());
        if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) || query.query_type() == RecordType::AXFR {
            return done(response, ResponseCode::Refused, limit);
        }
        let name = query.name().clone();
        let task = Task { query, response, limit };
        match &self.own {
            Some(own) => own.begin(task, &name),
            None => Step::Ask(Box::new(task)),
        }
    }

    /// Asks other resolvers for what is not the cluster's own.
    pub(crate) async fn finish(&self, task: Box<Task>) -> Option<Answer> {
        let Task { query, mut response, limit } = *task;
        match self.forwarder.ask(&query).await {
            Ok(answer) => {
                response.metadata.response_code = answer.metadata.response_code;
                response.add_answers(answer.answers);
                response.add_authorities(answer.authorities);
                response.add_additionals(answer.additionals);
            }
            // An alias is an answer even when nobody knows where it leads.
            Err(error) if !response.answers.is_empty() => {
                tracing::debug!(%error, name = %query.name(), "cannot follow an alias");
            }
            Err(error) => {
                tracing::debug!(%error, name = %query.name(), "cannot forward");
                response.metadata.response_code = ResponseCode::ServFail;
            }
        }
        encode(response, limit)
    }
}

impl Own {
    /// Follows the cluster's own names, starting from `name`.
    fn begin(&self, mut task: Task, name: &Name) -> Step {
        let mut name = name.clone();
        for _alias in 0..ALIASES {
            let outcome = self.zone.resolve(&*self.directory, &name, task.query.query_type());
            if outcome != Outcome::Elsewhere && !self.directory.is_complete() {
                return done(task.response, ResponseCode::ServFail, task.limit);
            }
            task.response.metadata.authoritative |= outcome != Outcome::Elsewhere;
            match outcome {
                Outcome::Found(mut records, additional) => {
                    // Many take the first address only.
                    records.shuffle(&mut rand::rng());
                    task.response.add_answers(records);
                    task.response.add_additionals(additional);
                    return done(task.response, ResponseCode::NoError, task.limit);
                }
                Outcome::NoData | Outcome::NoName => {
                    task.response.add_authorities(self.zone.authority());
                    let code = if outcome == Outcome::NoName { ResponseCode::NXDomain } else { ResponseCode::NoError };
                    return done(task.response, code, task.limit);
                }
                Outcome::Alias(alias) => {
                    let (record, target) = *alias;
                    task.response.add_answer(record);
                    if task.query.query_type() == RecordType::CNAME {
                        return done(task.response, ResponseCode::NoError, task.limit);
                    }
                    name = target;
                }
                Outcome::Elsewhere => {
                    task.query.set_name(name);
                    return Step::Ask(Box::new(task));
                }
            }
        }
        done(task.response, ResponseCode::ServFail, task.limit)
    }
}

/// How long an answer may be.
fn limit(request: &Message, transport: Transport) -> usize {
    match (transport, &request.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(PLAIN_UDP_BYTES, UDP_BYTES).into(),
        (Transport::Udp, None) => PLAIN_UDP_BYTES.into(),
    }
}

fn done(mut response: Message, code: ResponseCode, limit: usize) -> Step {
    response.metadata.response_code = code;
    encode(response, limit).map_or(Step::Ignore, Step::Done)
}

/// Leaves out what does not fit: first what was not asked for, then answers, which the asker is told.
fn encode(mut response: Message, limit: usize) -> Option<Answer> {
    let code = response.metadata.response_code;
    loop {
        let bytes = response.to_vec().ok()?;
        if bytes.len() <= limit {
            return Some(Answer { bytes, code });
        }
        if !response.additionals.is_empty() {
            response.additionals.clear();
            continue;
        }
        response.metadata.truncation = true;
        let kept = response.answers.len() * limit / bytes.len().max(1);
        if response.answers.is_empty() {
            response.authorities.clear();
            let bytes = response.to_vec().ok().filter(|bytes| bytes.len() <= limit);
            return bytes.map(|bytes| Answer { bytes, code });
        }
        response.answers.truncate(kept.min(response.answers.len() - 1));
    }
}

/// Tells who sent something unreadable so, if at least its number can be read.
fn refuse_unreadable(bytes: &[u8]) -> Step {
    let [high, low, flags, ..] = bytes else { return Step::Ignore };
    if bytes.len() < 12 || flags & 0x80 != 0 {
        return Step::Ignore;
    }
    let message = Message::error_msg(u16::from_be_bytes([*high, *low]), OpCode::Query, ResponseCode::FormErr);
    let answer = |bytes| Step::Done(Answer { bytes, code: ResponseCode::FormErr });
    message.to_vec().map_or(Step::Ignore, answer)
}
