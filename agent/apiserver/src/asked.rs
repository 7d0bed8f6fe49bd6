//! What a client asks of a connection or of a log: its query, as the message of options that the subresource has.
//!
//! Whoever goes on with it, be it admission or what is asked of a kubelet, sees the options and never the query.

use api::schema::{FieldType, Message};
use serde_json::{Value, json};
use stdx::quoted;

use crate::app::Call;
use crate::codec;
use crate::request::Query;
use crate::status::{Failure, Result};

/// A time that is named, but not said.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// The options of a connection, as the message that they are.
///
/// # Errors
/// When a value cannot be one of its field.
pub(crate) fn of_connection(call: &Call) -> Result<Value> {
    let name = call.kind.type_of(&call.info.subresource);
    let schema = name.schema().ok_or_else(|| Failure::internal(format!("no message is called {}", name.kind)))?;
    let mut options = options(schema, &call.query)?;
    if schema.fields.iter().any(|field| field.json == "path") {
        options["path"] = led(&call.info.rest, call.info.path.ends_with('/')).into();
    }
    codec::canonical_message(schema, name, &options)
}

/// What follows the subresource in a path; a slash at the end of the path is told.
fn led(rest: &str, is_folder: bool) -> String {
    let mut path = if rest.is_empty() { String::new() } else { format!("/{rest}") };
    if is_folder && !path.ends_with('/') {
        path.push('/');
    }
    path
}

/// The fields of a message as a query names them; what else it says is of no interest.
///
/// # Errors
/// When a value cannot be one of its field; the first field counts.
pub(crate) fn options(schema: &Message, query: &Query) -> Result<Value> {
    let mut options = json!({});
    for field in schema.fields.iter().filter(|field| query.has(field.json)) {
        let text = query.get(field.json);
        options[field.json] = match field.ty {
            FieldType::Bool => query.flag(field.json).into(),
            FieldType::Int32 => numbers(&query.all(field.json))?.into(),
            FieldType::Int64 => query.integer(field.json)?.into(),
            FieldType::Message(_) => time(text)?.into(),
            _ if field.repeated => query.all(field.json).into(),
            _ => text.into(),
        };
    }
    Ok(options)
}

/// Numbers, of which one value may list several.
fn numbers(values: &[String]) -> Result<Vec<i32>> {
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let why = if is_number { "value out of range" } else { "invalid syntax" };
        let bad = || {
            let text = quoted(text);
            Failure::bad_request(format!("cannot convert to []int32: strconv.ParseUint: parsing {text}: {why}"))
        };
        text.parse::<u16>().ok().filter(|_| is_number).map(i32::from).ok_or_else(bad)
    };
    values.iter().flat_map(|list| list.split(',')).map(number).collect()
}

fn time(text: &str) -> Result<String> {
    // Queries spell an absent time as JSON does.
    if matches!(text, "" | "null") {
        return Ok(NO_TIME.to_owned());
    }
    let (seconds, _) = api::time::parse_as(text, false).map_err(Failure::bad_request)?;
    Ok(api::time::format_seconds(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &str, query: &str) -> Result<Value> {
        options(codec::schema(&format!("k8s.io.api.core.v1.{message}")), &Query::parse(query))
    }

    #[test]
    fn queries_become_options() {
        let asked = read("PodLogOptions", "follow&tailLines=%2B5&sinceTime=2024-01-01T01:00:00.5%2B01:00&foo=bar");
        assert_eq!(asked.unwrap(), json!({"follow": true, "tailLines": 5, "sinceTime": "2024-01-01T00:00:00Z"}));
        assert_eq!(read("PodLogOptions", "sinceTime=").unwrap(), json!({"sinceTime": NO_TIME}));
        let asked = read("PodExecOptions", "command=a&command=b%20c&stdin=yes&stdout=0&container=c&container=d");
        let expected = json!({"command": ["a", "b c"], "stdin": true, "stdout": false, "container": "c"});
        assert_eq!(asked.unwrap(), expected);
        assert_eq!(read("PodPortForwardOptions", "ports=80&ports=81,82").unwrap(), json!({"ports": [80, 81, 82]}));
    }

    #[test]
    fn what_cannot_be_an_option_is_refused() {
        let told = |message: &str, query: &str| read(message, query).unwrap_err().message().to_owned();
        assert_eq!(told("PodLogOptions", "tailLines=x"), "strconv.ParseInt: parsing \"x\": invalid syntax");
        assert!(told("PodLogOptions", "sinceTime=x&tailLines=x").starts_with("parsing time \"x\" as "));
        for (ports, why) in
            [("ports=%2B80", "invalid syntax"), ("ports", "invalid syntax"), ("ports=65536", "value out of range")]
        {
            assert!(told("PodPortForwardOptions", ports).ends_with(why), "{ports}");
        }
    }

    #[test]
    fn the_way_of_a_proxy_keeps_its_slash() {
        let cases = [("", false, ""), ("", true, "/"), ("a/b", false, "/a/b"), ("a", true, "/a/")];
        for (rest, is_folder, expected) in cases {
            assert_eq!(led(rest, is_folder), expected);
        }
    }
}
