//! Keyset pages: limits, filters and cursors.
//!
//! A cursor is opaque to clients: URL-safe base64 of `[version, list, keys…]`, where `list` names the list and its
//! filters. It is bound to them, because a position in one list means nothing in another.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::{Row, types::Timestamp};
use uuid::Uuid;

use crate::{
    cache::Document,
    csv,
    db::column,
    error::{Error, reason},
};

/// Items on a page unless the client says otherwise.
const DEFAULT_LIMIT: u32 = 20;
/// Items on a page at the most.
pub(crate) const MOST: u32 = 100;
/// Changes whenever the keys of any list change their meaning.
const VERSION: u64 = 2;

/// Microseconds since 1970 that PostgreSQL and we can both hold: some 3 000 years either way.
const MOST_MICROS: u64 = 100_000_000_000_000_000;

/// The `limit` parameter.
pub fn limit(text: Option<&str>) -> Result<u32, Error> {
    limit_within(text, DEFAULT_LIMIT, MOST)
}

/// The same where pages are of another size.
pub fn limit_within(text: Option<&str>, default: u32, most: u32) -> Result<u32, Error> {
    let Some(text) = text else { return Ok(default) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(limit) if digits && (1..=most).contains(&limit) => Ok(limit),
        _ => Err(Error::invalid_parameter("limit", format!("must be a whole number from 1 to {most}"))),
    }
}

/// A parameter that is one of these words, if it is there.
pub fn one_of(name: &str, value: Option<&str>, words: &[&'static str]) -> Result<Option<&'static str>, Error> {
    let Some(value) = value else { return Ok(None) };
    let word = words.iter().copied().find(|word| *word == value);
    word.map(Some).ok_or_else(|| Error::invalid_parameter(name, format!("must be one of: {}", words.join(", "))))
}

/// A position in a list: the keys of the last item of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Vec<Value>);

impl Cursor {
    /// Writes the cursor behind an item with these keys.
    pub fn encode(list: &str, keys: impl IntoIterator<Item = Value>) -> String {
        let mut parts = vec![Value::from(VERSION), Value::from(list)];
        parts.extend(keys);
        BASE64_URL_SAFE_NO_PAD.encode(Value::Array(parts).to_string())
    }

    /// Reads the `cursor` parameter of a list.
    pub fn decode(list: &str, text: Option<&str>) -> Result<Option<Self>, Error> {
        let Some(text) = text else { return Ok(None) };
        let parts = BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Vec<Value>>(&bytes).ok())
            .filter(|parts| parts.len() >= 2 && parts[0] == VERSION && parts[1] == list);
        parts.map(|mut parts| Some(Self(parts.split_off(2)))).ok_or_else(invalid)
    }

    /// A key that is a time, kept as microseconds.
    pub fn time(&self, index: usize) -> Result<DateTime<Utc>, Error> {
        let micros = self.0.get(index).and_then(Value::as_i64).filter(|micros| micros.unsigned_abs() < MOST_MICROS);
        micros.and_then(DateTime::from_timestamp_micros).ok_or_else(invalid)
    }

    /// A key that is an id.
    pub fn id(&self, index: usize) -> Result<Uuid, Error> {
        self.0.get(index).and_then(Value::as_str).and_then(crate::ids::parse).ok_or_else(invalid)
    }

    /// A key that is a text.
    pub fn text(&self, index: usize) -> Result<&str, Error> {
        self.0.get(index).and_then(Value::as_str).filter(|text| !text.contains('\0')).ok_or_else(invalid)
    }

    /// A key that is a real number, kept as its bits: as decimals it might not come back as the number it was.
    pub fn real(&self, index: usize) -> Result<f64, Error> {
        self.0.get(index).and_then(Value::as_u64).map(f64::from_bits).ok_or_else(invalid)
    }

    /// A key that is a whole number.
    pub fn number(&self, index: usize) -> Result<i32, Error> {
        self.0.get(index).and_then(Value::as_i64).and_then(|number| number.try_into().ok()).ok_or_else(invalid)
    }
}

/// The time before which the items of a page lie, latest first: on the first page, the end of time.
pub fn before(cursor: Option<&Cursor>) -> Result<Timestamp<DateTime<Utc>>, Error> {
    cursor.map_or(Ok(Timestamp::PosInfinity), |cursor| cursor.time(0).map(Timestamp::Value))
}

/// Puts a page together from rows with a column `item`, of which there is one more than `limit` if the list goes on.
pub fn assemble(
    name: &str,
    rows: &[Row],
    limit: u32,
    cursor_behind: impl FnOnce(&Row) -> Result<String, Error>,
) -> Result<Document, Error> {
    let (items, next) = shown(rows, limit, cursor_behind)?;
    let (items, cursor) = (items.join(","), Value::from(next.as_deref()));
    Ok(Document::new(format!("{{\"{name}\":[{items}],\"nextCursor\":{cursor}}}"), next))
}

/// The same page as CSV: these keys of the items. Where the next page begins stands in `Link` alone.
pub fn assemble_csv(
    columns: &[&str],
    rows: &[Row],
    limit: u32,
    cursor_behind: impl FnOnce(&Row) -> Result<String, Error>,
) -> Result<Document, Error> {
    let (items, next) = shown(rows, limit, cursor_behind)?;
    Ok(Document::new(csv::table(columns, &items)?, next))
}

/// The items of a page, and the cursor behind the last of them if the list goes on.
fn shown(
    rows: &[Row],
    limit: u32,
    cursor_behind: impl FnOnce(&Row) -> Result<String, Error>,
) -> Result<(Vec<&str>, Option<String>), Error> {
    let shown = &rows[..rows.len().min(limit as usize)];
    let next = match shown.last() {
        Some(last) if rows.len() > shown.len() => Some(cursor_behind(last)?),
        _ => None,
    };
    Ok((shown.iter().map(|row| column(row, "item")).collect::<Result<_, _>>()?, next))
}

/// The cursor behind a row of a list that is ordered by a time in `key`.
pub fn behind_time(list: &str, row: &Row) -> Result<String, Error> {
    let time: chrono::DateTime<chrono::Utc> = column(row, "key")?;
    behind(list, row, time.timestamp_micros().into())
}

/// The cursor behind a row of a list that is ordered by `key`, then by the column `id`.
pub fn behind(list: &str, row: &Row, key: Value) -> Result<String, Error> {
    Ok(Cursor::encode(list, [key, column::<Uuid>(row, "id")?.to_string().into()]))
}

fn invalid() -> Error {
    Error::invalid(reason::INVALID_CURSOR, "?cursor", "is not a cursor of this list")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_come_back_from_a_cursor(
            micros in 0..4_102_444_800_000_000_i64, id: u128, text in "[^\0]*", bits: u64
        ) {
            let id = Uuid::from_u128(id);
            let keys = [micros.into(), id.to_string().into(), text.clone().into(), bits.into()];
            let cursor = Cursor::encode("list", keys);
            let cursor = Cursor::decode("list", Some(&cursor)).unwrap().unwrap();
            prop_assert_eq!(cursor.time(0).unwrap().timestamp_micros(), micros);
            prop_assert_eq!(cursor.id(1).unwrap(), id);
            prop_assert_eq!(cursor.text(2).unwrap(), text);
            prop_assert_eq!(cursor.real(3).unwrap().to_bits(), bits);
        }

        #[test]
        fn no_text_makes_decoding_panic(text in ".*", index in 0_usize..5) {
            if let Ok(Some(cursor)) = Cursor::decode("list", Some(&text)) {
                let _ = (cursor.time(index), cursor.id(index), cursor.text(index), cursor.number(index), cursor.real(index));
            }
        }
    }

    #[test]
    fn a_cursor_serves_the_list_it_was_made_for_only() {
        let cursor = Cursor::encode("newest", [1.into()]);
        assert!(Cursor::decode("title", Some(&cursor)).is_err());
        assert!(Cursor::decode("newest", Some("")).is_err());
        assert_eq!(Cursor::decode("newest", None).unwrap(), None);
        for key in [i64::MIN, i64::MAX] {
            let cursor = Cursor::encode("newest", [key.into()]);
            assert!(Cursor::decode("newest", Some(&cursor)).unwrap().unwrap().time(0).is_err());
        }
    }

    #[test]
    fn the_limit_has_bounds() {
        assert_eq!(limit(None).unwrap(), DEFAULT_LIMIT);
        assert_eq!(limit(Some("100")).unwrap(), 100);
        for text in ["0", "101", "-1", "+5", "1e9", "", "ten", "99999999999999999999"] {
            assert!(limit(Some(text)).is_err(), "{text}");
        }
    }
}
