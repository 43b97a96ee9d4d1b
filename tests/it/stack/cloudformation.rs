//! As much of `CloudFormation` as is needed to see what a template comes to with given parameters: conditions, rules,
//! intrinsic functions. What only AWS knows (an address, an id) is `made`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::{Map, Value, json};
use serde_yaml_ng::Value as Yaml;

/// Stands for what only AWS knows.
pub(super) const MADE: &str = "made";

pub(super) type Parameters = BTreeMap<String, String>;

/// A template, with its short forms (`!Ref x`) written out (`{"Ref": "x"}`).
pub(super) struct Template {
    pub(super) document: Value,
    /// Those of its nested stacks.
    nested: BTreeMap<String, Template>,
}

impl Template {
    pub(super) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let yaml: Yaml = serde_yaml_ng::from_str(&text).unwrap();
        let mut template = Self { document: written_out(&yaml), nested: BTreeMap::new() };
        let nested = template.of_type("AWS::CloudFormation::Stack").map(|(name, stack)| {
            let file = stack["Properties"]["TemplateURL"].as_str().unwrap();
            (name.clone(), Self::read(&path.parent().unwrap().join(file)))
        });
        template.nested = nested.collect::<BTreeMap<_, _>>();
        template
    }

    /// A resource, an output and the like by their names.
    pub(super) fn section(&self, name: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.document[name].as_object().into_iter().flatten()
    }

    pub(super) fn of_type(&self, wanted: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.section("Resources").filter(move |(_, resource)| resource["Type"] == wanted)
    }

    /// What comes of it with these parameters and the defaults of the others.
    pub(super) fn with(&self, given: &Parameters) -> Stack<'_> {
        let mut parameters = Parameters::new();
        for (name, declared) in self.section("Parameters") {
            let default = declared.get("Default").map(text);
            let value = given.get(name).cloned().or(default);
            parameters.insert(name.clone(), value.unwrap_or_else(|| panic!("{name} has neither value nor default")));
        }
        for name in given.keys() {
            assert!(parameters.contains_key(name), "{name} is no parameter");
        }
        Stack { template: self, parameters }
    }
}

fn written_out(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let value = written_out(&tagged.value);
            match tag.trim_start_matches('!') {
                name @ ("Ref" | "Condition") => json!({ name: value }),
                "GetAtt" => {
                    let (resource, attribute) = value.as_str().unwrap().split_once('.').unwrap();
                    json!({ "Fn::GetAtt": [resource, attribute] })
                }
                name => json!({ format!("Fn::{name}"): value }),
            }
        }
        Yaml::Sequence(items) => items.iter().map(written_out).collect(),
        Yaml::Mapping(entries) => {
            let entry = |(key, value): (&Yaml, &Yaml)| (text(&written_out(key)), written_out(value));
            Value::Object(entries.iter().map(entry).collect())
        }
        other => serde_json::to_value(other).unwrap(),
    }
}

/// A scalar as `CloudFormation` compares it.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The one function that an object calls.
fn call(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    let (name, argument) = object.iter().next()?;
    (name == "Ref" || name == "Condition" || name.starts_with("Fn::")).then_some((name.as_str(), argument))
}

/// A template with its parameters.
pub(super) struct Stack<'a> {
    template: &'a Template,
    parameters: Parameters,
}

impl<'a> Stack<'a> {
    /// Why the rules refuse these parameters, if they do.
    pub(super) fn refusal(&self) -> Option<&'a str> {
        self.template.section("Rules").find_map(|(_, rule)| {
            let applies = rule.get("RuleCondition").is_none_or(|condition| self.is_true(condition));
            let broken = |assertion: &&Value| !self.is_true(&assertion["Assert"]);
            rule["Assertions"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|_| applies)
                .find(broken)
                .map(|assertion| assertion["AssertDescription"].as_str().unwrap())
        })
    }

    pub(super) fn condition(&self, name: &str) -> bool {
        let condition = &self.template.document["Conditions"][name];
        assert!(!condition.is_null(), "{name} is no condition");
        self.is_true(condition)
    }

    fn is_true(&self, expression: &Value) -> bool {
        let (function, argument) = call(expression).unwrap_or_else(|| panic!("{expression} is no condition"));
        let all = || argument.as_array().unwrap().iter();
        match function {
            "Condition" => self.condition(argument.as_str().unwrap()),
            "Fn::Equals" => self.resolve(&argument[0]) == self.resolve(&argument[1]),
            "Fn::Not" => !self.is_true(&argument[0]),
            "Fn::And" => all().all(|one| self.is_true(one)),
            "Fn::Or" => all().any(|one| self.is_true(one)),
            "Fn::EachMemberEquals" => {
                let list = self.resolve(&argument[0]).unwrap();
                let wanted = self.resolve(&argument[1]).unwrap();
                text(&list).split(',').all(|member| member == text(&wanted))
            }
            other => panic!("{other} is not known here"),
        }
    }

    /// Whether a resource or an output is there.
    pub(super) fn has(&self, thing: &Value) -> bool {
        thing["Condition"].as_str().is_none_or(|name| self.condition(name))
    }

    pub(super) fn resource(&self, name: &str) -> Option<&'a Value> {
        let resource = self.template.document["Resources"].get(name)?;
        self.has(resource).then_some(resource)
    }

    /// The value of an expression; nothing for `AWS::NoValue`. Lists of parameters are joined by commas, as they come in.
    pub(super) fn resolve(&self, value: &Value) -> Option<Value> {
        let Some((function, argument)) = call(value) else {
            return Some(match value {
                Value::Array(items) => items.iter().filter_map(|item| self.resolve(item)).collect(),
                Value::Object(entries) => {
                    let resolved = |(key, value): (&String, &Value)| Some((key.clone(), self.resolve(value)?));
                    Value::Object(entries.iter().filter_map(resolved).collect::<Map<_, _>>())
                }
                scalar => scalar.clone(),
            });
        };
        match function {
            "Ref" => match argument.as_str().unwrap() {
                "AWS::NoValue" => None,
                "AWS::Region" => Some("eu-central-1".into()),
                "AWS::StackName" => Some("lectern".into()),
                name => Some(self.parameters.get(name).map_or_else(|| MADE.into(), |value| value.as_str().into())),
            },
            "Fn::If" => {
                let branch = if self.condition(argument[0].as_str().unwrap()) { &argument[1] } else { &argument[2] };
                self.resolve(branch)
            }
            "Fn::FindInMap" => {
                let keys: Vec<String> =
                    argument.as_array().unwrap().iter().map(|key| self.resolved_text(key)).collect();
                let found = &self.template.document["Mappings"][&keys[0]][&keys[1]][&keys[2]];
                assert!(!found.is_null(), "nothing in the map at {keys:?}");
                Some(found.clone())
            }
            "Fn::Join" => match self.resolve(&argument[1])? {
                Value::Array(items) => {
                    Some(items.iter().map(text).collect::<Vec<_>>().join(argument[0].as_str().unwrap()).into())
                }
                list => Some(text(&list).replace(',', argument[0].as_str().unwrap()).into()),
            },
            "Fn::Sub" => {
                let (format, own) = match argument {
                    Value::Array(both) => (both[0].as_str().unwrap(), both[1].clone()),
                    format => (format.as_str().unwrap(), Value::Null),
                };
                let mut filled = format.to_owned();
                for name in variables(format) {
                    let value = match own.get(&name) {
                        Some(value) => self.resolved_text(value),
                        None => self.resolved_text(&json!({ "Ref": name })),
                    };
                    filled = filled.replace(&format!("${{{name}}}"), &value);
                }
                Some(filled.into())
            }
            _ => Some(MADE.into()),
        }
    }

    /// The name that an expression refers to in the end.
    pub(super) fn resolve_reference(&self, value: &Value) -> Option<String> {
        match call(value)? {
            ("Ref", name) => name.as_str().filter(|name| *name != "AWS::NoValue").map(str::to_owned),
            ("Fn::If", argument) => {
                let branch = if self.condition(argument[0].as_str().unwrap()) { &argument[1] } else { &argument[2] };
                self.resolve_reference(branch)
            }
            _ => None,
        }
    }

    fn resolved_text(&self, value: &Value) -> String {
        self.resolve(value).as_ref().map_or_else(String::new, text)
    }

    /// Looks at all that is there, and panics where something refers to what is not.
    pub(super) fn is_whole(&self, at: &str) {
        for (name, resource) in self.template.section("Resources").filter(|(_, resource)| self.has(resource)) {
            let at = format!("{at}/{name}");
            for needed in match &resource["DependsOn"] {
                Value::String(one) => vec![one.as_str()],
                many => many.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
            } {
                assert!(self.resource(needed).is_some(), "{at} depends on {needed}, which is not there");
            }
            self.walk(&resource["Properties"], &at);
            if resource["Type"] == "AWS::CloudFormation::Stack" {
                self.nested(name).is_whole(&at);
            }
        }
        for (name, output) in self.template.section("Outputs").filter(|(_, output)| self.has(output)) {
            self.walk(&output["Value"], &format!("{at}/output {name}"));
        }
    }

    /// A nested stack, with what it is given.
    fn nested(&self, name: &str) -> Stack<'a> {
        let given = self.template.document["Resources"][name]["Properties"]["Parameters"].as_object();
        let given = given.into_iter().flatten().map(|(name, value)| (name.clone(), self.resolved_text(value)));
        self.template.nested[name].with(&given.collect())
    }

    fn walk(&self, value: &Value, at: &str) {
        match call(value) {
            Some(("Ref", name)) => self.refer(name.as_str().unwrap(), at),
            Some(("Fn::GetAtt", path)) => {
                let (name, attribute) = (path[0].as_str().unwrap(), path[1].as_str().unwrap());
                self.refer(name, at);
                if let Some(output) = attribute.strip_prefix("Outputs.") {
                    let nested = self.nested(name);
                    let declared = &nested.template.document["Outputs"][output];
                    assert!(!declared.is_null(), "{at}: {name} has no output {output}");
                    assert!(nested.has(declared), "{at}: {name} has no output {output} here");
                }
            }
            Some(("Fn::If", argument)) => {
                let branch = if self.condition(argument[0].as_str().unwrap()) { &argument[1] } else { &argument[2] };
                self.walk(branch, at);
            }
            Some(("Fn::Sub", argument)) => {
                let (format, own) = match argument {
                    Value::Array(both) => (&both[0], both[1].clone()),
                    format => (format, Value::Null),
                };
                self.walk(&own, at);
                for name in variables(format.as_str().unwrap()).iter().filter(|name| own.get(name.as_str()).is_none()) {
                    self.refer(name, at);
                }
            }
            _ => match value {
                Value::Array(items) => items.iter().for_each(|item| self.walk(item, at)),
                Value::Object(entries) => entries.values().for_each(|value| self.walk(value, at)),
                _ => {}
            },
        }
    }

    /// `Function.Alias` is SAM's.
    fn refer(&self, name: &str, at: &str) {
        let name = name.split('.').next().filter(|_| !name.starts_with("AWS::")).unwrap_or(name);
        let is_known = name.starts_with("AWS::") || self.parameters.contains_key(name) || self.resource(name).is_some();
        assert!(is_known, "{at} refers to {name}, which is not there with {:?}", self.parameters);
    }
}

/// The names in `${…}`, each once.
fn variables(format: &str) -> BTreeSet<String> {
    let ends = format.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
    ends.map(|(name, _)| name.to_owned()).filter(|name| !name.starts_with('!')).collect()
}
