//! What goes over every byte of a body, in a package of its own: functions are built to be small, this to be fast.
//!
//! A generic function is compiled where it is used, and so is `serde_json`'s reading and writing: optimised there, it
//! would be for size. Nothing here is generic, and nothing is inlined into those who call it.

use serde_json::{
    Result, Value,
    value::{RawValue, to_raw_value},
};

/// A text as a JSON string, quoted and escaped.
#[inline(never)]
pub fn json_string(text: &str) -> Result<Box<RawValue>> {
    to_raw_value(text)
}

/// Reads a JSON text.
#[inline(never)]
pub fn json_value(json: &[u8]) -> Result<Value> {
    serde_json::from_slice(json)
}

/// How many values a JSON text can hold: each but the first follows a bracket or a comma.
#[inline(never)]
pub fn json_values_at_most(json: &[u8]) -> usize {
    let (mut values, mut in_string, mut escaped) = (1, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' | b',' if !in_string => values += 1,
            _ => {}
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_a_string_and_back() {
        for text in ["", "plain", "\"quoted\" \\ and\nbroken\t\u{0}\u{1f}", "é 🦀 \u{2028}"] {
            let string = json_string(text).unwrap();
            assert_eq!(json_value(string.get().as_bytes()).unwrap(), Value::from(text));
        }
    }

    #[test]
    fn values_are_counted_outside_of_strings() {
        for (json, values) in [("1", 1), ("[]", 2), ("[1,2]", 3), (r#"{"a":1,"b":[{}]}"#, 5), (r#"["[,{\"[,"]"#, 2)] {
            assert_eq!(json_values_at_most(json.as_bytes()), values, "{json}");
        }
    }
}
