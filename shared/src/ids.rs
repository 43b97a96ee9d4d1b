//! Identifiers: made here, read here, hashed here.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The namespace of event ids that are derived from an idempotency key.
const DERIVED_EVENTS: Uuid = Uuid::from_u128(0x6c65_6374_6572_6e00_8000_6576_656e_7473);

/// A new id; ids made later sort later.
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// When an id was made; nothing where it is not one of ours.
pub fn made_at(id: Uuid) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    DateTime::from_timestamp(seconds.try_into().ok()?, nanos)
}

/// An id as a client writes it: the hyphenated form and no other, so that a thing has one address.
pub fn parse(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// The id of the event at `position` of a batch that carries no ids: the same for every repetition of the batch.
pub fn derived_event(user: &str, idempotency_key: &str, position: usize) -> Uuid {
    // The parts cannot run into each other: neither a subject nor a key may hold a control character.
    Uuid::new_v5(&DERIVED_EVENTS, format!("{user}\0{idempotency_key}\0{position}").as_bytes())
}

/// SHA-256 of a request's body.
pub fn fingerprint(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// A text as part of a key in Redis: a user id is personal data and may hold any character, a hash neither.
pub fn hashed(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let [half, _] = digest.as_chunks::<16>().0 else { return String::new() };
    Uuid::from_bytes(*half).simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hyphenated_form_is_an_id() {
        let id = new_id();
        assert_eq!(parse(&id.to_string()), Some(id));
        assert_eq!(parse(&id.to_string().to_uppercase()), Some(id));
        for other in [id.simple().to_string(), id.braced().to_string(), id.urn().to_string(), String::new()] {
            assert_eq!(parse(&other), None, "{other}");
        }
    }

    #[test]
    fn a_derived_id_depends_on_user_key_and_position_alone() {
        let id = derived_event("alice", "key", 1);
        assert_eq!(id, derived_event("alice", "key", 1));
        for other in
            [derived_event("alice", "key", 2), derived_event("alice", "key2", 1), derived_event("bob", "key", 1)]
        {
            assert_ne!(id, other);
        }
    }
}
