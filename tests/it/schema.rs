//! The JSON schemas of the documentation.

/// Checks a document against a schema in `docs/schema/`.
///
/// # Panics
/// If the schema does not allow the document.
pub fn assert_valid(document: &serde_json::Value, schema: &str) {
    let path = format!("docs/schema/{schema}.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("schema.json", serde_json::from_str(&text).expect("JSON")).expect("a schema");
    let compiled = compiler.compile("schema.json", &mut schemas).expect("a schema");
    if let Err(error) = schemas.validate(document, compiled) {
        panic!("{error}: {document:#}");
    }
}
