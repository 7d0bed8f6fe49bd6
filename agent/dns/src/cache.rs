//! What other resolvers said, for a short while. Bounded; the clock is an argument.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use crate::resolvers::Group;

/// Entries kept. Names of one node's pods repeat; this is some hundred kilobytes.
const ENTRIES: usize = 2048;
/// Longer answers are asked for again, so that those that are kept have a bound.
const ANSWER_BYTES: usize = 4096;
/// The longest time that an answer is kept, whatever it says itself.
const LONGEST: Duration = Duration::from_secs(30);

/// A question as a key: the name in lower case.
pub(crate) type Key = (Name, RecordType);

/// Answers of other resolvers.
#[derive(Default)]
pub(crate) struct Answers {
    entries: HashMap<Key, Entry>,
}

struct Entry {
    /// Who gave it: what others said, in another network perhaps, does not count.
    by: Weak<Group>,
    message: Message,
    since: Instant,
    until: Instant,
}

impl Entry {
    fn is_of(&self, group: &Arc<Group>) -> bool {
        self.by.upgrade().is_some_and(|by| Arc::ptr_eq(&by, group))
    }

    fn holds(&self, now: Instant) -> bool {
        now < self.until && self.by.strong_count() > 0
    }
}

impl Answers {
    /// An answer of these that still holds, with what is left of its records' times.
    pub(crate) fn get(&self, key: &Key, group: &Arc<Group>, now: Instant) -> Option<Message> {
        let entry = self.entries.get(key).filter(|entry| entry.is_of(group) && entry.holds(now))?;
        let mut message = entry.message.clone();
        let age = u32::try_from(now.saturating_duration_since(entry.since).as_secs()).unwrap_or(u32::MAX);
        for section in [&mut message.answers, &mut message.authorities, &mut message.additionals] {
            for record in section {
                record.decrement_ttl(age);
            }
        }
        Some(message)
    }

    pub(crate) fn put(&mut self, key: Key, group: &Arc<Group>, message: &Message, now: Instant) {
        let Some(lifetime) = lifetime(message) else { return };
        if message.to_vec().is_ok_and(|bytes| bytes.len() > ANSWER_BYTES) {
            return;
        }
        if self.entries.len() >= ENTRIES {
            self.entries.retain(|_, entry| entry.holds(now));
        }
        if self.entries.len() >= ENTRIES {
            // All of them are fresh: whatever comes first has to go.
            let victim = self.entries.keys().next().cloned();
            victim.and_then(|victim| self.entries.remove(&victim));
        }
        let (by, message) = (Arc::downgrade(group), message.clone());
        self.entries.insert(key, Entry { by, message, since: now, until: now + lifetime });
    }

    /// How many are kept: those with something, and those that say that there is nothing.
    pub(crate) fn count(&self) -> [usize; 2] {
        let found = self.entries.values().filter(|entry| !entry.message.answers.is_empty()).count();
        [found, self.entries.len() - found]
    }
}

/// How long an answer may be kept; none for failures and those that say zero.
fn lifetime(message: &Message) -> Option<Duration> {
    let seconds = match message.metadata.response_code {
        _ if message.metadata.truncation => None,
        ResponseCode::NoError if !message.answers.is_empty() => message.answers.iter().map(|record| record.ttl).min(),
        ResponseCode::NoError | ResponseCode::NXDomain => {
            message.authorities.iter().find_map(|record| match &record.data {
                RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                _ => None,
            })
        }
        _ => None,
    }?;
    let lifetime = Duration::from_secs(seconds.into()).min(LONGEST);
    (!lifetime.is_zero()).then_some(lifetime)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::A;

    use super::*;

    fn answer(ttl: u32) -> Message {
        let mut message = Message::response(1, OpCode::Query);
        let name = Name::from_ascii("example.com.").unwrap();
        message.add_answer(Record::from_rdata(name, ttl, RData::A(A::new(192, 0, 2, 1))));
        message
    }

    #[test]
    fn answers_age_and_go_and_never_outnumber_the_bound() {
        let now = Instant::now();
        let (mut answers, group) = (Answers::default(), Arc::new(Group::default()));
        let key = |number: usize| (Name::from_ascii(format!("n{number}.example.com.")).unwrap(), RecordType::A);
        answers.put(key(0), &group, &answer(300), now);
        answers.put(key(1), &group, &answer(0), now);
        assert!(answers.get(&key(1), &group, now).is_none());
        let later = answers.get(&key(0), &group, now + Duration::from_secs(10)).unwrap();
        assert_eq!(later.answers[0].ttl, 290);
        assert!(answers.get(&key(0), &group, now + LONGEST).is_none());
        for number in 0..ENTRIES + 10 {
            answers.put(key(number), &group, &answer(60), now);
        }
        assert_eq!(answers.entries.len(), ENTRIES);
        let mut long = answer(60);
        for number in 0..ANSWER_BYTES / 16 {
            let name = Name::from_ascii(format!("n{number}.example.com.")).unwrap();
            long.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 1))));
        }
        let other = (Name::from_ascii("long.example.com.").unwrap(), RecordType::A);
        answers.put(other.clone(), &group, &long, now);
        assert!(answers.get(&other, &group, now).is_none());
    }

    #[test]
    fn what_others_said_does_not_count_and_goes_with_them() {
        let now = Instant::now();
        let (mut answers, one, other) = (Answers::default(), Arc::new(Group::default()), Arc::new(Group::default()));
        let key = |number: usize| (Name::from_ascii(format!("n{number}.example.com.")).unwrap(), RecordType::A);
        answers.put(key(0), &one, &answer(60), now);
        assert!(answers.get(&key(0), &one, now).is_some() && answers.get(&key(0), &other, now).is_none());
        drop(one);
        for number in 1..=ENTRIES {
            answers.put(key(number), &other, &answer(60), now);
        }
        // None of these had to go for the last one.
        assert!((1..=ENTRIES).all(|number| answers.get(&key(number), &other, now).is_some()));
        assert_eq!(answers.count(), [ENTRIES, 0]);
    }
}
