//! What is stored: a line that says under which conditions, then the body as it is sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::gzip;

/// A ready-to-send body; for a page of a list, with the cursor of the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The body.
    pub body: Body,
    /// Where the next page begins.
    pub next: Option<String>,
    /// Names this text and no other, compressed or not.
    pub etag: String,
}

/// What a reader takes. What many read is kept in each as it is sent, under a key of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Nothing but the text itself.
    Identity,
    /// gzip, as nearly everybody.
    Gzip,
}

impl Coding {
    /// What the key of an entry in this coding ends with.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Gzip => ":gzip",
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::Identity => Self::Gzip,
            Self::Gzip => Self::Identity,
        }
    }
}

/// A body in one of the codings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// As it is.
    Text(String),
    /// Compressed with gzip.
    Gzip(Vec<u8>),
}

impl Body {
    /// The text, unless it is compressed.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Gzip(_) => None,
        }
    }
}

impl Document {
    /// A body, and where the next page begins.
    pub fn new(body: String, next: Option<String>) -> Self {
        let hash = Sha256::digest(&body);
        // Half of it: nobody forges what only they themselves would get to see.
        let etag = Uuid::from_slice(hash.get(..16).unwrap_or_default()).unwrap_or_default().simple().to_string();
        Self { body: Body::Text(body), next, etag }
    }

    /// The same in a coding, where that pays.
    #[must_use]
    pub fn coded(self, coding: Coding) -> Self {
        let text = self.body.text().filter(|_| coding == Coding::Gzip);
        match text.and_then(|text| gzip::compress_if_smaller(text.as_bytes())) {
            Some(packed) => Self { body: Body::Gzip(packed), ..self },
            None => self,
        }
    }

    /// The same as a text, if that has at most so many bytes.
    pub(super) fn unpacked(self, most: usize) -> Option<Self> {
        let text = match self.body {
            Body::Text(text) => text,
            Body::Gzip(bytes) => String::from_utf8(gzip::decompress(&bytes, most)?).ok()?,
        };
        Some(Self { body: Body::Text(text), ..self })
    }
}

impl From<String> for Document {
    fn from(body: String) -> Self {
        Self::new(body, None)
    }
}

/// An entry that may be shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) document: Document,
    /// Nothing that it depends on has moved, as far as Redis was told.
    pub(super) is_current: bool,
    /// It is not older than it may be.
    pub(super) is_fresh: bool,
    pub(super) age: Duration,
}

/// Stands before the body, in one line.
#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    generations: Vec<&'a str>,
    stored: u64,
    until: u64,
    etag: &'a str,
    next: Option<String>,
    #[serde(default)]
    gzip: bool,
}

/// The bytes of an entry that is stored now.
pub(super) fn seal(document: &Document, generations: &[String], now: u64, fresh_for: Duration) -> Vec<u8> {
    let (body, gzip) = match &document.body {
        Body::Text(text) => (text.as_bytes(), false),
        Body::Gzip(bytes) => (bytes.as_slice(), true),
    };
    let envelope = Envelope {
        generations: generations.iter().map(String::as_str).collect(),
        stored: now,
        until: now + fresh_for.as_millis() as u64,
        etag: &document.etag,
        next: document.next.clone(),
        gzip,
    };
    // A struct of strings and numbers always serialises.
    let mut bytes = serde_json::to_vec(&envelope).unwrap_or_default();
    bytes.push(b'\n');
    bytes.extend_from_slice(body);
    bytes
}

/// A stored entry, if it is whole and its visibility, the last generation, has not moved. The body is not parsed.
pub(super) fn open(mut entry: Vec<u8>, generations: &[Vec<u8>], now: u64) -> Option<Copy> {
    let end = entry.iter().position(|byte| *byte == b'\n')?;
    let body = entry.split_off(end + 1);
    let envelope: Envelope<'_> = serde_json::from_slice(entry.get(..end)?).ok()?;
    let current: Vec<&str> = generations.iter().map(|generation| read_generation(generation).unwrap_or("")).collect();
    let visibility = current.last().filter(|visibility| !visibility.is_empty())?;
    if envelope.generations.last() != Some(visibility) {
        return None;
    }
    let body = if envelope.gzip { Body::Gzip(body) } else { Body::Text(String::from_utf8(body).ok()?) };
    Some(Copy {
        is_current: current == envelope.generations,
        is_fresh: now < envelope.until,
        age: Duration::from_millis(now.saturating_sub(envelope.stored)),
        document: Document { body, next: envelope.next, etag: envelope.etag.to_owned() },
    })
}

/// Unique, so that a generation which was evicted and made anew never revives what was stored under an old one.
pub(super) fn new_generation() -> String {
    Uuid::now_v7().simple().to_string()
}

/// A generation as we make them; anything else in its place is none.
pub(super) fn read_generation(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.len() == 32)
}

/// Milliseconds since 1970.
pub(super) fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH_FOR: Duration = Duration::from_millis(100);

    fn seen(generations: &[String]) -> Vec<Vec<u8>> {
        generations.iter().map(|generation| generation.as_bytes().to_vec()).collect()
    }

    /// Whether it is current, and whether it is fresh.
    fn judge(copy: Option<Copy>) -> Option<(bool, bool)> {
        copy.map(|copy| (copy.is_current, copy.is_fresh))
    }

    #[test]
    fn an_entry_comes_back_as_it_was_stored() {
        let generations = [new_generation(), new_generation()];
        let document = Document::new("{\"title\":\"line\\nbreak 🦀\"}\n".into(), Some("cursor".into()));
        let entry = seal(&document, &generations, 1_000, FRESH_FOR);
        let copy = Copy { document, is_current: true, is_fresh: true, age: Duration::from_millis(99) };
        assert_eq!(open(entry, &seen(&generations), 1_099), Some(copy));
    }

    #[test]
    fn a_compressed_entry_comes_back_compressed_and_a_short_one_as_it_was() {
        let generations = [new_generation()];
        let plain = Document::from("{}\n".repeat(1_000));
        let packed = plain.clone().coded(Coding::Gzip);
        let Body::Gzip(bytes) = &packed.body else { panic!("not compressed") };
        assert_eq!(gzip::decompress(bytes, 10_000).map(String::from_utf8), Some(Ok("{}\n".repeat(1_000))));
        assert_eq!(packed.etag, plain.etag);
        let copy = open(seal(&packed, &generations, 1, FRESH_FOR), &seen(&generations), 1).unwrap();
        assert_eq!(copy.document, packed);
        assert_eq!(packed.clone().unpacked(2_999), None);
        assert_eq!(packed.unpacked(3_000), Some(plain));
        let short = Document::from("{}".to_owned());
        assert_eq!(short.clone().coded(Coding::Gzip), short);
    }

    #[test]
    fn an_entry_of_another_generation_is_not_current_and_past_its_time_not_fresh() {
        let generations = [new_generation(), new_generation()];
        let entry = || seal(&Document::from("{}".to_owned()), &generations, 1_000, FRESH_FOR);
        assert_eq!(judge(open(entry(), &seen(&generations), 1_099)), Some((true, true)));
        assert_eq!(judge(open(entry(), &seen(&generations), 1_100)), Some((true, false)));
        for other in [new_generation().into_bytes(), Vec::new(), b"\xff".to_vec()] {
            assert_eq!(judge(open(entry(), &[other, seen(&generations)[1].clone()], 1_000)), Some((false, true)));
        }
    }

    #[test]
    fn what_was_withdrawn_is_not_shown_at_all() {
        let generations = [new_generation(), new_generation()];
        let entry = || seal(&Document::from("{}".to_owned()), &generations, 1_000, FRESH_FOR);
        for other in [new_generation().into_bytes(), Vec::new(), b"\xff".to_vec()] {
            assert_eq!(open(entry(), &[seen(&generations)[0].clone(), other], 1_000), None);
        }
        assert_eq!(open(entry(), &[], 1_000), None);
    }

    #[test]
    fn garbage_and_what_another_version_stored_is_a_miss() {
        let generations = [new_generation()];
        let mut torn = seal(&Document::from("{}".to_owned()), &generations, 1, FRESH_FOR);
        torn.push(0xff);
        let other = format!("{{\"generations\":[\"{}\"],\"until\":9999}}\n{{}}", generations[0]).into_bytes();
        for garbage in [&b""[..], b"\n", b"{}\n{}", b"\xff\xfe", &torn, &other] {
            assert_eq!(open(garbage.to_vec(), &seen(&generations), 1), None);
        }
    }

    #[test]
    fn an_etag_names_the_bytes() {
        let document = |body: &str| Document::from(body.to_owned());
        assert_eq!(document("{}").etag, document("{}").etag);
        assert_ne!(document("{}").etag, document("{ }").etag);
    }
}
