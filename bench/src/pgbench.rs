//! The floor of uncached work: the statements that a function sent, sent again by `pgbench -M extended` with one client.

use std::{collections::HashMap, fmt::Write as _, path::PathBuf, process::Stdio, time::Duration};

use tokio::process::Command;
use tokio_postgres::{
    Client, Statement,
    types::{IsNull, ToSql, Type, private::BytesMut, to_sql_checked},
};
use uuid::Uuid;

use crate::{Fallible, failed, recorder::Sent};

/// The program, and the database that it works on.
pub(crate) struct Pgbench {
    program: PathBuf,
    url: String,
}

impl Pgbench {
    /// Finds the program beside the server's or where Debian has it.
    pub(crate) async fn find(url: &str) -> Fallible<Self> {
        let beside = std::env::var_os("LECTERN_TEST_PG_BIN").map(PathBuf::from);
        for program in beside.map(|directory| directory.join("pgbench")).into_iter().chain(["pgbench".into()]) {
            let found = Command::new(&program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            if found.await.is_ok_and(|status| status.success()) {
                return Ok(Self { program, url: url.to_owned() });
            }
        }
        Err(failed("pgbench is missing: on Debian and Ubuntu it comes with the package postgresql"))
    }

    /// Sends statements one after the other and answers how long each of them took.
    pub(crate) async fn run(&self, script: &Script) -> Fallible<Vec<Duration>> {
        let file = std::env::temp_dir().join(format!("lectern-bench-{}.sql", Uuid::now_v7()));
        std::fs::write(&file, &script.text)?;
        let output = Command::new(&self.program)
            .args(["-n", "-M", "extended", "-c", "1", "-t", "1", "-r", "-f"])
            .arg(&file)
            .arg(&self.url)
            .output()
            .await?;
        std::fs::remove_file(&file)?;
        if !output.status.success() {
            let why = [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text).into_owned());
            return Err(failed(format!("pgbench: {} {}", output.status, why.concat())));
        }
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        let latencies = report.lines().skip_while(|line| !line.contains("latencies in milliseconds")).skip(1);
        // Two lines each: fetching the parameters, which the client has for nothing, and the statement itself.
        let milliseconds = latencies.filter_map(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        let took: Vec<_> = milliseconds.skip(script.skipped).step_by(script.step).collect();
        if took.len() != script.count {
            return Err(failed(format!("pgbench told {} times of {}:\n{report}", took.len(), script.count)));
        }
        Ok(took.into_iter().map(|milliseconds| Duration::from_secs_f64(milliseconds / 1e3)).collect())
    }
}

/// Prepares what was recorded by name.
pub(crate) async fn prepare(client: &Client, sent: &[Sent]) -> Fallible<Statement> {
    let first = sent.first().ok_or_else(|| failed("nothing was recorded"))?;
    Ok(client.prepare_typed(&first.sql, &types(first)?).await?)
}

/// Runs one of those.
pub(crate) async fn run(client: &Client, prepared: &Statement, sent: &Sent) -> Fallible<()> {
    let values: Vec<Raw<'_>> = sent.values.iter().map(|value| Raw(value.as_deref())).collect();
    let values: Vec<_> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    client.query(prepared, &values).await?;
    Ok(())
}

fn types(sent: &Sent) -> Fallible<Vec<Type>> {
    let types = sent.types.iter().map(|oid| Type::from_oid(*oid)).collect::<Option<_>>();
    types.ok_or_else(|| failed("a parameter has a type that PostgreSQL does not bring along"))
}

/// Statements for pgbench.
pub(crate) struct Script {
    text: String,
    count: usize,
    skipped: usize,
    step: usize,
}

impl Script {
    /// The same plain statement, many times.
    pub(crate) fn repeat(sql: &str, count: usize) -> Self {
        Self { text: format!("{sql};\n").repeat(count), count, skipped: 0, step: 1 }
    }

    /// Statements as they were recorded. Their parameters go into a table as they are, and pgbench fetches them before
    /// each statement.
    pub(crate) async fn replay(client: &Client, sent: &[Sent]) -> Fallible<Self> {
        let first = sent.first().ok_or_else(|| failed("nothing was recorded"))?;
        let types = types(first)?;
        let names: Vec<&str> = types.iter().map(name).collect();
        let table = format!("bench.replay_{}", Uuid::now_v7().simple());
        let columns: Vec<String> = names.iter().enumerate().map(|(i, name)| format!("p{} {name}", i + 1)).collect();
        client
            .batch_execute(&format!("create unlogged table {table} (n integer primary key, {})", columns.join(", ")))
            .await?;
        let marks: Vec<String> = (1..=types.len() + 1).map(|i| format!("${i}")).collect();
        let insert = format!("insert into {table} values ({})", marks.join(", "));
        let mut text = String::new();
        for (n, sent) in sent.iter().enumerate() {
            if sent.types != first.types {
                return Err(failed("the statements differ"));
            }
            let n = n as i32;
            let raw: Vec<Raw<'_>> = sent.values.iter().map(|value| Raw(value.as_deref())).collect();
            let values = raw.iter().zip(&types).map(|(raw, of)| (raw as &(dyn ToSql + Sync), of.clone()));
            let params: Vec<_> = std::iter::once((&n as &(dyn ToSql + Sync), Type::INT4)).chain(values).collect();
            client.query_typed(&insert, &params).await?;
            let given: Vec<String> = (1..=types.len()).map(|i| format!("p{i}::text")).collect();
            writeln!(text, "select {} from {table} where n = {n} \\gset", given.join(", "))?;
            writeln!(text, "{};", with_variables(&sent.sql, &names, &sent.values))?;
        }
        Ok(Self { text, count: sent.len(), skipped: 1, step: 2 })
    }
}

/// `$1` becomes pgbench's `:p1`, with the type that the sender declared; it has no variable for null.
fn with_variables(sql: &str, names: &[&str], values: &[Option<Vec<u8>>]) -> String {
    let mut parts = sql.split('$');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let number = part[..digits].parse::<usize>().unwrap_or_default();
        match (names.get(number.wrapping_sub(1)), values.get(number.wrapping_sub(1))) {
            (Some(name), Some(None)) => text.push_str(&format!("null::{name}")),
            (Some(name), Some(_)) => text.push_str(&format!(":p{number}::{name}")),
            _ => text.push_str(&format!("${}", &part[..digits])),
        }
        text.push_str(&part[digits..]);
    }
    text
}

/// As SQL calls a type; the driver has its internal name.
fn name(of: &Type) -> &'static str {
    match *of {
        Type::TEXT => "text",
        Type::UUID => "uuid",
        Type::BOOL => "boolean",
        Type::INT4 => "integer",
        Type::INT8 => "bigint",
        Type::FLOAT8 => "double precision",
        Type::BYTEA => "bytea",
        Type::TIMESTAMPTZ => "timestamptz",
        Type::TEXT_ARRAY => "text[]",
        Type::UUID_ARRAY => "uuid[]",
        Type::BOOL_ARRAY => "boolean[]",
        Type::INT4_ARRAY => "integer[]",
        Type::TIMESTAMPTZ_ARRAY => "timestamptz[]",
        _ => "unknown",
    }
}

/// A value in the format that PostgreSQL sends and takes.
#[derive(Debug)]
struct Raw<'a>(Option<&'a [u8]>);

impl ToSql for Raw<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(bytes) = self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }
    fn accepts(_: &Type) -> bool {
        true
    }
    to_sql_checked!();
}

/// The same statement about new things: ids and keys are replaced wherever they stand in a parameter.
pub(crate) fn renewed(sent: &Sent, replaced: &HashMap<Vec<u8>, Vec<u8>>) -> Sent {
    let renew = |value: &Vec<u8>| {
        let mut value = value.clone();
        for length in [16, 36] {
            let mut at = 0;
            while at + length <= value.len() {
                match replaced.get(&value[at..at + length]) {
                    Some(new) => {
                        value[at..at + length].copy_from_slice(new);
                        at += length;
                    }
                    None => at += 1,
                }
            }
        }
        value
    };
    let is_id =
        |of: u32| [Type::UUID.oid(), Type::UUID_ARRAY.oid(), Type::TEXT.oid(), Type::TEXT_ARRAY.oid()].contains(&of);
    let values = sent.values.iter().zip(&sent.types);
    let values = values.map(|(value, of)| if is_id(*of) { value.as_ref().map(renew) } else { value.clone() });
    Sent { values: values.collect(), ..sent.clone() }
}

/// Every id in the parameters that are ids, with a new one for each.
pub(crate) fn new_ids(sent: &Sent) -> HashMap<Vec<u8>, Vec<u8>> {
    let mut replaced = HashMap::new();
    let mut add = |id: &[u8]| {
        replaced.entry(id.to_vec()).or_insert_with(|| Uuid::now_v7().as_bytes().to_vec());
    };
    for (value, of) in sent.values.iter().zip(&sent.types) {
        match value {
            Some(id) if *of == Type::UUID.oid() => add(id),
            // An array of one dimension: five numbers, then length and bytes of each.
            Some(array) if *of == Type::UUID_ARRAY.oid() => {
                array.get(20..).unwrap_or_default().chunks_exact(20).for_each(|item| add(&item[4..]));
            }
            _ => {}
        }
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_variables_with_the_types_that_were_declared() {
        let text =
            with_variables("select $1::text,\n $2 where $10 is null", &["text", "uuid[]"], &[Some(vec![]), None]);
        assert_eq!(text, "select :p1::text::text,\n null::uuid[] where $10 is null");
    }

    #[test]
    fn a_repeated_write_is_about_new_things_only() {
        let (id, kept) = (Uuid::now_v7(), Uuid::now_v7());
        let array = |ids: &[Uuid]| {
            let mut bytes = vec![0; 20];
            for id in ids {
                bytes.extend([0, 0, 0, 16]);
                bytes.extend(id.as_bytes());
            }
            bytes
        };
        let sent = Sent {
            types: vec![Type::UUID_ARRAY.oid(), Type::TEXT.oid()],
            values: vec![Some(array(&[id, kept])), Some(id.to_string().into_bytes())],
            ..Sent::default()
        };
        let mut replaced = new_ids(&sent);
        assert_eq!(replaced.len(), 2);
        let new = replaced.get(id.as_bytes().as_slice()).cloned().unwrap();
        replaced.remove(kept.as_bytes().as_slice());
        let again = renewed(&sent, &replaced);
        let bytes = again.values[0].as_deref().unwrap();
        assert_eq!((&bytes[24..40], &bytes[44..]), (new.as_slice(), kept.as_bytes().as_slice()));
        // A key that is text is replaced where its text is given.
        assert_eq!(again.values[1], sent.values[1]);
    }
}
