//! What the local run takes from `template.yaml`: routes and who may call them, CORS, time limits, schedules.
//!
//! It is read as SAM and API Gateway would understand it. What this reader does not know how to do as they do, it
//! refuses, so that the local run never quietly differs from the deployed API.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use http::Method;
use percent_encoding::percent_decode_str;
use serde_yaml_ng::Value;

use crate::error::{Context, Error, Result};

/// Lambda's own limit for a function that sets none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// The part of the template that matters on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// All functions, in the template's order.
    pub functions: Vec<Function>,
    /// What pages of other origins may do.
    pub cors: Cors,
}

/// A clock that calls a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How often.
    pub every: Duration,
    /// What it is told each time.
    pub event: serde_json::Value,
}

/// A function and what calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The name of its binary, which is that of its package.
    pub binary: String,
    /// How long one invocation may take.
    pub timeout: Duration,
    /// The routes of the HTTP API that it answers.
    pub routes: Vec<Route>,
    /// When it is invoked by the clock, if it is.
    pub schedules: Vec<Schedule>,
    /// The role in which it comes to PostgreSQL, if it says.
    pub role: Option<String>,
}

/// A route of the HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The method; no method stands for another, not even GET for HEAD.
    pub method: Method,
    /// The path, `/courses/{courseId}`.
    pub path: String,
    /// Whether the authorizer stands before it. If not, its function sees no claims, token or no token.
    pub needs_token: bool,
}

/// `CorsConfiguration`: an empty list allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Origins, or `*`.
    pub allow_origins: Vec<String>,
    /// Methods.
    pub allow_methods: Vec<String>,
    /// Request headers.
    pub allow_headers: Vec<String>,
    /// Response headers that a page may read.
    pub expose_headers: Vec<String>,
    /// How long, in seconds, a browser may keep a preflight's answer.
    pub max_age: Option<u64>,
}

/// A route that fits a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Match<'a> {
    /// The function that answers it.
    pub function: &'a Function,
    /// The route.
    pub route: &'a Route,
    /// The path's variables, decoded.
    pub parameters: BTreeMap<String, String>,
}

impl Template {
    /// Reads the template's file.
    ///
    /// # Errors
    /// When it cannot be read, or asks for something that the local run cannot do.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = || format!("{} cannot be used", path.display());
        Self::parse(&std::fs::read_to_string(path).context(failed)?).context(failed)
    }

    /// Reads the template's text.
    ///
    /// # Errors
    /// When it asks for something that the local run cannot do.
    pub fn parse(text: &str) -> Result<Self> {
        let document: Value = serde_yaml_ng::from_str(text).context(|| "the template is not YAML")?;
        let resources =
            document["Resources"].as_mapping().ok_or_else(|| Error::new("the template has no Resources"))?;
        let of_type = |wanted: &'static str| {
            resources.iter().filter(move |(_, resource)| resource["Type"].as_str() == Some(wanted))
        };
        let (_, api) =
            of_type("AWS::Serverless::HttpApi").next().ok_or_else(|| Error::new("the template has no API"))?;
        let default_authorizer = api["Properties"]["Auth"]["DefaultAuthorizer"].is_string();
        let functions = of_type("AWS::Serverless::Function")
            .map(|(name, function)| {
                read_function(&document, function, default_authorizer).context(|| format!("function {}", shown(name)))
            })
            .collect::<Result<_>>()?;
        let cors = read_cors(&document, &api["Properties"]["CorsConfiguration"])?;
        Ok(Self { functions, cors })
    }

    /// The route that API Gateway would choose. It decodes the path first; an exact segment beats a variable.
    pub fn find(&self, method: &Method, decoded_path: &str) -> Option<Match<'_>> {
        let routes =
            self.functions.iter().flat_map(|function| function.routes.iter().map(move |route| (function, route)));
        routes
            .filter(|(_, route)| route.method == method)
            .filter_map(|(function, route)| {
                Some(Match { function, route, parameters: match_path(&route.path, decoded_path)? })
            })
            .min_by_key(|found| specificity(&found.route.path))
    }

    /// A function by the name of its binary.
    pub fn function(&self, binary: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.binary == binary)
    }
}

impl Route {
    /// The route as API Gateway names it.
    pub fn key(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// The path as API Gateway sees and hands it on: decoded, and cut where a decoded `?` would begin a query.
pub fn decode_path(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    decoded.split('?').next().unwrap_or_default().to_owned()
}

fn match_path(template: &str, path: &str) -> Option<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(parameters),
            (Some(segment), Some(value)) => match variable(segment) {
                Some(name) if !value.is_empty() => {
                    parameters.insert(name.to_owned(), value.to_owned());
                }
                None if segment == value => {}
                _ => return None,
            },
            _ => return None,
        }
    }
}

/// Sorts exact segments before variables, from the left.
fn specificity(path: &str) -> Vec<bool> {
    path.split('/').map(|segment| variable(segment).is_some()).collect()
}

fn variable(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn read_function(document: &Value, function: &Value, default_authorizer: bool) -> Result<Function> {
    let binary = function["Metadata"]["BuildProperties"]["Binary"].as_str();
    let binary = binary.ok_or_else(|| Error::new("it has no Metadata.BuildProperties.Binary"))?.to_owned();
    let properties = &function["Properties"];
    let timeout = [&properties["Timeout"], &document["Globals"]["Function"]["Timeout"]]
        .into_iter()
        .find_map(Value::as_u64)
        .map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let (mut routes, mut schedules) = (Vec::new(), Vec::new());
    for (name, event) in properties["Events"].as_mapping().into_iter().flatten() {
        let (kind, event) = (event["Type"].as_str().unwrap_or_default(), &event["Properties"]);
        let in_event = || format!("event {}", shown(name));
        match kind {
            "HttpApi" => routes.push(read_route(event, default_authorizer).context(in_event)?),
            "Schedule" => schedules.push(read_schedule(document, &event["Schedule"], event).context(in_event)?),
            "ScheduleV2" => {
                schedules.push(read_schedule(document, &event["ScheduleExpression"], event).context(in_event)?)
            }
            other => {
                return Err(Error::new(format!("events of type {other:?} are not known to the local run")))
                    .context(in_event);
            }
        }
    }
    let role = properties["Environment"]["Variables"]["DB_USER"].as_str().map(str::to_owned);
    Ok(Function { binary, timeout, routes, schedules, role })
}

fn read_route(event: &Value, default_authorizer: bool) -> Result<Route> {
    let path = event["Path"].as_str().ok_or_else(|| Error::new("it has no Path"))?.to_owned();
    let method = event["Method"].as_str().ok_or_else(|| Error::new("it has no Method"))?.to_ascii_uppercase();
    if path.contains("+}") || matches!(method.as_str(), "ANY" | "*") {
        return Err(Error::new("greedy paths and catch-all methods are not known to the local run"));
    }
    if !event["Auth"]["AuthorizationScopes"].is_null() {
        return Err(Error::new("scopes on routes are not known to the local run"));
    }
    let needs_token = match event["Auth"]["Authorizer"].as_str() {
        Some("NONE") => false,
        Some(_) => true,
        None => default_authorizer,
    };
    let method = method.parse().context(|| format!("{method} is no method"))?;
    Ok(Route { method, path, needs_token })
}

/// Reads `rate(5 minutes)`, as it is or by the default of a parameter, and what the function is told then.
fn read_schedule(document: &Value, expression: &Value, event: &Value) -> Result<Schedule> {
    let text = mapped(document, expression).unwrap_or(expression).as_str().unwrap_or_default();
    let rate = || {
        let (count, unit) = text.strip_prefix("rate(")?.strip_suffix(')')?.split_once(' ')?;
        let seconds = match unit.trim_end_matches('s') {
            "minute" => 60,
            "hour" => 3_600,
            "day" => 86_400,
            _ => return None,
        };
        count.parse().ok().filter(|count| *count > 0).map(|count: u32| Duration::from_secs(seconds * u64::from(count)))
    };
    let every = rate().ok_or_else(|| Error::new(format!("the schedule {text:?} is not known to the local run")))?;
    let event = event["Input"].as_str().unwrap_or("{}");
    let event = serde_json::from_str(event).context(|| format!("{event} is not JSON"))?;
    Ok(Schedule { every, event })
}

fn read_cors(document: &Value, cors: &Value) -> Result<Cors> {
    if cors["AllowCredentials"].as_bool() == Some(true) {
        return Err(Error::new("CORS with credentials is not known to the local run"));
    }
    let list = |name: &str| read_list(document, &cors[name]).context(|| format!("CorsConfiguration.{name}"));
    Ok(Cors {
        allow_origins: list("AllowOrigins")?,
        allow_methods: list("AllowMethods")?,
        allow_headers: list("AllowHeaders")?,
        expose_headers: list("ExposeHeaders")?,
        max_age: cors["MaxAge"].as_u64(),
    })
}

/// What `!FindInMap [map, !Ref parameter, key]` finds with the parameter's default.
fn mapped<'a>(document: &'a Value, value: &Value) -> Option<&'a Value> {
    let Value::Tagged(find) = value else { return None };
    let [map, Value::Tagged(parameter), key] = find.value.as_sequence()?.as_slice() else { return None };
    if find.tag != "FindInMap" || parameter.tag != "Ref" {
        return None;
    }
    let default = &document["Parameters"][parameter.value.as_str()?]["Default"];
    Some(&document["Mappings"][map.as_str()?][default.as_str()?][key.as_str()?])
}

/// A list of texts, or a reference to a parameter with a default.
fn read_list(document: &Value, value: &Value) -> Result<Vec<String>> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(one) => Ok(vec![one.clone()]),
        Value::Sequence(many) => many
            .iter()
            .map(|one| one.as_str().map(str::to_owned).ok_or_else(|| Error::new("it is not a list of texts")))
            .collect(),
        Value::Tagged(reference) if reference.tag == "Ref" => {
            let name = reference.value.as_str().unwrap_or_default();
            let default = document["Parameters"][name]["Default"].as_str();
            let default = default.ok_or_else(|| Error::new(format!("the parameter {name} has no default")))?;
            Ok(default.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect())
        }
        _ => Err(Error::new("it is neither a list nor a reference to a parameter")),
    }
}

fn shown(name: &Value) -> &str {
    name.as_str().unwrap_or("without a name")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEMPLATE: &str = r#"
Parameters:
  Origins: { Type: CommaDelimitedList, Default: "https://one.example, https://two.example" }
  Size: { Type: String, Default: small }
Mappings:
  Sizes:
    small: { Often: rate(1 hour) }
    large: { Often: rate(2 minutes) }
Globals:
  Function: { Timeout: 15, Architectures: [!Ref Architecture] }
Resources:
  Api:
    Type: AWS::Serverless::HttpApi
    Properties:
      Auth:
        DefaultAuthorizer: AccessToken
        Authorizers: { AccessToken: { JwtConfiguration: { issuer: !Ref Issuer, audience: !Ref Audience } } }
      CorsConfiguration:
        AllowOrigins: !Ref Origins
        AllowMethods: [GET, POST]
        AllowHeaders: [Authorization]
        MaxAge: 3600
  GetCourse:
    Type: AWS::Serverless::Function
    Metadata: { BuildMethod: rust-cargolambda, BuildProperties: { Binary: get-course } }
    Properties:
      FunctionName: !Sub ${AWS::StackName}-get-course
      Events:
        Outline:
          Type: HttpApi
          Properties: { ApiId: !Ref Api, Method: GET, Path: "/courses/{courseId}", Auth: { Authorizer: NONE } }
        Popular:
          Type: HttpApi
          Properties: { ApiId: !Ref Api, Method: get, Path: /courses/popular }
        Progress:
          Type: HttpApi
          Properties: { ApiId: !Ref Api, Method: GET, Path: "/courses/{courseId}/lessons/{lessonId}" }
  Refresh:
    Type: AWS::Serverless::Function
    Metadata: { BuildProperties: { Binary: refresh } }
    Properties:
      Timeout: 240
      Role: !GetAtt Role.Arn
      Environment: { Variables: { DB_USER: refresher } }
      Events:
        Often: { Type: ScheduleV2, Properties: { ScheduleExpression: rate(5 minutes), Name: !Sub "${AWS::StackName}-r" } }
        BySize:
          Type: ScheduleV2
          Properties: { ScheduleExpression: !FindInMap [Sizes, !Ref Size, Often], Input: '{"mode":"all"}' }
  Queue: { Type: AWS::SQS::Queue }
"#;

    fn template() -> Template {
        Template::parse(TEMPLATE).expect("a template")
    }

    fn found(method: &str, path: &str) -> Option<(String, BTreeMap<String, String>)> {
        let template = template();
        let found = template.find(&method.parse().expect("a method"), &decode_path(path))?;
        Some((found.route.path.clone(), found.parameters))
    }

    fn parameters(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn functions_come_with_their_limits_routes_and_schedules() {
        let template = template();
        let get_course = template.function("get-course").expect("a function");
        assert_eq!(get_course.timeout, Duration::from_secs(15));
        let routes: Vec<_> = get_course.routes.iter().map(|route| (route.key(), route.needs_token)).collect();
        let expected = [
            ("GET /courses/{courseId}", false),
            ("GET /courses/popular", true),
            ("GET /courses/{courseId}/lessons/{lessonId}", true),
        ];
        assert_eq!(routes, expected.map(|(key, token)| (key.to_owned(), token)));
        let refresh = template.function("refresh").expect("a function");
        let often = Schedule { every: Duration::from_secs(300), event: json!({}) };
        let by_size = Schedule { every: Duration::from_secs(3_600), event: json!({"mode": "all"}) };
        assert_eq!((refresh.timeout, refresh.schedules.as_slice()), (Duration::from_secs(240), &[often, by_size][..]));
        assert_eq!((refresh.routes.as_slice(), refresh.role.as_deref()), (&[][..], Some("refresher")));
        assert_eq!(get_course.role, None);
    }

    #[test]
    fn cors_is_read_with_the_parameters_defaults() {
        let cors = template().cors;
        assert_eq!(cors.allow_origins, ["https://one.example", "https://two.example"]);
        assert_eq!((cors.max_age, cors.expose_headers.len()), (Some(3600), 0));
    }

    #[test]
    fn an_exact_segment_beats_a_variable() {
        assert_eq!(found("GET", "/courses/popular").expect("a route").0, "/courses/popular");
        let (path, parameters_found) = found("GET", "/courses/42").expect("a route");
        assert_eq!((path.as_str(), parameters_found), ("/courses/{courseId}", parameters(&[("courseId", "42")])));
    }

    #[test]
    fn variables_are_decoded() {
        let (_, found) = found("GET", "/courses/a%20b/lessons/%C3%A9").expect("a route");
        assert_eq!(found, parameters(&[("courseId", "a b"), ("lessonId", "é")]));
    }

    #[test]
    fn what_the_gateway_does_not_match_is_not_matched() {
        for (method, path) in [
            ("GET", "/courses"),
            ("GET", "/courses/"),
            ("GET", "/courses/42/"),
            ("GET", "//courses/42"),
            ("GET", "/Courses/42"),
            ("GET", "/courses/a%2Fb"),
            ("GET", "/courses//lessons/7"),
            ("HEAD", "/courses/42"),
            ("POST", "/courses/42"),
        ] {
            assert_eq!(found(method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn a_decoded_question_mark_ends_the_path() {
        assert_eq!(decode_path("/courses/42%3Fadmin=true"), "/courses/42");
        assert_eq!(decode_path("/courses/%zz%ff"), "/courses/%zz\u{fffd}");
    }

    #[test]
    fn what_would_differ_from_the_gateway_is_refused() {
        for (from, to) in [
            ("Method: get", "Method: ANY"),
            ("/courses/popular", "\"/courses/{rest+}\""),
            ("Authorizer: NONE", "AuthorizationScopes: [a]"),
            ("rate(5 minutes)", "cron(0 * * * ? *)"),
            ("rate(5 minutes)", "rate(0 minutes)"),
            ("[Sizes, !Ref Size, Often]", "[Sizes, !Ref Size, Never]"),
            ("[Sizes, !Ref Size, Often]", "[Sizes, !Ref AWS::Region, Often]"),
            ("Type: ScheduleV2", "Type: SQS"),
            ("MaxAge: 3600", "AllowCredentials: true"),
            (", Default: \"https://one.example, https://two.example\"", ""),
            ("BuildProperties: { Binary: refresh }", "BuildMethod: makefile"),
        ] {
            let changed = TEMPLATE.replacen(from, to, 1);
            assert_ne!(changed, TEMPLATE, "{from}");
            assert!(Template::parse(&changed).is_err(), "{to}");
        }
    }
}
