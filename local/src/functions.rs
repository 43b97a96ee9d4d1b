//! Which code answers for which function of the template. The one list of handlers; a test holds it against the template.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use lambda_http::{Body, Request, Response};
use serde_json::Value;
use shared::app::App;
use shared::{http, invocation, telemetry::Trace};

/// What an HTTP function comes to.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
/// What a function of events comes to.
pub(crate) type Working = Pin<Box<dyn Future<Output = Result<Value, shared::error::Error>> + Send>>;

/// A function's code, as its binary would run it.
#[derive(Clone, Copy)]
pub(crate) enum Function {
    /// It answers routes of the HTTP API.
    Http(fn(Arc<App>, Request) -> Answering),
    /// It is invoked with an event, an id and a deadline, by a schedule or by hand.
    Event(fn(Arc<App>, String, Value, Instant) -> Working),
}

macro_rules! http_function {
    ($package:ident) => {
        Function::Http(|app, request| Box::pin(http::answer(app, request, $package::handle)))
    };
}

macro_rules! event_function {
    ($package:ident) => {
        Function::Event(|app, id, event, deadline| {
            let trace = Trace { function_request_id: id, ..Trace::default() };
            Box::pin(invocation::answer(app, trace, event, deadline, $package::handle))
        })
    };
}

const FUNCTIONS: [(&str, Function); 13] = [
    ("list-courses", http_function!(list_courses)),
    ("get-course", http_function!(get_course)),
    ("generate-course", http_function!(generate_course)),
    ("update-course", http_function!(update_course)),
    ("enroll-learner", http_function!(enroll_learner)),
    ("record-progress", http_function!(record_progress)),
    ("get-progress", http_function!(get_progress)),
    ("get-analytics", http_function!(get_analytics)),
    ("manage-learner", http_function!(manage_learner)),
    ("refresh-analytics", event_function!(refresh_analytics)),
    ("replay-parked", event_function!(replay_parked)),
    ("migrate", event_function!(migrate)),
    ("prepare-database", event_function!(prepare_database)),
];

/// The code behind a binary's name.
pub(crate) fn find(binary: &str) -> Option<Function> {
    FUNCTIONS.iter().find(|(name, _)| *name == binary).map(|(_, function)| *function)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::template::Template;

    #[test]
    fn every_function_of_the_template_is_here_and_no_other() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template.yaml");
        let template = Template::read(&path).expect("the template");
        for function in &template.functions {
            match find(&function.binary) {
                Some(Function::Http(_)) => assert!(!function.routes.is_empty(), "{} has no route", function.binary),
                Some(Function::Event(_)) => assert!(function.routes.is_empty(), "{} has a route", function.binary),
                None => panic!("{} is not here", function.binary),
            }
        }
        for (name, _) in FUNCTIONS {
            assert!(template.function(name).is_some(), "{name} is not in the template");
        }
    }
}
