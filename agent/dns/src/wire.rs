//! Questions to other resolvers as bytes, and what comes back.

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};

/// What fits unfragmented through any network of today.
pub(crate) const UDP_BYTES: u16 = 1232;
/// Whoever watches encrypted questions learns their length in multiples of this only (RFC 8467).
const BLOCK_BYTES: usize = 128;
/// What an option takes beside its content.
const OPTION_BYTES: usize = 4;

/// A question to a resolver, with a number of its own.
pub(crate) fn question(query: &Query) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES);
    message.set_edns(edns);
    message
}

/// The bytes of a question that is sent encrypted.
pub(crate) fn padded(question: &Message) -> Result<Vec<u8>, ProtoError> {
    let mut message = question.clone();
    let length = message.to_vec()?.len() + OPTION_BYTES;
    let missing = length.next_multiple_of(BLOCK_BYTES) - length;
    if let Some(edns) = &mut message.edns {
        edns.options_mut().insert(EdnsOption::Unknown(EdnsCode::Padding.into(), vec![0; missing]));
    }
    message.to_vec()
}

/// Whether this is an answer to that.
pub(crate) fn is_answer(answer: &Message, question: &Message) -> bool {
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == question.metadata.id
        && answer.queries == question.queries
}

/// Reads the answer to a question; whatever is none may be forged.
pub(crate) fn answer(bytes: &[u8], question: &Message) -> Option<Message> {
    Message::from_vec(bytes).ok().filter(|answer| is_answer(answer, question))
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{Name, RecordType};
    use proptest::prelude::*;

    use super::*;

    fn of(name: &str) -> Message {
        question(&Query::query(Name::from_ascii(name).unwrap(), RecordType::AAAA))
    }

    #[test]
    fn encrypted_questions_have_few_lengths_and_stay_the_same_question() {
        for labels in 1..60 {
            let question = of(&"abc.".repeat(labels));
            let bytes = padded(&question).unwrap();
            assert_eq!(bytes.len() % BLOCK_BYTES, 0, "{labels}");
            let read = Message::from_vec(&bytes).unwrap();
            assert_eq!((read.metadata.id, &read.queries), (question.metadata.id, &question.queries));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_to_the_question_or_none(
            bytes in prop::collection::vec(any::<u8>(), 0..600), is_near in any::<bool>(), at in any::<prop::sample::Index>(),
        ) {
            let question = of("www.example.com.");
            let mut sent = question.clone();
            sent.metadata.message_type = MessageType::Response;
            // Behind a sound beginning the rest is read, too.
            let mut near = sent.to_vec().unwrap();
            let place = at.index(near.len());
            near.splice(place.., bytes.iter().copied());
            if let Some(found) = answer(if is_near { &near } else { &bytes }, &question) {
                prop_assert_eq!((found.metadata.id, found.queries), (question.metadata.id, question.queries));
            }
        }
    }
}
