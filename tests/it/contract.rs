//! openapi.yaml against what is there: the template's routes, its own examples, and every answer that any test gets.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Read,
    sync::{Arc, LazyLock, Mutex},
};

use jsonschema::{Draft, Validator};
use local::template::{Template, decode_path};
use reqwest::{
    Method, Request, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap},
};
use serde_json::{Map, Value, json};

/// Headers that say how an answer travels, and those that are the gateway's on every answer.
const OF_EVERY_ANSWER: [&str; 6] =
    ["apigw-requestid", "connection", "content-encoding", "content-length", "content-type", "date"];

/// The contract that every answer is held against.
pub(crate) fn contract() -> &'static Contract {
    static CONTRACT: LazyLock<Contract> = LazyLock::new(Contract::read);
    &CONTRACT
}

/// openapi.yaml, and the template, which says what a path means.
pub(crate) struct Contract {
    document: Value,
    /// The same, with the documented keys in answers and no other.
    closed: Value,
    template: Template,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

/// What was sent, as far as the contract speaks of it.
pub(crate) struct Sent {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Sent {
    /// Keeps what a request says.
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            path: decode_path(request.url().path()),
            query: request.url().query_pairs().into_owned().collect(),
            headers: request.headers().clone(),
            body: request.body().and_then(|body| body.as_bytes()).unwrap_or_default().to_vec(),
        }
    }
}

/// A documented outcome of an operation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Outcome {
    /// `operationId`.
    pub(crate) operation: String,
    /// The status.
    pub(crate) status: u16,
    /// The code of a problem, `gateway` where the gateway speaks, the media type of any other body, or nothing.
    pub(crate) what: String,
}

impl Contract {
    fn read() -> Self {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let text = std::fs::read_to_string(format!("{root}/openapi.yaml")).expect("openapi.yaml");
        let document: Value = serde_yaml_ng::from_str(&text).expect("YAML");
        let mut closed = document.clone();
        // A schema may be a part of another one; whoever uses it as a whole closes it there.
        let schemas = closed["components"]["schemas"].as_object_mut().expect("schemas");
        schemas.values_mut().for_each(|schema| close(schema, true));
        let template = Template::read(format!("{root}/template.yaml").as_ref()).expect("a good template");
        Self { document, closed, template, validators: Mutex::default() }
    }

    /// All operations: method, path and what is said of them.
    fn operations(&self) -> impl Iterator<Item = (Method, &str, &Value)> {
        let paths = self.document["paths"].as_object().expect("paths");
        paths.iter().flat_map(|(path, item)| {
            let operations = item.as_object().expect("a path").iter().filter(|(key, _)| *key != "parameters");
            operations
                .map(|(method, operation)| (method.to_uppercase().parse().expect("a method"), path.as_str(), operation))
        })
    }

    /// What is said of one operation.
    pub(crate) fn operation(&self, id: &str) -> &Value {
        let mut operations = self.operations();
        let found = operations.find_map(|(_, _, operation)| (operation["operationId"] == id).then_some(operation));
        found.unwrap_or_else(|| panic!("there is no operation {id}"))
    }

    /// What stands behind a reference, or the value itself.
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => {
                self.document.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference} is missing"))
            }
            None => value,
        }
    }

    /// Every outcome that is documented.
    pub(crate) fn outcomes(&self) -> BTreeSet<Outcome> {
        let mut outcomes = BTreeSet::new();
        for (_, _, operation) in self.operations() {
            for (status, answer) in operation["responses"].as_object().expect("responses") {
                let mut add = |what: &str| {
                    outcomes.insert(Outcome {
                        operation: operation["operationId"].as_str().expect("an operationId").to_owned(),
                        status: status.parse().expect("a status"),
                        what: what.to_owned(),
                    });
                };
                let answer = self.resolve(answer);
                match answer["content"].as_object() {
                    None => add(""),
                    Some(content) => content.iter().for_each(|(kind, media)| match kind.as_str() {
                        "application/problem+json" => self.codes(&media["schema"]).into_iter().for_each(&mut add),
                        "application/json" if media["schema"]["$ref"] == "#/components/schemas/GatewayMessage" => {
                            add("gateway");
                        }
                        kind => add(kind),
                    }),
                }
            }
        }
        outcomes
    }

    /// The codes that the schema of a problem allows.
    fn codes<'a>(&'a self, schema: &'a Value) -> Vec<&'a str> {
        let schema = self.resolve(schema);
        let parts = schema["allOf"].as_array().expect("a problem and its codes");
        let codes = parts.iter().find_map(|part| part["properties"]["code"]["enum"].as_array()).expect("codes");
        codes.iter().map(|code| code.as_str().expect("a code")).collect()
    }

    /// A validator for what stands at a place of the document.
    fn validator(&self, document: &Value, schema: &Value) -> Arc<Validator> {
        let is_closed = std::ptr::eq(document, &self.closed);
        let key = format!("{is_closed} {schema}");
        let mut validators = self.validators.lock().unwrap();
        let validator = validators.entry(key).or_insert_with(|| {
            let schema = json!({"allOf": [schema], "components": {"schemas": document["components"]["schemas"]}});
            let options = jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true);
            Arc::new(options.build(&schema).unwrap_or_else(|error| panic!("{error}: {}", schema["allOf"])))
        });
        validator.clone()
    }

    /// What a schema has to say against a value.
    fn faults(&self, document: &Value, schema: &Value, value: &Value) -> Vec<String> {
        let validator = self.validator(document, schema);
        let faults = validator.iter_errors(value).take(5);
        faults.map(|fault| format!("{}: {}", fault.instance_path(), shortened(&fault.to_string()))).collect()
    }

    /// Panics where an answer, or a request that was taken, is not as documented. What is no route is left alone.
    #[track_caller]
    pub(crate) fn check(&self, sent: &Sent, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Outcome> {
        let found = self.template.find(&sent.method, &sent.path)?;
        let item = &self.document["paths"][&found.route.path];
        let operation = &item[sent.method.as_str().to_lowercase()];
        let name =
            operation["operationId"].as_str().unwrap_or_else(|| panic!("{} is not documented", found.route.key()));
        let mut faults = Vec::new();
        let answer = self.resolve(&operation["responses"][status.as_str()]);
        if answer.is_null() {
            faults.push(format!("the status is not documented: {}", String::from_utf8_lossy(body)));
        }
        let what = self.check_body(answer, status, headers, body, &mut faults);
        self.check_headers(answer, headers, &mut faults);
        if status.is_success() {
            self.check_request(sent, item, operation, &found.parameters, &mut faults);
        }
        assert!(faults.is_empty(), "{name} {status} is not as openapi.yaml says:\n{}", faults.join("\n"));
        Some(Outcome { operation: name.to_owned(), status: status.as_u16(), what })
    }

    fn check_body(
        &self,
        answer: &Value,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        faults: &mut Vec<String>,
    ) -> String {
        let kind = headers.get(CONTENT_TYPE).map(|kind| kind.to_str().expect("a text"));
        let kind = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim());
        let Some(content) = answer["content"].as_object() else {
            if kind.is_some() || !body.is_empty() {
                faults.push(format!("no body is documented, but there is one of {kind:?}"));
            }
            return String::new();
        };
        let kind = kind.unwrap_or_default();
        let Some(media) = content.get(kind) else {
            faults.push(format!("the media type {kind:?} is not documented"));
            return kind.to_owned();
        };
        let is_compressed = headers.get(CONTENT_ENCODING).is_some_and(|coding| coding == "gzip");
        let body = if is_compressed { unpacked(body) } else { body.to_vec() };
        if !kind.ends_with("json") {
            return kind.to_owned();
        }
        let Ok(value) = serde_json::from_slice::<Value>(&body) else {
            faults.push("the body is not JSON".to_owned());
            return kind.to_owned();
        };
        let mut schema = media["schema"].clone();
        close(&mut schema, false);
        faults.extend(self.faults(&self.closed, &schema, &value));
        match kind {
            "application/problem+json" => {
                if value["type"] != format!("urn:lectern:problem:{}", value["code"].as_str().unwrap_or_default()) {
                    faults.push("type and code do not agree".to_owned());
                }
                let has = |name| headers.contains_key(name);
                if !has("cache-control") || (status == StatusCode::SERVICE_UNAVAILABLE && !has("retry-after")) {
                    faults.push("a problem lacks Cache-Control, or Retry-After".to_owned());
                }
                value["code"].as_str().unwrap_or_default().to_owned()
            }
            _ if media["schema"]["$ref"] == "#/components/schemas/GatewayMessage" => "gateway".to_owned(),
            kind => kind.to_owned(),
        }
    }

    fn check_headers(&self, answer: &Value, headers: &HeaderMap, faults: &mut Vec<String>) {
        let none = Map::new();
        let declared = answer["headers"].as_object().unwrap_or(&none);
        let of_gateway = |name: &str| OF_EVERY_ANSWER.contains(&name) || name.starts_with("access-control-");
        for name in headers.keys().map(|name| name.as_str()).filter(|name| !of_gateway(name)) {
            if !declared.keys().any(|declared| declared.eq_ignore_ascii_case(name)) {
                faults.push(format!("the header {name} is not documented"));
            }
        }
        for (name, header) in declared {
            let header = self.resolve(header);
            match headers.get(name).map(|value| value.to_str().expect("a text")) {
                Some(value) => {
                    let value = in_header(&header["schema"], value);
                    let wrong = self.faults(&self.document, &header["schema"], &value);
                    faults.extend(wrong.iter().map(|fault| format!("header {name}{fault}")));
                }
                None if header["required"] == true => faults.push(format!("the header {name} is missing")),
                None => {}
            }
        }
    }

    /// What was taken must have been documented as good.
    fn check_request(
        &self,
        sent: &Sent,
        item: &Value,
        operation: &Value,
        in_path: &BTreeMap<String, String>,
        faults: &mut Vec<String>,
    ) {
        let none = Vec::new();
        let of = |value: &'_ Value| value["parameters"].as_array().unwrap_or(&none).clone();
        for parameter in of(item).iter().chain(&of(operation)).map(|parameter| self.resolve(parameter)) {
            let name = parameter["name"].as_str().expect("a name");
            let value = match parameter["in"].as_str() {
                Some("path") => in_path.get(name).map(String::as_str),
                Some("query") => sent.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()),
                _ => sent.headers.get(name).and_then(|value| value.to_str().ok()),
            };
            match value {
                // An empty parameter counts as absent.
                Some("") => {}
                Some(value) => {
                    let value = in_header(&parameter["schema"], value);
                    let wrong = self.faults(&self.document, &parameter["schema"], &value);
                    faults.extend(wrong.iter().map(|fault| format!("the parameter {name} was taken{fault}")));
                }
                None if parameter["required"] == true => faults.push(format!("{name} is required, but was not missed")),
                None => {}
            }
        }
        if let Some(media) = operation["requestBody"]["content"].get("application/json") {
            match serde_json::from_slice(&sent.body) {
                Ok(body) => {
                    let wrong = self.faults(&self.document, &media["schema"], &body);
                    faults.extend(wrong.iter().map(|fault| format!("a body was taken: {fault}")));
                }
                Err(_) => faults.push("a body was taken that is no JSON".to_owned()),
            }
        }
    }
}

/// Forbids all keys but the documented ones, wherever an object is used as a whole.
fn close(schema: &mut Value, is_part: bool) {
    match schema {
        Value::Object(keys) => {
            for (key, value) in keys.iter_mut() {
                match value {
                    Value::Array(parts) if key == "allOf" => parts.iter_mut().for_each(|part| close(part, true)),
                    value => close(value, key == "not"),
                }
            }
            let is_object = keys.get("type").is_some_and(|kind| kind == "object") && keys.contains_key("properties");
            let reference = keys.get("$ref").and_then(Value::as_str);
            let is_named = reference.is_some_and(|name| name.starts_with("#/components/schemas/"));
            if !is_part && (is_object || is_named || keys.contains_key("allOf")) {
                keys.insert("unevaluatedProperties".to_owned(), false.into());
            }
        }
        Value::Array(parts) => parts.iter_mut().for_each(|part| close(part, false)),
        _ => {}
    }
}

/// A text as the schema of a header or a parameter means it.
fn in_header(schema: &Value, text: &str) -> Value {
    match text.parse::<i64>() {
        Ok(number) if schema["type"] == "integer" => number.into(),
        _ => text.into(),
    }
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut unpacked).expect("gzip");
    unpacked
}

fn shortened(text: &str) -> String {
    text.chars().take(500).collect()
}

#[test]
fn every_route_of_the_template_is_documented_and_no_other() {
    let contract = contract();
    let routes = contract.template.functions.iter().flat_map(|function| &function.routes);
    let deployed: BTreeSet<(String, bool)> = routes.map(|route| (route.key(), route.needs_token)).collect();
    let documented: BTreeSet<(String, bool)> = contract
        .operations()
        .map(|(method, path, operation)| {
            let security = operation.get("security").unwrap_or(&contract.document["security"]);
            (format!("{method} {path}"), *security == json!([{"accessToken": []}]))
        })
        .collect();
    assert_eq!(deployed, documented);
}

#[test]
fn every_parameter_of_a_path_is_described() {
    for (_, path, _) in contract().operations() {
        let item = &contract().document["paths"][path];
        let none = Vec::new();
        let described = item["parameters"].as_array().unwrap_or(&none).iter();
        let described: BTreeSet<String> = described
            .map(|parameter| format!("{{{}}}", contract().resolve(parameter)["name"].as_str().expect("a name")))
            .collect();
        let named = path.split('/').filter(|segment| segment.starts_with('{')).map(str::to_owned).collect();
        assert_eq!(described, named, "{path}");
    }
}

#[test]
fn every_example_is_what_its_schema_describes() {
    let contract = contract();
    let mut seen = 0;
    visit(&contract.document, &mut |value| {
        let Some(schema) = value.get("schema") else { return };
        let named = value["examples"].as_object().into_iter().flat_map(|examples| examples.values());
        let examples = value.get("example").into_iter().chain(named.filter_map(|example| example.get("value")));
        for example in examples {
            let faults = contract.faults(&contract.document, schema, example);
            assert!(faults.is_empty(), "{example}\n{}", faults.join("\n"));
            seen += 1;
        }
    });
    assert!(seen > 50, "only {seen} examples were found");
}

#[test]
fn every_link_leads_to_an_operation_that_knows_its_parameters() {
    let contract = contract();
    let operations: BTreeMap<&str, (&str, &Value)> = contract
        .operations()
        .map(|(_, path, operation)| (operation["operationId"].as_str().expect("an operationId"), (path, operation)))
        .collect();
    let mut links = 0;
    visit(&contract.document, &mut |value| {
        for link in value.get("links").and_then(Value::as_object).into_iter().flat_map(|links| links.values()) {
            let (path, operation) = operations[link["operationId"].as_str().expect("an operationId")];
            let of_path = contract.document["paths"][path]["parameters"].as_array().cloned().unwrap_or_default();
            let own = operation["parameters"].as_array().cloned().unwrap_or_default();
            let known: Vec<&str> = of_path
                .iter()
                .chain(&own)
                .map(|parameter| contract.resolve(parameter)["name"].as_str().expect("a name"))
                .collect();
            for name in link["parameters"].as_object().into_iter().flat_map(|parameters| parameters.keys()) {
                assert!(known.contains(&name.as_str()), "{name} is no parameter of {path}");
            }
            links += 1;
        }
    });
    assert!(links > 20, "only {links} links were found");
}

/// Every object in a document.
fn visit(value: &Value, look: &mut impl FnMut(&Value)) {
    match value {
        Value::Object(keys) => {
            look(value);
            keys.values().for_each(|value| visit(value, look));
        }
        Value::Array(items) => items.iter().for_each(|value| visit(value, look)),
        _ => {}
    }
}

#[test]
fn the_catalogue_of_errors_is_of_the_code_and_has_every_code_of_the_contract_under_its_status() {
    let document = include_str!("../../docs/API.md");
    assert!(local::errors::renewed(document).as_deref() == Some(document), "make errors");

    let catalogue = shared::http::catalogue();
    let told: BTreeSet<(u16, &str)> = catalogue
        .lines()
        .skip(2)
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            (cells[1].parse().expect("a status"), cells[2].trim_matches('`'))
        })
        .collect();
    let outcomes = contract().outcomes();
    let is_code = |what: &str| !what.is_empty() && what != "gateway" && !what.contains('/');
    let documented = outcomes.iter().filter(|outcome| is_code(&outcome.what));
    let mut documented: BTreeSet<(u16, &str)> =
        documented.map(|outcome| (outcome.status, outcome.what.as_str())).collect();
    // Of no operation, for it is what a function says to a route that it does not know.
    documented.insert((404, "route_not_found"));
    assert_eq!(told, documented);
}
