//! CSV as RFC 4180 has it, made fit for spreadsheets, which run what looks like a formula.

use serde_json::{Map, Value};

use crate::error::Error;

/// What makes a spreadsheet take a text for a formula, in full width too.
const STARTS_FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// A line with the columns' names, and one for each JSON object with its values; what is not there is empty.
pub fn table(columns: &[&str], objects: &[&str]) -> Result<String, Error> {
    let mut lines = columns.join(",") + "\r\n";
    for object in objects {
        let object: Map<String, Value> =
            serde_json::from_str(object).map_err(|error| Error::internal("reading an item", error))?;
        let fields: Vec<String> = columns.iter().map(|column| field(object.get(*column))).collect();
        lines += &fields.join(",");
        lines += "\r\n";
    }
    Ok(lines)
}

fn field(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => quoted(text),
        Some(other) => quoted(&other.to_string()),
    }
}

/// A text as a field. A formula is defused by a single quote before it, as OWASP advises.
fn quoted(text: &str) -> String {
    let defused = if text.starts_with(STARTS_FORMULA) { "'" } else { "" };
    // Where the semicolon separates fields, a spreadsheet would see a new one behind it.
    if text.contains(['"', ',', ';', ' ', '\t', '\r', '\n']) {
        format!("\"{defused}{}\"", text.replace('"', "\"\""))
    } else {
        format!("{defused}{text}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_become_fields() {
        for (value, written) in [
            (json!(null), ""),
            (json!(""), ""),
            (json!(66.66), "66.66"),
            (json!(100), "100"),
            (json!("plain"), "plain"),
            (json!("a,b"), "\"a,b\""),
            (json!("say \"no\""), "\"say \"\"no\"\"\""),
            (json!("a;=b"), "\"a;=b\""),
            (json!("two\r\nlines"), "\"two\r\nlines\""),
            (json!("=cmd|' /C calc'!A0"), "\"'=cmd|' /C calc'!A0\""),
            (json!("+1"), "'+1"),
            (json!("-1"), "'-1"),
            (json!("@sum"), "'@sum"),
            (json!("\tx"), "\"'\tx\""),
            (json!("\rx"), "\"'\rx\""),
            (json!("＝x"), "'＝x"),
            (json!("a=b"), "a=b"),
        ] {
            assert_eq!(field(Some(&value)), written, "{value}");
        }
    }

    #[test]
    fn a_table_has_a_header_and_a_line_for_each_object() {
        let lines = table(&["b", "a"], &[r#"{"a":1,"b":"x"}"#, r#"{"a":null}"#]).unwrap();
        assert_eq!(lines, "b,a\r\nx,1\r\n,\r\n");
        assert_eq!(table(&["a"], &[]).unwrap(), "a\r\n");
        assert!(table(&["a"], &["[]"]).is_err());
    }
}
