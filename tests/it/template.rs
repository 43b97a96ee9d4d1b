//! The template, the packages in `functions/` and the sample events of `tests/events/` speak of the same things.

use std::{collections::BTreeSet, fs, path::PathBuf};

use local::template::{Function, Template};
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn template() -> Template {
    Template::read(&root().join("template.yaml")).unwrap()
}

fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Each sample event with its file's name.
pub(crate) fn events() -> Vec<(String, Value)> {
    let read = |name: String| {
        let text = fs::read_to_string(root().join("tests/events").join(&name)).unwrap();
        let event = serde_json::from_str(&text).unwrap();
        (name.trim_end_matches(".json").to_owned(), event)
    };
    names("tests/events").into_iter().map(read).collect()
}

/// The function that an event is for: its file is named after it, and may say more behind that.
fn function_of<'a>(template: &'a Template, name: &str) -> &'a Function {
    let functions = template.functions.iter().filter(|function| name.starts_with(&function.binary));
    functions.max_by_key(|function| function.binary.len()).unwrap_or_else(|| panic!("{name} is for no function"))
}

#[test]
fn every_function_is_deployed_and_nothing_else() {
    let deployed: BTreeSet<String> = template().functions.into_iter().map(|function| function.binary).collect();
    assert_eq!(deployed, names("functions"));
}

#[test]
fn every_route_has_a_sample_event_that_the_gateway_could_have_sent() {
    let template = template();
    let mut missing: BTreeSet<String> =
        template.functions.iter().flat_map(|function| &function.routes).map(|route| route.key()).collect();
    for (name, event) in events() {
        let function = function_of(&template, &name);
        let Some(key) = event["routeKey"].as_str() else {
            assert!(function.routes.is_empty(), "{name} names no route of {}", function.binary);
            continue;
        };
        let route = function.routes.iter().find(|route| route.key() == key);
        let route = route.unwrap_or_else(|| panic!("{name}: {key} is no route of {}", function.binary));
        let has_claims = event["requestContext"]["authorizer"]["jwt"]["claims"].is_object();
        assert_eq!(has_claims, route.needs_token, "{name}");
        assert_eq!(event["requestContext"]["routeKey"], event["routeKey"], "{name}");
        let request = lambda_http::request::from_str(&event.to_string()).unwrap();
        assert_eq!(shared::http::route(&request), key, "{name}");
        missing.remove(key);
    }
    assert_eq!(missing, BTreeSet::new(), "routes without a sample event");
}

#[test]
fn every_function_without_a_route_has_a_sample_event() {
    let template = template();
    let named: BTreeSet<&str> = template.functions.iter().map(|function| function.binary.as_str()).collect();
    let sampled: BTreeSet<String> =
        events().iter().map(|(name, _)| function_of(&template, name).binary.clone()).collect();
    assert_eq!(sampled, named.into_iter().map(str::to_owned).collect());
}
