//! Reading a JSON body while collecting everything that is wrong with it.
//!
//! A [`Node`] is a value and the way to it. Reading one yields `None` and leaves a fault behind when it does not fit, so
//! a parser reads all its fields first and gives up afterwards:
//!
//! ```ignore
//! let title = node.field("title").text(TITLE);
//! let order = node.field("order").whole(1..=MAX);
//! Some(Lesson { title: title?, order: order? })
//! ```

use std::{cell::RefCell, collections::HashSet, fmt::Write, ops::RangeInclusive};

use chrono::{DateTime, Utc};
use serde_json::{Number, Value};
use uuid::Uuid;

use crate::{
    auth::is_user,
    error::{Error, Fault, reason},
    ids,
};

/// More faults than this help nobody.
pub(crate) const MOST_FAULTS: usize = 100;

/// What a text may be.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    /// Characters at the most.
    pub most: usize,
    /// Whether it may be empty or consist of white space.
    pub may_be_blank: bool,
}

impl Text {
    /// A text that says something.
    pub const fn filled(most: usize) -> Self {
        Self { most, may_be_blank: false }
    }
}

/// An address of something that is shown.
pub(crate) const HTTPS_URL: Text = Text::filled(2_000);

/// Parses a body: `read` gets its root, and the faults that it leaves refuse the body as a whole.
pub fn parse<T>(body: &Value, read: impl FnOnce(&Node<'_>) -> Option<T>) -> Result<T, Error> {
    let faults = RefCell::default();
    let parsed = read(&Node { value: Some(body), step: Step::Root, parent: None, faults: &faults });
    let faults = faults.into_inner();
    match parsed {
        Some(parsed) if faults.is_empty() => Ok(parsed),
        _ => Err(Error::Invalid { reason: reason::INVALID_BODY, faults }),
    }
}

/// A value in a body, or the place where one is missing.
#[derive(Debug)]
pub struct Node<'a> {
    value: Option<&'a Value>,
    step: Step<'a>,
    parent: Option<&'a Node<'a>>,
    faults: &'a RefCell<Vec<Fault>>,
}

#[derive(Debug)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Item(usize),
}

impl<'a> Node<'a> {
    /// The value behind a key. That this is no object is a fault of this node, told once by [`Node::object`].
    pub fn field<'b>(&'b self, name: &'b str) -> Node<'b> {
        let value = self.value.and_then(|value| value.get(name));
        Node { value, step: Step::Field(name), parent: Some(self), faults: self.faults }
    }

    /// The item of an array at an index.
    fn item(&self, index: usize) -> Node<'_> {
        let value = self.value.and_then(|value| value.get(index));
        Node { value, step: Step::Item(index), parent: Some(self), faults: self.faults }
    }

    /// This node if it is an object.
    pub fn object(&self) -> Option<&Self> {
        self.read("an object", |value| value.is_object().then_some(self))
    }

    /// This node unless it is absent or null.
    pub fn optional(&self) -> Option<&Self> {
        self.value.is_some_and(|value| !value.is_null()).then_some(self)
    }

    /// Reads a value that may be absent or null.
    pub fn optional_or<T>(&self, read: impl FnOnce(&Self) -> Option<T>) -> Option<Option<T>> {
        match self.optional() {
            Some(node) => read(node).map(Some),
            None => Some(None),
        }
    }

    /// Reads a value that may be absent; null is a value.
    pub fn if_present<T>(&self, read: impl FnOnce(&Self) -> Option<T>) -> Option<Option<T>> {
        match self.value {
            Some(_) => read(self).map(Some),
            None => Some(None),
        }
    }

    /// Whether there is a value, be it null.
    pub fn is_present(&self) -> bool {
        self.value.is_some()
    }

    /// Whether there is an array.
    pub fn is_array(&self) -> bool {
        self.value.is_some_and(Value::is_array)
    }

    /// Reads every item of an array of so many items; `None` if any of them does not fit.
    pub fn items<T>(&self, count: RangeInclusive<usize>, read: impl Fn(&Node<'_>) -> Option<T>) -> Option<Vec<T>> {
        let items = self.read("an array", Value::as_array)?;
        if !count.contains(&items.len()) {
            self.fault(format!("must have {} to {} items, has {}", count.start(), count.end(), items.len()));
            return None;
        }
        let item = |(index, value)| {
            read(&Node { value: Some(value), step: Step::Item(index), parent: Some(self), faults: self.faults })
        };
        // All are read before the first that does not fit decides, so that every fault is found.
        let read: Vec<Option<T>> = items.iter().enumerate().map(item).collect();
        read.into_iter().collect()
    }

    /// Says of each item of an array whose whole number `field` an earlier item has that it is taken.
    pub fn refuse_repeated(&self, field: &str) {
        let mut seen = HashSet::new();
        let items = self.value.and_then(Value::as_array).into_iter().flatten();
        for (index, item) in items.enumerate() {
            if item.get(field).and_then(integer).is_some_and(|number| !seen.insert(number)) {
                self.item(index).field(field).fault("is taken by an earlier sibling");
            }
        }
    }

    /// A text.
    pub fn text(&self, rule: Text) -> Option<&'a str> {
        let text = self.read("a string", Value::as_str)?;
        if text.contains('\0') {
            return self.refuse("must not contain the NUL character");
        }
        if !rule.may_be_blank && text.trim().is_empty() {
            return self.refuse("must not be blank");
        }
        // A text of fewer bytes has fewer characters.
        if text.len() > rule.most && text.chars().nth(rule.most).is_some() {
            return self.refuse(format!("must have {} characters at the most", rule.most));
        }
        Some(text)
    }

    /// One of a few words.
    pub fn one_of(&self, words: &[&'static str]) -> Option<&'static str> {
        let text = self.read("a string", Value::as_str)?;
        let word = words.iter().copied().find(|word| *word == text);
        word.or_else(|| self.refuse(format!("must be one of: {}", words.join(", "))))
    }

    /// An id in hyphenated form.
    pub fn id(&self) -> Option<Uuid> {
        let text = self.read("a string", Value::as_str)?;
        ids::parse(text).or_else(|| self.refuse("must be a UUID"))
    }

    /// The `sub` of a user, as a token may have it.
    pub fn user(&self) -> Option<&'a str> {
        let text = self.read("a string", Value::as_str)?;
        if is_user(text) { Some(text) } else { self.refuse("must have 1 to 255 characters, none of them a control") }
    }

    /// A moment in RFC 3339.
    pub fn time(&self) -> Option<DateTime<Utc>> {
        let text = self.read("a string", Value::as_str)?;
        // PostgreSQL keeps microseconds; equality of what was sent must survive being stored.
        let time = DateTime::parse_from_rfc3339(text)
            .ok()
            .and_then(|time| DateTime::from_timestamp_micros(time.timestamp_micros()));
        let time = time.filter(|time| time.timestamp() >= 0);
        time.or_else(|| self.refuse("must be a time in RFC 3339 since 1970, such as 2026-01-31T12:00:00Z"))
    }

    /// A whole number, however it is written: JSON knows one kind of numbers, and 75.0 is 75.
    pub fn whole(&self, range: RangeInclusive<i32>) -> Option<i32> {
        let number =
            self.read("a whole number", |value| value.as_number().filter(|number| is_whole(number)).and(Some(value)))?;
        let fits =
            integer(number).and_then(|number| i32::try_from(number).ok()).filter(|number| range.contains(number));
        fits.or_else(|| self.refuse(format!("must be from {} to {}", range.start(), range.end())))
    }

    /// A number.
    pub fn number(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let number = self.read("a number", Value::as_f64)?;
        if range.contains(&number) {
            return Some(number);
        }
        self.refuse(format!("must be from {} to {}", range.start(), range.end()))
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        self.read("true or false", Value::as_bool)
    }

    /// An `https` address.
    pub fn https_url(&self) -> Option<&'a str> {
        let text = self.text(HTTPS_URL)?;
        let host = text.strip_prefix("https://").and_then(|rest| rest.split(['/', '?', '#']).next());
        let sound =
            host.is_some_and(|host| !host.is_empty()) && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        if sound { Some(text) } else { self.refuse("must be an https URL") }
    }

    /// Says that something about this value is wrong.
    pub fn fault(&self, detail: impl Into<String>) {
        let mut faults = self.faults.borrow_mut();
        if faults.len() < MOST_FAULTS {
            faults.push(Fault { pointer: self.pointer(), detail: detail.into() });
        }
    }

    /// Says what is wrong, and yields nothing.
    pub fn refuse<T>(&self, detail: impl Into<String>) -> Option<T> {
        self.fault(detail);
        None
    }

    fn read<T: 'a>(&self, expected: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        match self.value {
            None => self.refuse("is required"),
            Some(value) => match read(value) {
                Some(read) => Some(read),
                None => self.refuse(format!("must be {expected}")),
            },
        }
    }

    /// The way here as a JSON pointer (RFC 6901); made only when there is a fault to tell.
    fn pointer(&self) -> String {
        let mut pointer = self.parent.map(Node::pointer).unwrap_or_default();
        match self.step {
            Step::Root => {}
            Step::Field(name) => {
                pointer.push('/');
                pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
            }
            // Writing to a String cannot fail.
            Step::Item(index) => drop(write!(pointer, "/{index}")),
        }
        pointer
    }
}

fn is_whole(number: &Number) -> bool {
    !number.is_f64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// A whole number that a field may have; others are out of every range.
fn integer(value: &Value) -> Option<i64> {
    let exact = |number: f64| (number.fract() == 0.0 && number.abs() < 1e15).then_some(number as i64);
    value.as_i64().or_else(|| value.as_f64().and_then(exact))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults<T>(result: Result<T, Error>) -> Vec<(String, String)> {
        match result {
            Err(Error::Invalid { faults, .. }) => {
                faults.into_iter().map(|fault| (fault.pointer, fault.detail)).collect()
            }
            _ => panic!("not refused"),
        }
    }

    #[test]
    fn every_fault_is_found_with_its_pointer() {
        let body = json!({"a": [{"t": "x", "n": 1}, {"t": " ", "n": 1.5}, {"n": 9_999_999_999_i64}, 7]});
        let result = parse(&body, |root| {
            let missing = root.field("m/~").text(Text::filled(5));
            let items = root.field("a").items(1..=9, |item| {
                let text = item.object()?.field("t").text(Text::filled(5));
                let number = item.field("n").whole(0..=10);
                Some((text?.to_owned(), number?))
            });
            Some((missing?.to_owned(), items?))
        });
        let faults = faults(result);
        let pointers: Vec<&str> = faults.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(pointers, ["/m~1~0", "/a/1/t", "/a/1/n", "/a/2/t", "/a/2/n", "/a/3"]);
        assert_eq!(faults[0].1, "is required");
    }

    #[test]
    fn texts_are_measured_in_characters_and_hold_no_nul() {
        let check = |text: &str| parse(&json!(text), |node| node.text(Text::filled(3)).map(str::to_owned));
        assert_eq!(check("🦀🦀🦀").unwrap(), "🦀🦀🦀");
        for bad in ["🦀🦀🦀🦀", "a\0", "", " \n"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn numbers_are_not_bent_to_fit() {
        let whole = |value: Value| parse(&value, |node| node.whole(0..=86_400)).ok();
        assert_eq!(whole(json!(86_400)), Some(86_400));
        assert_eq!(whole(json!(75.0)), Some(75));
        for bad in
            [json!(-1), json!(86_401), json!(1.5), json!("1"), json!(null), json!(u64::MAX), json!(1e300), json!(true)]
        {
            assert_eq!(whole(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn times_are_rfc_3339_with_an_offset() {
        let time = |text: &str| parse(&json!(text), |node| node.time()).ok();
        assert_eq!(time("2026-01-31T12:00:00+02:00"), time("2026-01-31T10:00:00Z"));
        assert!(time("2026-01-31T10:00:00Z").is_some());
        for bad in
            ["2026-01-31", "0000-06-01T00:00:00Z", "2026-01-31T10:00:00", "yesterday", "2026-02-30T10:00:00Z", ""]
        {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn image_urls_are_https() {
        let url = |text: &str| parse(&json!(text), |node| node.https_url().map(str::to_owned)).is_ok();
        assert!(url("https://example.org/a.png?b=c"));
        for bad in ["http://example.org", "https://", "javascript:alert(1)", "https:///x", "https://a b"] {
            assert!(!url(bad), "{bad}");
        }
    }

    #[test]
    fn faults_are_counted_up_to_a_bound() {
        let body = Value::Array(vec![json!(null); 1000]);
        let result = parse(&body, |root| root.items(0..=1000, |item| item.id()));
        assert_eq!(faults(result).len(), MOST_FAULTS);
    }
}
