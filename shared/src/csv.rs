//! CSV as RFC 4180 has it, made fit for spreadsheets, which run what looks like a formula.

use bytewise::json_value;
use serde_json::Value;

use crate::error::Error;

/// What makes a spreadsheet take a text for a formula, in full width too.
const STARTS_FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// A line with the columns' names, and one for each JSON object with its values; what is not there is empty.
pub fn table(columns: &[&str], objects: &[&str]) -> Result<String, Error> {
    let mut lines = columns.join(",") + "\r\n";
    for object in objects {
        let object = json_value(object.as_bytes()).map_err(|error| Error::internal("reading an item", error))?;
        let object = object.as_object().ok_or(Error::Internal { context: "reading an item", source: None })?;
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                lines.push(',');
            }
            match object.get(*column) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => push_field(&mut lines, text),
                Some(other) => push_field(&mut lines, &other.to_string()),
            }
        }
        lines += "\r\n";
    }
    Ok(lines)
}

/// A text as a field. A formula is defused by a single quote before it, as OWASP advises.
fn push_field(line: &mut String, text: &str) {
    // Where the semicolon separates fields, a spreadsheet would see a new one behind it.
    let is_quoted = text.bytes().any(|byte| matches!(byte, b'"' | b',' | b';' | b' ' | b'\t' | b'\r' | b'\n'));
    let defusing = if text.starts_with(STARTS_FORMULA) { "'" } else { "" };
    if is_quoted {
        for part in ["\"", defusing, &text.replace('"', "\"\""), "\""] {
            line.push_str(part);
        }
    } else {
        line.push_str(defusing);
        line.push_str(text);
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
            let line = table(&["a"], &[&json!({"a": value}).to_string()]).unwrap();
            assert_eq!(line, format!("a\r\n{written}\r\n"), "{value}");
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
