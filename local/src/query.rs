//! Query strings, as the gateway decodes them.

use percent_encoding::percent_decode_str;

/// The pairs of a query, decoded, in their order.
pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded_in_their_order() {
        let expected = [("q", "a b+c"), ("q", "é"), ("empty", ""), ("bare", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs("q=a+b%2Bc&q=%C3%A9&empty=&&bare"), expected);
        assert_eq!(pairs(""), []);
    }
}
