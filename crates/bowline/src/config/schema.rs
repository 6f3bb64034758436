//! `config schema`: the file as JSON Schema, for editors that complete and check while one types.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Config, explain, keys::KEYS};

/// Returns the schema (draft 2020-12) of the whole file.
pub(crate) fn schema() -> Value {
    let mut schema = table("", &explain::words());
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("bowline.toml");
    schema
}

/// The schema of the table with this path, which ends with a dot.
fn table(prefix: &str, words: &BTreeMap<String, Vec<&str>>) -> Value {
    let defaults = Config::default();
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in KEYS {
        let Some(rest) = key.path.strip_prefix(prefix) else { continue };
        if let Some((child, _)) = rest.split_once('.') {
            if !properties.contains_key(child) {
                properties.insert(child.to_owned(), table(&format!("{prefix}{child}."), words));
            }
            continue;
        }
        let mut schema = key.schema();
        schema["description"] = json!(words.get(key.path).map(|lines| lines.join(" ")));
        if !key.path.contains('*') && !key.get(&defaults).is_null() {
            schema["default"] = key.get(&defaults);
        }
        properties.insert(rest.to_owned(), schema);
        if key.required {
            required.push(rest);
        }
    }
    let names = match prefix {
        "namespaces." => "^/",
        "services." => "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
        "ai.models." => r#"^[!#-\[\]-~]{1,128}$"#,
        _ => "^[A-Za-z0-9_-]{1,64}$",
    };
    match properties.remove("*") {
        // Beside its own keys it has tables with names, which are none of those.
        Some(any) if !properties.is_empty() => {
            let own: Vec<&str> = properties.keys().map(String::as_str).collect();
            let names = format!("^(?!({})$)[A-Za-z0-9_-]{{1,64}}$", own.join("|"));
            json!({
                "type": "object",
                "properties": properties,
                "patternProperties": { (names): any },
                "additionalProperties": false,
            })
        }
        Some(any) => json!({
            "type": "object",
            "minProperties": if prefix == "namespaces." { 1 } else { 0 },
            "patternProperties": { (names): any },
            "additionalProperties": false,
        }),
        None => {
            let mut schema = json!({
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": false,
            });
            if prefix == "services.*." {
                let runs = ["command", "script", "module"];
                schema["oneOf"] = json!(runs.map(|key| json!({ "required": [key] })));
            }
            if prefix == "links.*." {
                let knows_url = json!({ "properties": { "profile": { "const": "webex" } } });
                schema["anyOf"] = json!([knows_url, { "required": ["url"] }]);
            }
            schema
        }
    }
}
