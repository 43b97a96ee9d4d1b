//! What is deployed: every combination of the template's parameters is whole, and what it says of a function is what the
//! function does. None of it needs a server.

mod cloudformation;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use serde_json::{Value, json};
use shared::{config::Config, migrations::ALL, telemetry};

use self::cloudformation::{MADE, Parameters, Stack, Template, text};

const SIZES: [&str; 3] = ["small", "standard", "large"];
/// Connections that Aurora PostgreSQL gives at so many ACU; with 2, by memory, 400 of the 450 that its formula has.
const MAX_CONNECTIONS: [(&str, u32); 3] = [("2", 400), ("8", 1_669), ("64", 5_000)];
/// What an account can reserve of Lambda's usual 1 000: a hundred stay for everybody.
const RESERVABLE: u32 = 900;

/// What each function asks of AWS. `TransactWriteItems` is allowed by what is in it.
const CALLS: [(&str, &[&str]); 5] = [
    ("record-progress", &["dynamodb:PutItem"]),
    ("get-progress", &["dynamodb:GetItem"]),
    ("manage-learner", &["dynamodb:DeleteItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:UpdateItem"]),
    (
        "replay-parked",
        &["dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"],
    ),
    // The Data API asks for the secret in the caller's name.
    ("prepare-database", &["rds-data:ExecuteStatement", "secretsmanager:GetSecretValue"]),
];
/// Functions that a deploy calls.
const FOR_DEPLOYS: [&str; 2] = ["migrate", "prepare-database"];

/// Variables that a stack does not set, and why.
const NOT_SET: [(&str, &str); 12] = [
    ("DB_PASSWORD", "nothing secret stands in an environment"),
    ("AWS_REGION", "by Lambda"),
    ("AWS_ACCESS_KEY_ID", "by Lambda"),
    ("AWS_SECRET_ACCESS_KEY", "by Lambda"),
    ("AWS_SESSION_TOKEN", "by Lambda"),
    ("AWS_LAMBDA_MAX_CONCURRENCY", "by Lambda"),
    ("AWS_ENDPOINT_URL_DYNAMODB", "for emulators"),
    ("AWS_ENDPOINT_URL_RDS_DATA", "for emulators"),
    ("DATABASE_CONNECTIONS", "one for each copy, on which the sum of Copies rests"),
    ("SLOW_STATEMENT_MS", "its default"),
    ("WRITE_BURST", "its default"),
    ("REDIS_CA_BUNDLE", "AWS's caches have public authorities"),
];

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn template() -> Template {
    Template::read(&root().join("template.yaml"))
}

fn nested(name: &str) -> Template {
    Template::read(&root().join("stacks").join(name))
}

/// A function of the template, with what Globals give it.
struct Function {
    /// Its logical id.
    id: String,
    /// The name of its binary.
    binary: String,
    properties: Value,
    environment: BTreeMap<String, Value>,
}

fn functions(template: &Template) -> Vec<Function> {
    let variables = |of: &Value| of["Environment"]["Variables"].as_object().cloned().unwrap_or_default();
    let globals = &template.document["Globals"]["Function"];
    let read = |(id, function): (&String, &Value)| {
        let properties = function["Properties"].clone();
        let mut environment: BTreeMap<String, Value> = variables(globals).into_iter().collect();
        environment.extend(variables(&properties));
        let binary = text(&function["Metadata"]["BuildProperties"]["Binary"]);
        Function { id: id.clone(), binary, properties, environment }
    };
    template.of_type("AWS::Serverless::Function").map(read).collect()
}

impl Function {
    /// What it finds in its environment.
    fn environment(&self, stack: &Stack<'_>) -> BTreeMap<String, String> {
        let set = |(name, value): (&String, &Value)| Some((name.clone(), text(&stack.resolve(value)?)));
        self.environment.iter().filter_map(set).collect()
    }

    fn has_route(&self) -> bool {
        let events = self.properties["Events"].as_object();
        events.is_some_and(|events| events.values().any(|event| event["Type"] == "HttpApi"))
    }
}

/// Every combination of the parameters by which something is made or not, but for those that the rules refuse. What means
/// nothing alone comes together.
fn combinations(template: &Template) -> Vec<Parameters> {
    const HOST: [(&str, &str); 2] = [("DatabaseHost", "db.example"), ("DatabaseResourceId", "cluster-ABC")];
    const URL: (&str, &str) = ("DatabaseUrl", "{{resolve:secretsmanager:lectern:SecretString:url}}");
    const SUBNETS: [(&str, &str); 2] = [("VpcId", "vpc-1"), ("SubnetIds", "subnet-1,subnet-2")];
    const ISSUER: [(&str, &str); 2] = [("JwtIssuer", "https://issuer.example"), ("JwtAudience", "client")];
    let choices: [&[&[(&str, &str)]]; 8] = [
        &[&[("Size", SIZES[0])], &[("Size", SIZES[1])], &[("Size", SIZES[2])]],
        &[&[("Cache", "by-size")], &[("Cache", "valkey")], &[("Cache", "none")]],
        &[&[], &[("RedisUrl", "rediss://cache.example:6379"), ("RedisCluster", "true")]],
        &[
            &[],
            &[URL],
            &[
                URL,
                ("MigrationDatabaseUrl", "{{resolve:secretsmanager:lectern:SecretString:owner}}"),
                ("DatabaseUrlIsServer", "true"),
            ],
            &HOST,
        ],
        &[&[], &SUBNETS, &[SUBNETS[0], SUBNETS[1], ("SecurityGroupIds", "sg-1,sg-2")]],
        &[&[], &[("ServiceClient", "true")], &ISSUER],
        &[&[], &[("Edge", "cloudfront")]],
        &[&[], &[("DatabaseMinCapacity", "0"), ("AlarmEmail", "ada@example.org"), ("ReserveConcurrency", "false")]],
    ];
    let mut all = vec![Parameters::new()];
    for choice in choices {
        let with = |given: &Parameters, more: &[(&str, &str)]| {
            let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            given.clone().into_iter().chain(more).collect::<Parameters>()
        };
        all = all.iter().flat_map(|given| choice.iter().map(|more| with(given, more))).collect();
    }
    all.retain(|given| template.with(given).refusal().is_none());
    all
}

#[test]
fn every_combination_of_parameters_refers_only_to_what_it_makes() {
    let template = template();
    let combinations = combinations(&template);
    assert!(combinations.len() > 1_000, "{}", combinations.len());
    // Of those that come to the same, one is enough.
    let mut seen = BTreeSet::new();
    for given in &combinations {
        let stack = template.with(given);
        let conditions: Vec<bool> = template.section("Conditions").map(|(name, _)| stack.condition(name)).collect();
        if seen.insert(conditions) {
            stack.is_whole("template.yaml");
        }
    }
    assert!(seen.len() > 100, "{}", seen.len());
}

#[test]
fn a_reference_to_what_is_not_made_is_found() {
    let mut template = template();
    template.document["Resources"]["FunctionsToCache"]["Condition"] = "MakesDatabase".into();
    let caught = std::panic::catch_unwind(|| template.with(&Parameters::new()).is_whole("template.yaml"));
    let message = *caught.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("FunctionsToCache refers to CacheServer"), "{message}");
}

#[test]
fn the_rules_refuse_what_cannot_work_and_say_why() {
    let template = template();
    let refusal = |given: &[(&str, &str)]| {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        template.with(&given).refusal().map(str::to_owned)
    };
    assert_eq!(refusal(&[]), None);
    for (given, about) in [
        (&[("JwtIssuer", "https://issuer.example")][..], "JwtAudience"),
        (&[("DatabaseUrl", "x"), ("DatabaseHost", "y"), ("DatabaseResourceId", "z")], "Give one of them"),
        (&[("DatabaseHost", "y")], "DatabaseResourceId"),
        (&[("DatabasePort", "6432")], "DatabaseHost"),
        (&[("MigrationDatabaseUrl", "x")], "DatabaseUrl"),
        (&[("SubnetIds", "a,b")], "VpcId"),
        (&[("SecurityGroupIds", "a")], "SubnetIds"),
        (&[("RedisUrl", "x")], "cannot be reached"),
        (&[("DatabaseUrl", "x"), ("Cache", "valkey")], "cannot be reached"),
        (&[("DatabaseUrl", "x"), ("VpcId", "v"), ("SubnetIds", "a,b")], "Give SecurityGroupIds"),
        (&[("Size", "standard"), ("DatabaseMinCapacity", "0")], "awake"),
        (&[("Size", "large"), ("DatabaseMinCapacity", "0.5")], "2 000 connections"),
        (&[("WebAclArn", "arn:x")], "Edge"),
    ] {
        let why = refusal(given).unwrap_or_else(|| panic!("{given:?} is taken"));
        assert!(why.contains(about), "{given:?}: {why}");
    }
}

/// The variables that `config.rs` asks for. It asks for some only where others are set, and others where they are not.
fn read_variables() -> BTreeSet<String> {
    let asked = RefCell::new(BTreeSet::new());
    for absent in [&[][..], &["DATABASE_URL"], &["DATABASE_URL", "DB_PASSWORD"]] {
        let _ = Config::from_lookup(|name| {
            asked.borrow_mut().insert(name.to_owned());
            Some("iam".to_owned()).filter(|_| !absent.contains(&name))
        });
    }
    asked.into_inner()
}

#[test]
fn what_is_set_in_the_environment_is_what_config_reads() {
    let template = template();
    let set: BTreeSet<String> =
        functions(&template).iter().flat_map(|function| function.environment.keys().cloned()).collect();
    let mut read = read_variables();
    for (name, _) in NOT_SET {
        assert!(read.remove(name), "{name} is not read");
    }
    assert_eq!(set, read);
}

#[test]
fn every_function_starts_with_what_each_stack_gives_it() {
    let template = template();
    let functions = functions(&template);
    let mut seen = BTreeSet::new();
    for given in combinations(&template) {
        let stack = template.with(&given);
        for function in &functions {
            let mut environment = function.environment(&stack);
            // The stack's own address of a cache is a URL, which cannot be seen here, and the layer is not mounted.
            if environment.get("REDIS_URL").is_some_and(|url| url == MADE) {
                environment.insert("REDIS_URL".to_owned(), "rediss://made.example:6379".to_owned());
            }
            for value in environment.values_mut().filter(|value| value.starts_with("{{resolve:")) {
                *value = "postgres://user:secret@db.example/lectern".to_owned();
            }
            environment.remove("DB_CA_BUNDLE");
            if !seen.insert((function.binary.clone(), environment.clone())) {
                continue;
            }
            let is_by_lambda = |name: &str| NOT_SET.contains(&(name, "by Lambda"));
            let by_lambda = |name: &str| is_by_lambda(name).then(|| "1".to_owned());
            let config = Config::from_lookup(|name| environment.get(name).cloned().or_else(|| by_lambda(name)));
            assert!(config.is_ok(), "{} with {given:?}: {:?}", function.binary, config.err());
        }
    }
}

#[test]
fn whoever_may_meet_a_server_of_rds_itself_knows_its_authorities() {
    let template = template();
    let (globals, functions) = (&template.document["Globals"]["Function"], functions(&template));
    assert_eq!(globals["Layers"][0]["Ref"], "Authorities");
    assert!(template.document["Resources"]["Authorities"].get("Condition").is_none());
    for given in combinations(&template) {
        let stack = template.with(&given);
        for function in &functions {
            let meets_a_proxy = stack.condition("MakesProxy") && function.binary != "migrate";
            let expected = (!meets_a_proxy).then_some("/opt/rds.pem");
            let environment = function.environment(&stack);
            let bundle = environment.get("DB_CA_BUNDLE").map(String::as_str);
            assert_eq!(bundle, expected, "{} with {given:?}", function.binary);
        }
    }
}

#[test]
fn statements_are_prepared_where_nothing_stands_before_the_server() {
    let template = template();
    for given in combinations(&template) {
        let stack = template.with(&given);
        let is_server = !given.contains_key("DatabaseUrl") || given.contains_key("DatabaseUrlIsServer");
        for function in functions(&template) {
            let prepares = function.environment(&stack)["DB_PREPARE"] == "true";
            assert_eq!(prepares, is_server && !stack.condition("MakesProxy"), "{} with {given:?}", function.binary);
        }
    }
}

#[test]
fn no_password_stands_in_an_environment_unless_the_database_was_given_with_one() {
    let template = template();
    for given in combinations(&template).iter().filter(|given| !given.contains_key("DatabaseUrl")) {
        let stack = template.with(given);
        for function in functions(&template) {
            let environment = function.environment(&stack);
            assert!(
                environment.values().all(|value| !value.contains("secret")),
                "{}: {environment:?}",
                function.binary
            );
            assert_eq!(environment["DB_AUTH"], "iam");
        }
    }
}

#[test]
fn people_their_groups_and_where_they_sign_in_outlive_the_stack() {
    let users = nested("users.yaml");
    // A client for machines is paid for as long as it is there.
    for (name, resource) in users.section("Resources").filter(|(name, _)| *name != "ServiceClient") {
        assert_eq!(resource["DeletionPolicy"], "RetainExceptOnCreate", "{name}");
        assert_eq!(resource["UpdateReplacePolicy"], "Retain", "{name}");
    }
}

#[test]
fn a_function_may_call_what_it_calls_and_nothing_else() {
    let template = template();
    for function in functions(&template) {
        let statements = function.properties["Policies"].as_array().into_iter().flatten();
        let statements = statements.flat_map(|policy| policy["Statement"].as_array().into_iter().flatten());
        let mut actions = BTreeSet::new();
        for statement in statements.filter(|statement| statement["Effect"] == "Allow") {
            let listed = match &statement["Action"] {
                Value::Array(many) => many.iter().map(text).collect(),
                one => vec![text(one)],
            };
            for action in listed {
                let of = &statement["Resource"]["Fn::GetAtt"];
                let whose = if action.starts_with("dynamodb:") { "ParkingTable" } else { "Database" };
                assert_eq!(of[0], whose, "{}: {statement}", function.binary);
                actions.insert(action);
            }
        }
        let calls = CALLS.iter().find(|(binary, _)| *binary == function.binary).map_or(&[][..], |(_, calls)| calls);
        assert_eq!(actions, calls.iter().map(|call| (*call).to_owned()).collect(), "{}", function.binary);
        // Who is told of the table is who may use it, and is built with what it takes.
        let parks = calls.iter().any(|call| call.starts_with("dynamodb:"));
        let manifest = fs::read_to_string(root().join("functions").join(&function.binary).join("Cargo.toml")).unwrap();
        assert_eq!(manifest.contains("\"parking\""), parks, "{}", function.binary);
        assert!(manifest.contains("build = \"../../shared/link.rs\""), "{} is linked as others are", function.binary);
        assert_eq!(function.environment.contains_key("PARKING_TABLE"), parks, "{}", function.binary);
    }
}

#[test]
fn the_calls_that_are_allowed_are_those_that_the_code_makes() {
    let code = fs::read_to_string(root().join("shared/src/parking.rs")).unwrap();
    let made = [
        (".put_item()", &["PutItem"][..]),
        (".get_item()", &["GetItem"]),
        (".query()", &["Query"]),
        (".scan()", &["Scan"]),
        (".update_item()", &["UpdateItem"]),
        (".delete_item()", &["DeleteItem"]),
        (".transact_write_items()", &["DeleteItem", "PutItem", "UpdateItem"]),
    ];
    let made: BTreeSet<&str> =
        made.iter().filter(|(call, _)| code.contains(call)).flat_map(|(_, actions)| actions.iter().copied()).collect();
    let allowed: BTreeSet<&str> =
        CALLS.iter().flat_map(|(_, calls)| calls.iter().filter_map(|call| call.strip_prefix("dynamodb:"))).collect();
    assert_eq!(made, allowed);
}

#[test]
fn a_function_connects_as_its_own_user_of_the_database() {
    let template = template();
    let stack = template.with(&Parameters::new());
    for function in functions(&template) {
        let user = &function.environment["DB_USER"];
        let policies = function.properties["Policies"].as_array().unwrap();
        let attached = policies.iter().filter_map(|policy| stack.resolve_reference(policy)).collect::<Vec<_>>();
        if function.binary == "prepare-database" {
            assert!(attached.is_empty(), "it connects as nobody");
            continue;
        }
        let [policy] = attached.as_slice() else { panic!("{}: {attached:?}", function.binary) };
        let statement = &template.document["Resources"][policy]["Properties"]["PolicyDocument"]["Statement"][0];
        assert_eq!(statement["Action"], "rds-db:connect");
        // The proxy or what is given, and the cluster behind the proxy.
        let resources = match &statement["Resource"] {
            Value::Array(resources) => resources.clone(),
            one => vec![one.clone()],
        };
        for resource in resources {
            let resource = if resource["Fn::If"].is_array() { &resource["Fn::If"][1] } else { &resource };
            let resource = text(&resource["Fn::Sub"][0]);
            assert_eq!(resource.rsplit('/').next().unwrap(), user, "{}", function.binary);
        }
    }
}

#[test]
fn the_clock_calls_every_function_without_a_route_but_those_that_a_deploy_calls() {
    for function in functions(&template()) {
        let events = function.properties["Events"].as_object().cloned().unwrap_or_default();
        let scheduled: Vec<&Value> = events.values().filter(|event| event["Type"] == "ScheduleV2").collect();
        let is_for_deploys = FOR_DEPLOYS.contains(&function.binary.as_str());
        assert_eq!(!scheduled.is_empty(), !function.has_route() && !is_for_deploys, "{}", function.binary);
        for event in scheduled {
            let properties = &event["Properties"];
            assert!(properties["RetryPolicy"]["MaximumRetryAttempts"].is_u64(), "{}", function.binary);
            assert!(properties["DeadLetterConfig"]["Arn"].is_object(), "{}", function.binary);
            let failed = &function.properties["EventInvokeConfig"]["DestinationConfig"]["OnFailure"];
            assert!(failed["Destination"].is_object(), "{}", function.binary);
        }
    }
}

#[test]
fn every_function_logs_is_traced_and_is_called_by_its_alias() {
    let template = template();
    let globals = &template.document["Globals"]["Function"];
    assert_eq!(globals["LoggingConfig"]["LogFormat"], "JSON");
    assert_eq!(globals["LoggingConfig"]["LogGroup"]["Ref"], "FunctionLogs");
    assert_eq!((&globals["Tracing"], &globals["AutoPublishAlias"]), (&"Active".into(), &"live".into()));
    assert!(template.document["Resources"]["FunctionLogs"]["Properties"]["RetentionInDays"].is_object());
    for function in functions(&template) {
        for name in ["LoggingConfig", "Tracing", "AutoPublishAlias", "Architectures", "Runtime", "Layers"] {
            assert!(function.properties.get(name).is_none(), "{} has a {name} of its own", function.binary);
        }
        // Alarms know functions by these names.
        let name = &function.properties["FunctionName"]["Fn::Sub"];
        assert_eq!(*name, format!("${{AWS::StackName}}-{}", function.binary));
        // What the clock or a deploy calls is not tried with a tenth of anything.
        let steps = function.properties["DeploymentPreference"]["Enabled"] != false;
        assert_eq!(steps, function.has_route(), "{}", function.binary);
    }
}

#[test]
fn all_copies_together_ask_for_fewer_connections_than_the_database_has() {
    let template = template();
    let (maps, functions) = (&template.document["Mappings"], functions(&template));
    for size in SIZES {
        let copies = maps["Copies"][size].as_object().unwrap();
        let named: BTreeSet<&String> = copies.keys().collect();
        let reserved: BTreeSet<&String> = functions
            .iter()
            .filter(|function| function.properties.get("ReservedConcurrentExecutions").is_some())
            .map(|function| &function.id)
            .collect();
        assert_eq!(named, reserved);
        let sum: u32 = copies.values().map(|count| u32::try_from(count.as_u64().unwrap()).unwrap()).sum();
        let capacity = text(&maps["Sizes"][size]["MaxCapacity"]);
        let (_, connections) = MAX_CONNECTIONS.iter().find(|(acu, _)| *acu == capacity).unwrap();
        let expected = u32::try_from(maps["Sizes"][size]["MostConnections"].as_u64().unwrap()).unwrap();
        // Two versions of all run for a moment, and the proxy takes four in five.
        assert!(2 * sum <= expected && expected <= connections * 4 / 5, "{size}: {sum}, {expected}, {connections}");
        assert!(sum <= RESERVABLE, "{size}: {sum}");
        let comment = fs::read_to_string(root().join("template.yaml")).unwrap();
        assert!(comment.contains("The sums are 40, 130 and 895"));
        assert!([40, 130, 895].contains(&sum), "{size}: {sum}");
    }
    for function in functions.iter().filter(|function| function.binary != "prepare-database") {
        let reserved = &function.properties["ReservedConcurrentExecutions"]["Fn::If"];
        assert_eq!(reserved[1]["Fn::FindInMap"][2], *function.id, "{}", function.binary);
    }
}

#[test]
fn a_deploy_migrates_to_the_newest_version_before_it_changes_a_function() {
    let template = template();
    let migrations = &template.document["Resources"]["Migrations"]["Properties"];
    assert_eq!(migrations["SchemaVersion"], ALL.last().unwrap().version().to_string());
    assert_eq!(migrations["ServiceToken"]["Ref"], "Migrate.Alias");
    // It is asked again when the code is another, and only once somebody could connect.
    assert_eq!(migrations["Release"]["Ref"], "Migrate.Version");
    assert_eq!(migrations["Roles"]["Fn::If"][1]["Ref"], "DatabasePreparation");
    for function in functions(&template) {
        let needed = &template.document["Resources"][&function.id]["DependsOn"];
        let is_for_deploys = FOR_DEPLOYS.contains(&function.binary.as_str());
        assert_eq!(*needed == "Migrations", !is_for_deploys, "{}", function.binary);
    }
}

#[test]
fn alarms_and_dashboard_read_the_metrics_that_functions_write() {
    let mut read = BTreeSet::new();
    let (monitoring, releases) = (nested("monitoring.yaml"), nested("releases.yaml"));
    for (name, alarm) in monitoring.of_type("AWS::CloudWatch::Alarm").chain(releases.of_type("AWS::CloudWatch::Alarm"))
    {
        let properties = &alarm["Properties"];
        assert_eq!(properties["AlarmName"]["Fn::Sub"].as_str().unwrap().find("${Service}-"), Some(0), "{name}");
        if properties["Namespace"] == telemetry::NAMESPACE {
            assert_eq!(properties["Dimensions"][0]["Name"], "service", "{name}");
            assert_eq!(properties["Dimensions"].as_array().unwrap().len(), 1, "{name}");
            read.insert(text(&properties["MetricName"]));
        }
    }
    let body = text(&monitoring.document["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]);
    let dashboard: Value = serde_json::from_str(&body).expect("a dashboard is JSON");
    let widgets = dashboard["widgets"].as_array().unwrap();
    let mut shown = BTreeSet::new();
    for metric in widgets.iter().flat_map(|widget| widget["properties"]["metrics"].as_array().into_iter().flatten()) {
        if metric[0] == telemetry::NAMESPACE {
            assert_eq!((&metric[2], &metric[3]), (&"service".into(), &"${Service}".into()), "{metric}");
            shown.insert(text(&metric[1]));
        }
    }
    let written: BTreeSet<String> = telemetry::METRICS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(shown, written, "on the dashboard");
    assert!(read.is_subset(&written), "{read:?}");
    // What somebody has to be told of.
    for name in [
        "Parked",
        "ParkedAgeMax",
        "RejectedParked",
        "LostCanaries",
        "ParkingFailures",
        "AnalyticsFailed",
        "Drift",
        "Errors",
    ] {
        assert!(read.contains(name), "{name} has no alarm");
    }
}

#[test]
fn the_clock_calls_as_often_as_is_promised() {
    let template = template();
    for (size, every) in SIZES.iter().zip(["rate(1 hour)", "rate(5 minutes)", "rate(5 minutes)"]) {
        assert_eq!(template.document["Mappings"]["Sizes"][size]["RefreshEvery"], every, "{size}");
    }
    let rate = |function: &str, event: &str| {
        template.document["Resources"][function]["Properties"]["Events"][event]["Properties"]["ScheduleExpression"]
            .clone()
    };
    assert_eq!(rate("RefreshAnalytics", "EveryNowAndThen")["Fn::FindInMap"][2], "RefreshEvery");
    assert_eq!(rate("RefreshAnalytics", "OnceAWeek"), "rate(7 days)");
    assert_eq!(rate("ReplayParked", "EveryMinute"), "rate(1 minute)");
}

#[test]
fn pages_of_other_origins_may_say_and_read_all_that_the_api_speaks_of() {
    let cors = template().document["Resources"]["HttpApi"]["Properties"]["CorsConfiguration"].clone();
    assert_eq!(
        cors["AllowHeaders"],
        json!(["Authorization", "Content-Type", "If-Match", "If-None-Match", "Idempotency-Key"])
    );
    assert_eq!(cors["ExposeHeaders"], json!(["ETag", "Link", "Location", "Retry-After", "X-Cache"]));
}

/// What the first column of a table in docs/OPERATIONS.md names; `head` is the table's first line.
fn explained(head: &str) -> BTreeSet<String> {
    let operations = fs::read_to_string(root().join("docs/OPERATIONS.md")).unwrap();
    let (_, table) = operations.split_once(head).unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let first_cells = table.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    first_cells.flat_map(|(names, _)| names.split(", ")).map(|name| name.trim_matches('`').to_owned()).collect()
}

#[test]
fn operations_explains_every_parameter_variable_and_metric_and_no_other() {
    let template = template();
    let parameters = template.section("Parameters").map(|(name, _)| name.clone());
    assert_eq!(explained("\n| parameter | default | meaning |\n"), parameters.collect());

    let mut variables = read_variables();
    // What Lambda sets stands beside the variable that it belongs to.
    for (name, _) in NOT_SET.iter().filter(|(_, why)| *why == "by Lambda") {
        assert!(variables.remove(*name), "{name} is not read");
    }
    // How to log is read apart.
    variables.extend(["AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL"].map(str::to_owned));
    assert_eq!(explained("\n| variable | default | |\n"), variables);

    let metrics = telemetry::METRICS.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(explained("\n| metric | unit | counts |\n"), metrics.collect());
}

#[test]
fn the_alarms_are_explained_in_operations_and_no_other() {
    let explained = explained("\n| alarm | cause | remedy |\n");
    let (monitoring, releases) = (nested("monitoring.yaml"), nested("releases.yaml"));
    let made = monitoring.of_type("AWS::CloudWatch::Alarm").chain(releases.of_type("AWS::CloudWatch::Alarm"));
    let made = made.map(|(_, alarm)| text(&alarm["Properties"]["AlarmName"]["Fn::Sub"]).replace("${Service}-", ""));
    assert_eq!(explained, made.collect());
}

#[test]
fn a_function_of_the_api_that_crashes_is_taken_back_and_one_that_is_throttled_is_told_of() {
    let called: BTreeSet<String> =
        functions(&template()).into_iter().filter(Function::has_route).map(|function| function.binary).collect();
    for (file, alarm) in [("releases.yaml", "Crashes"), ("monitoring.yaml", "TooFewCopies")] {
        let metrics = nested(file).document["Resources"][alarm]["Properties"]["Metrics"].as_array().unwrap().clone();
        let watched: BTreeSet<String> = metrics
            .iter()
            .filter_map(|metric| metric["MetricStat"]["Metric"]["Dimensions"][0]["Value"]["Fn::Sub"].as_str())
            .map(|name| name.trim_start_matches("${Service}-").to_owned())
            .collect();
        assert_eq!(watched, called, "{alarm}");
    }
}

#[test]
fn every_parameter_is_explained_and_asked_for_in_a_group() {
    let template = template();
    let groups = template.document["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"].as_array().unwrap();
    let listed: Vec<String> =
        groups.iter().flat_map(|group| group["Parameters"].as_array().unwrap()).map(text).collect();
    let declared: BTreeSet<&String> = template.section("Parameters").map(|(name, _)| name).collect();
    assert_eq!(listed.iter().collect::<BTreeSet<_>>(), declared);
    assert_eq!(listed.len(), declared.len());
    for (name, parameter) in template.section("Parameters") {
        assert!(parameter["Description"].is_string(), "{name}");
        // An empty account is asked for nothing.
        assert!(!parameter["Default"].is_null(), "{name}");
    }
}
