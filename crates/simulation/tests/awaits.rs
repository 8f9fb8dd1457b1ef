//! Every await of the crash-tested files stands in the table by which its crashes are counted.

use std::{fs, path::Path};

use simulation::awaits::AWAITS;

/// Each await of a source: its function, and what is awaited.
fn awaits(source: &str) -> Vec<(String, String)> {
    let product = source.split("#[cfg(test)]").next().expect("there is a first part");
    let code: String =
        product.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices(".await") {
        found.push((at, awaited(&code[..at])));
    }
    for (at, _) in code.match_indices(concat!("select", "! {")) {
        found.push((at, "select!".to_owned()));
    }
    found.sort();
    found.into_iter().map(|(at, awaited)| (function(&code[..at]), awaited)).collect()
}

/// The name of the call, or of the value, that this code ends with.
fn awaited(before: &str) -> String {
    let mut code = before.trim_end();
    if code.ends_with(')') {
        let mut depth = 0;
        let open = code.char_indices().rev().find(|(_, c)| {
            depth += i32::from(*c == ')') - i32::from(*c == '(');
            depth == 0
        });
        code = &code[..open.expect("parentheses match").0];
    }
    let code = code.trim_end_matches("::<()>");
    let name = code.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(code, |at| &code[at + 1..]);
    name.to_owned()
}

/// The function that this code ends in.
fn function(before: &str) -> String {
    let (_, rest) = before.rsplit_once("fn ").expect("awaits stand in functions");
    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn every_await_of_the_product_is_in_the_table() {
    for (file, awaits_of_table) in AWAITS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let source = fs::read_to_string(&path).expect("the product's source is there");
        let in_source = awaits(&source);
        let in_table: Vec<(String, String)> = awaits_of_table
            .iter()
            .map(|(function, awaited, _)| ((*function).to_owned(), (*awaited).to_owned()))
            .collect();
        assert_eq!(in_source, in_table, "{file}");
    }
}

#[test]
fn an_await_is_found_wherever_it_stands() {
    let source = "async fn one() {\n    two(a, (b)).await;\n    // no.await\n    x.three()\n        .await?;\n    four.await;\n    \
                  tokio::select! {biased;\n        _ = five(c).await => {}\n    }\n}\n#[cfg(test)] mod tests { async fn t() { six().await } }";
    let found: Vec<String> =
        awaits(source).into_iter().map(|(function, awaited)| format!("{function}:{awaited}")).collect();
    assert_eq!(found, ["one:two", "one:three", "one:four", "one:select!", "one:five"]);
}
